"""Small matrices are one thread's work.

LAPACK inside OpenBLAS, which numpy's wheels carry, shares out matrices of 33 rows already. Each step then waits for every
thread: where the cores have other work to do, an eigendecomposition of 48 x 48 takes twenty times as long as on one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

__all__ = ["one_thread"]

# In the wheels, whose OpenBLAS has names of its own; as distributions build it, with 64-bit integers and without.
_PATTERNS = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, numpy's OpenBLAS uses one thread. With any other BLAS, nothing happens."""
    get, put = _controls()
    before = get()
    if before <= 1:
        yield
        return
    put(1)
    try:
        yield
    finally:
        put(before)


@lru_cache(maxsize=1)
def _controls() -> tuple[Callable[[], int], Callable[[int], object]]:
    """What gets and sets the number of threads."""
    from numpy.linalg import _umath_linalg

    try:
        library = ctypes.CDLL(_umath_linalg.__file__)  # its symbols are looked up in what it is linked with, too
    except (OSError, AttributeError):
        return (lambda: 1), (lambda _: None)
    for pattern in _PATTERNS:
        get = getattr(library, pattern.format("get_num_threads"), None)
        put = getattr(library, pattern.format("set_num_threads"), None)
        if get is not None and put is not None:
            return get, put
    return (lambda: 1), (lambda _: None)
