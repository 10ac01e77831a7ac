"""Small matrices are one thread's work.

LAPACK inside OpenBLAS, which numpy's wheels carry, shares out matrices of 33 rows already. Each step then waits for every
thread: where the cores have other work to do, an eigendecomposition of 48 x 48 takes twenty times as long as on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, numpy's BLAS uses one thread, if it is one that can be told so."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """Finds the libraries that are loaded, once: it takes a few milliseconds."""
    return ThreadpoolController()
