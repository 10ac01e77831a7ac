"""The largest directions of updates that are many times their file: Kronecker products, products of dense or wide factors.

A LoKr of a few kilobytes is a dense matrix of 4096 x 4096 at every module. A signature keeps few directions of each and the
whole spectrum, and both follow from the small factors: the SVD of a Kronecker product is the Kronecker product of the SVDs.
What is small stays whole; of the rest one module at a time is taken apart, within a bound on the work that a file may ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import AdapterError
from hubrank.types import Delta, Site

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["KEPT", "MAX_WORK", "WHOLE", "Leading", "Room", "by_gram", "kronecker", "of_product"]

KEPT = 64
"""Directions kept of one update at most: no signature keeps more."""
WHOLE = 1 << 22
"""Numbers that all factors of an adapter may have for them to be kept whole: 16 MB."""
MAX_WORK = 1 << 35
"""Short side squared times long side, summed over all that is taken apart: some ten seconds of one core. That is 76 dense
updates of 768 x 768, or 4 of 2048 x 2048."""
_MOST = 1 << 23  # numbers of all directions together: as many as a signature may have in the store
_MOST_ROWS = 1 << 24  # rows and columns of all modules together: a direction of each of a 70B model's linear modules
_MOST_VALUES = 1 << 16  # as the store
_WIDEST = 1 << 20  # rows and columns of one module: four times the largest vocabulary
_SMALLEST = 1e-12
_JITTER = 1e-14
_PRECISE = 1e-8  # a square of this part of the factors' squared norms, and its direction, is known to six digits
_CANCELS = 1e-5  # the largest square that is less says that the factors cancel each other
_DROPPED = 1e-6  # the square of the part of the largest value under which a signature drops values


@dataclass(frozen=True, slots=True, eq=False)
class Leading:
    """``u diag(values[:k]) v^T`` is the largest part of an update; ``values`` are all its singular values, falling.

    Attributes:
        u: [d_out, k], orthonormal columns.
        values: [n], n from k on.
        v: [d_in, k].
    """

    u: NDArray[np.float64]
    values: NDArray[np.float64]
    v: NDArray[np.float64]

    def delta(self, site: Site, scale: float = 1.0) -> Delta:
        """The update times ``scale``, as a delta that knows its whole spectrum.

        Raises:
            AdapterError: ``too large`` where it has more singular values than a store admits.
        """
        if len(self.values) > _MOST_VALUES:
            raise AdapterError("too large", f"{site}: {len(self.values):,} singular values")
        k = self.u.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused with the finished adapter
            up = (self.u * (self.values[:k] * scale)).astype(np.float32)
            spectrum = (self.values * abs(scale)).astype(np.float32)
        return Delta(site, down=np.ascontiguousarray(self.v.T, np.float32), up=up, spectrum=spectrum)


class Room:
    """What taking an adapter apart may keep and cost.

    Args:
        sides: (d_out, d_in) of every module.

    Attributes:
        kept: directions of each module.

    Raises:
        AdapterError: ``too large``: there are too many or too wide modules for one direction each.
    """

    def __init__(self, sides: Iterable[tuple[int, int]]) -> None:
        widths = [d_out + d_in for d_out, d_in in sides]
        if max(widths, default=0) > _WIDEST or sum(widths) > _MOST_ROWS:
            raise AdapterError("too large", f"modules of {sum(widths):,} rows and columns in all")
        self.kept = min(KEPT, max(1, _MOST // max(sum(widths), 1)))
        self._left = MAX_WORK

    def work(self, module: str, rows: int, columns: int, times: int = 1) -> None:
        """Raises AdapterError ("too large") where this takes too long. To be asked before anything is made."""
        self._left -= min(rows, columns) ** 2 * max(rows, columns) * times
        if self._left < 0:
            raise AdapterError("too large", f"{module[-120:]}: taking the adapter's dense updates apart would take too long")


def by_gram(matrices: NDArray[np.float64], kept: int | None = None) -> list[Leading]:
    """Each of [n, rows, columns], by the Gram matrix of its smaller side.

    Values under a millionth of the largest are not exact; a thousandth of it is dropped anyway.

    Args:
        kept: directions of each; None for all.
    """
    sizes = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    _finite(sizes)
    unit = matrices / np.where(sizes > 0, sizes, 1.0)
    turned = unit.shape[1] < unit.shape[2]
    tall = unit.transpose(0, 2, 1) if turned else unit
    squares, x = np.linalg.eigh(tall.transpose(0, 2, 1) @ tall)
    values = np.sqrt(np.maximum(squares[:, ::-1], 0.0))
    k = tall.shape[2] if kept is None else min(kept, tall.shape[2])
    small = x[:, :, ::-1][:, :, :k]
    large = tall @ small / np.maximum(values[:, None, :k], _SMALLEST)
    u, v = (small, large) if turned else (large, small)
    return [Leading(u[i], values[i] * sizes[i, 0, 0], v[i]) for i in range(len(matrices))]


def of_product(up: FloatArray, down: FloatArray, kept: int | None = None) -> Leading:
    """``up @ down``, [d_out, r] and [r, d_in], without forming it where r is the smaller."""
    wide_up, wide_down = up.astype(np.float64), down.astype(np.float64)
    if len(down) >= min(len(up), down.shape[1]):
        return by_gram((wide_up @ wide_down)[None], kept)[0]
    if not (np.isfinite(wide_up).all() and np.isfinite(wide_down).all()):
        _finite(np.array(np.inf))
    return _by_grams(wide_up, wide_down, kept) or _by_qr(wide_up, wide_down, kept)


def _by_grams(up: NDArray[np.float64], down: NDArray[np.float64], kept: int | None) -> Leading | None:
    """By the Gram matrices of both factors, a tenth of the time; None where squares could not tell what is not dropped.

    With ``up^T up = L L^T``, ``L^T (down down^T) L = X diag(s^2) X^T``, as in :mod:`hubrank.signatures.canonical`.
    """
    with np.errstate(all="ignore"):
        up_size, down_size = np.linalg.norm(up), np.linalg.norm(down)
        gram_up, gram_down = up.T @ up / up_size**2, down @ down.T / down_size**2
        if not (np.isfinite(gram_up).all() and np.isfinite(gram_down).all()):
            return None
        lower = np.linalg.cholesky(gram_up + _JITTER * np.eye(len(down)))
        squares, x = np.linalg.eigh(lower.T @ gram_down @ lower)
        squares, x = np.maximum(squares[::-1], 0.0), x[:, ::-1]
        last = squares[:kept][squares[:kept] >= _DROPPED * squares[0]][-1]
        if squares[0] < _CANCELS or last < _PRECISE:
            return None
        values, made = np.sqrt(squares), lower @ x[:, :kept]
        u = up @ (gram_down @ made) / np.maximum(squares[:kept], _SMALLEST) / up_size
        v = down.T @ made / np.maximum(values[:kept], _SMALLEST) / down_size
        return Leading(u, values * up_size * down_size, v)


def _by_qr(up: NDArray[np.float64], down: NDArray[np.float64], kept: int | None) -> Leading:
    q_up, r_up = np.linalg.qr(up)
    q_down, r_down = np.linalg.qr(down.T)
    left, values, right = np.linalg.svd(r_up @ r_down.T)
    return Leading(q_up @ left[:, :kept], values, q_down @ right[:kept].T)


def kronecker(one: Leading, other: Leading, kept: int) -> Leading:
    """The Kronecker product of two updates of which all directions are there."""
    values = np.multiply.outer(one.values, other.values).ravel()
    order = np.argsort(-values, kind="stable")
    first, second = np.divmod(order[:kept], len(other.values))
    u, v = (_columns(one.u, other.u, first, second), _columns(one.v, other.v, first, second))
    return Leading(u, values[order], v)


def _columns(
    one: NDArray[np.float64], other: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    product = one[:, None, first] * other[None, :, second]
    return product.reshape(len(one) * len(other), len(first))


def _finite(values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise AdapterError("not finite", "an update overflows")
