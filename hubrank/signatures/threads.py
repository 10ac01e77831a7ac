"""Small matrices are one thread's work.

LAPACK inside OpenBLAS, which numpy's wheels carry, shares out matrices of 33 rows already. Each step then waits for every
thread: where the cores have other work to do, an eigendecomposition of 48 x 48 takes twenty times as long as on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from threading import local

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


class _Depth(local):
    value = 0


_INSIDE = _Depth()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, numpy's BLAS uses one thread, if it is one that can be told so.

    Telling it costs up to a millisecond: whoever does many small things in one thread enters once, around them all.
    """
    _INSIDE.value += 1
    try:
        with _controller().limit(limits=1, user_api="blas") if _INSIDE.value == 1 else nullcontext():
            yield
    finally:
        _INSIDE.value -= 1


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """Finds the libraries that are loaded, once: it takes a few milliseconds."""
    return ThreadpoolController()
