"""Deltas to canonical factors: the same update has the same factors, whatever A and B it was written as.

``up @ down = U diag(S) V^T`` is the same for (A, B) and (M A, B M^-1), so what follows from U, S and V is invariant under
GL(r). No d_out x d_in matrix is formed, unless the factors are as large themselves. Nearly all updates take the way of the
factors' Gram matrices, which reads each twice: with
``up^T up = L L^T`` (Cholesky), ``L^T (down down^T) L = X diag(S^2) X^T`` is r x r, ``V = down^T L X / S`` and
``U = up (down down^T) L X / S^2``. It squares the singular values, which float64 bears down to the tolerance unless the factors
cancel each other; how much of its 53 bits is left is computed for every site, and where it could show, both factors
go through QR and the core through an SVD, which takes twenty times as long. U and V are then made of the factors in
float32, and in float64 only where that could show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hubrank.errors import AdapterError
from hubrank.signatures.threads import one_thread
from hubrank.types import Adapter, Delta, Factors, Signature, Site

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray


__all__ = ["MAX_BYTES", "SHIFT", "TOLERANCE", "canonical_factors", "sign_adapter"]

TOLERANCE = 1e-3
"""Singular values below this part of the largest are dropped: zero-padded ranks, and what float16 files round to."""

SHIFT = ".shift"
"""Ends the module name of a site that holds a shift."""

MAX_RANK = 64
"""Directions kept at one site; norms still come from the whole spectrum."""

MAX_BYTES = 8 * 1024 * 1024
"""What one signature may take in the store, at a byte a number."""

_MAX_NUMBERS, _MAX_SITES = 1 << 22, 256
_JITTER = 1e-14
_PRECISE = 1e-8
"""A squared singular value, as part of the product of both factors' squared norms, from which the Gram matrices know it and
its directions to 1e-6: their rounding and the jitter are some 1e-14 of that product."""
_CANCELS = 64.0
"""How much longer the terms that a unit direction is the sum of may be than itself, for float32 to give it to 2e-6."""
_LARGEST = 1e30
_TOGETHER = 1 << 16
"""Numbers of several small sites' factors that are taken at once: their float64 copies stay in the processor's cache."""


class _Directions(Protocol):
    """What makes the directions of some sites of one shape."""

    def make(self, places: Sequence[int], k: int) -> Iterable[tuple[FloatArray, FloatArray]]:
        """U^T [k, d_out] and V^T [k, d_in] of the sites at these places: row by row in memory, as they are quantised."""


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    """One non-zero update: its singular values over the tolerance, and what makes the directions of the first of them."""

    delta: Delta
    spectrum: FloatArray
    directions: _Directions
    place: int = 0
    """Among the sites of ``directions``."""

    @property
    def kept(self) -> int:
        """Directions that are kept at most."""
        return min(len(self.spectrum), MAX_RANK)

    def factors(self, u: FloatArray, v: FloatArray) -> Factors:
        """The canonical factors, of these directions [k, d]."""
        return Factors(self.delta.site, u=u.T, s=self.spectrum[: len(u)], v=v.T, spectrum=self._whole())

    def _whole(self) -> FloatArray:
        """The spectrum of the update, where its factors are only the largest part of it."""
        stated = self.delta.spectrum
        return self.spectrum if stated is None else stated[stated > TOLERANCE * stated[0]]


def sign_adapter(adapter: Adapter) -> Signature:
    """The signature of an adapter.

    A shift is a linear map too, from the one number that is always 1: it becomes factors of rank 1 at a site of its own,
    named ``MODULE.shift``, and everything that holds for updates holds for it. Its compute cosine is that of the two shifts.
    Sites whose update is exactly zero carry no direction and are left out.

    A signature takes at most :data:`MAX_BYTES` in the store, if need be by keeping fewer directions at every site alike. How
    much that leaves out is on record: the spectrum stays whole. An 8B LoRA of rank 16 on all linear modules keeps 3
    directions a site; in a pilot 2 and 4 of 8 cost little (Spearman .985 and .99 with the full ranking).

    Raises:
        AdapterError: every update is zero (an adapter that was never trained), or an update overflows.
    """
    low_rank = [delta for delta in adapter.deltas if len(delta.down)]
    shifts = [_as_update(delta) for delta in adapter.deltas if delta.shift is not None]
    with one_thread():
        solved = list(_solve([*low_rank, *shifts]))
        if not solved:
            raise AdapterError("all zero", "every update is zero; the adapter was never trained")
        factors = list(_factors(solved, _within_budget(solved)))
    return Signature(tuple(sorted(factors, key=lambda f: (f.site.stack, f.site.layer, f.site.module))))


def canonical_factors(deltas: Sequence[Delta]) -> list[Factors]:
    """Canonical factors of each non-zero delta, whatever they take in the store.

    Raises:
        AdapterError: with reason ``not finite``, where scaling overflowed.
    """
    with one_thread():
        return list(_factors(list(_solve(deltas)), MAX_RANK))


def _within_budget(solved: Sequence[_Solved]) -> int:
    """Directions that may be kept at every site."""
    sizes = [(sum(_shapes(one.delta)[::2]) + 12, one.kept) for one in solved]
    most = max(kept for _, kept in sizes)
    while most > 1 and sum(size * min(most, kept) for size, kept in sizes) > MAX_BYTES:
        most -= 1
    return most


def _factors(solved: Sequence[_Solved], most: int) -> Iterator[Factors]:
    """The canonical factors of each, of at most so many directions."""
    for (_, k), group in groupby(solved, key=lambda one: (id(one.directions), min(one.kept, most))):
        some = list(group)
        made = some[0].directions.make([one.place for one in some], k)
        yield from (one.factors(u, v) for one, (u, v) in zip(some, made, strict=True))


def _solve(deltas: Sequence[Delta]) -> Iterator[_Solved]:
    """Every non-zero delta, sites of equal shapes in one batch."""
    for _, group in groupby(sorted(deltas, key=_shapes), key=_shapes):
        for chunk in _chunks(group):
            yield from _batch(chunk)


def _as_update(delta: Delta) -> Delta:
    if delta.shift is None:
        raise ValueError(f"{delta.site} has no shift")
    site = delta.site
    shift_site = Site(site.stack, site.layer, f"{site.module}{SHIFT}", reads="1", writes=site.writes)
    return Delta(shift_site, down=np.ones((1, 1), np.float32), up=delta.shift.reshape(-1, 1))


def _shapes(delta: Delta) -> tuple[int, int, int]:
    return (*delta.up.shape, delta.down.shape[1])


def _chunks(deltas: Iterable[Delta]) -> Iterable[list[Delta]]:
    """As many deltas of one shape at a time as float64 copies may take memory for."""
    chunk: list[Delta] = []
    for delta in deltas:
        if len(chunk) == _MAX_SITES or (chunk and (len(chunk) + 1) * (delta.up.size + delta.down.size) > _MAX_NUMBERS):
            yield chunk
            chunk = []
        chunk.append(delta)
    if chunk:
        yield chunk


def _batch(deltas: list[Delta]) -> Iterable[_Solved]:
    d_out, rank, d_in = _shapes(deltas[0])
    # Gram matrices of such factors are as large as the update itself, and singular beyond.
    whole = rank > min(d_out, d_in) // 2 and rank > 1
    with np.errstate(all="ignore"):  # what is not finite is refused, what is not exact goes the other way
        try:
            return _dense(deltas) if whole else _by_gram(deltas)
        except np.linalg.LinAlgError:  # of one site at least, which takes the others with it
            return _by_qr(deltas)


def _by_gram(deltas: list[Delta]) -> list[_Solved]:
    rank = len(deltas[0].down)
    grams = _grams(deltas)
    sizes = np.sqrt(np.diagonal(grams, axis1=2, axis2=3))
    _all_finite(deltas, sizes[0] + sizes[1])
    # Each column of up as long as its row of down, so that sizes that only cancel each other cost no precision.
    balance = np.sqrt(sizes[1] / sizes[0])
    balance[~np.isfinite(balance)] = 0.0
    balances = np.stack([balance, np.where(balance > 0, 1 / balance, 0.0)])
    grams *= balances[..., :, None] * balances[..., None, :]
    # To unit size, so that no power overflows; and what Cholesky needs where columns depend on each other.
    squared = np.trace(grams, axis1=2, axis2=3)
    there = (squared > 0).all(axis=0)
    grams /= np.where(there, squared, 1.0)[..., None, None]
    grams[:, ~there] = 0.0
    lower = np.linalg.cholesky(grams[0] + _JITTER * np.eye(rank))
    squares, x = np.linalg.eigh(lower.transpose(0, 2, 1) @ grams[1] @ lower)
    squares, x = np.maximum(squares[:, ::-1], 0.0), x[:, :, ::-1]
    values = np.sqrt(squares)
    kept = (values > TOLERANCE * values[:, :1]).sum(axis=1) * there
    units = np.sqrt(squared)
    spectra = (values * (units[0] * units[1])[:, None]).astype(np.float32)
    _all_finite(deltas, np.where(np.arange(rank) < kept[:, None], spectra, 0.0))
    # The directions are these combinations of the columns of up and of the rows of down.
    to_v = lower @ x
    made = np.stack([(grams[1] @ to_v) / squares[:, None, :], to_v / values[:, None, :]])
    made *= (balances / units[..., None])[..., None]
    combined = _Combined(deltas, *_combinations(sizes, made))
    least = squares[np.arange(len(deltas)), np.maximum(kept - 1, 0)]
    out: list[_Solved] = []
    for i, (delta, n, exact) in enumerate(zip(deltas, kept.tolist(), (least >= _PRECISE).tolist(), strict=True)):
        if n and exact:
            out.append(_Solved(delta, spectra[i, :n], combined, i))
        elif n:
            out += _by_qr([delta])
    return out


def _grams(deltas: list[Delta]) -> NDArray[np.float64]:
    """up^T up and down down^T of each, [2, n, r, r]; some small sites at a time."""
    d_out, rank, d_in = _shapes(deltas[0])
    step = min(len(deltas), max(1, _TOGETHER // (rank * (d_out + d_in))))
    up, down = np.empty((step, d_out, rank)), np.empty((step, rank, d_in))
    grams = np.empty((2, len(deltas), rank, rank))
    for start in range(0, len(deltas), step):
        some = deltas[start : start + step]
        for i, delta in enumerate(some):
            up[i], down[i] = delta.up, delta.down
        ups, downs, here = up[: len(some)], down[: len(some)], slice(start, start + len(some))
        np.matmul(ups.transpose(0, 2, 1), ups, out=grams[0, here])
        np.matmul(downs, downs.transpose(0, 2, 1), out=grams[1, here])
    return grams


@dataclass(frozen=True, slots=True, eq=False)
class _Combinations:
    """[n, k, r] what unit directions are made of, in float64 and in float32, and for how many of the first float32 will do."""

    wide: NDArray[np.float64]
    narrow: FloatArray
    first: Sequence[int]

    def of(self, places: Sequence[int], vectors: Sequence[FloatArray], k: int) -> FloatArray:
        """The first k combinations of each site's vectors [r, d], as [n, k, d]: one array for all costs half of many."""
        made = np.empty((len(places), k, vectors[0].shape[1]), np.float32)
        for place, some, rows in zip(places, vectors, made, strict=True):
            if k <= self.first[place] and some.dtype == np.float32:
                np.matmul(self.narrow[place, :k], some, out=rows)
            else:
                rows[...] = self.wide[place, :k] @ some.astype(np.float64)
        return made


def _combinations(sizes: NDArray[np.float64], rows: NDArray[np.float64]) -> Iterator[_Combinations]:
    """What each site's directions are made of, U's and V's: ``rows`` [2, n, r, k] combine vectors of ``sizes`` [2, n, r]."""
    parts = np.abs(rows)
    terms = (sizes[..., None, :] @ parts)[..., 0, :]
    narrow = (terms <= _CANCELS) & (parts.max(axis=2) < _LARGEST)
    first = np.where(narrow.all(axis=2), narrow.shape[2], narrow.argmin(axis=2))
    across = rows.transpose(0, 1, 3, 2)
    return map(_Combinations, across, across.astype(np.float32), first.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Combined:
    """Directions that are combinations of the columns of up and of the rows of down."""

    deltas: Sequence[Delta]
    make_u: _Combinations
    make_v: _Combinations

    def make(self, places: Sequence[int], k: int) -> Iterable[tuple[FloatArray, FloatArray]]:
        deltas = [self.deltas[place] for place in places]
        us = self.make_u.of(places, [delta.up.T for delta in deltas], k)
        return zip(us, self.make_v.of(places, [delta.down for delta in deltas], k), strict=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """The directions of one site, U [d_out, n] and V [d_in, n], as they are."""

    u: FloatArray
    v: FloatArray

    def make(self, places: Sequence[int], k: int) -> Iterable[tuple[FloatArray, FloatArray]]:  # noqa: ARG002
        # Copies, so that what is left out does not stay in memory behind a view.
        return [(self.u.T[:k].copy(), self.v.T[:k].copy())]


def _dense(deltas: list[Delta]) -> list[_Solved]:
    """Updates that are no smaller than their matrix: by the Gram matrix of its smaller side, a third of what an SVD takes.

    It squares singular values too, but what is dropped is under a thousandth of the largest: 1e-6, of which float64 knows ten
    digits.
    """
    for delta in deltas:
        _finite(delta, delta.up, delta.down)
    ups, up_sizes = _unit(np.stack([delta.up for delta in deltas]))
    downs, down_sizes = _unit(np.stack([delta.down for delta in deltas]))
    updates, sizes = _unit(ups @ downs)
    turned = updates.shape[1] < updates.shape[2]
    if turned:
        updates = updates.transpose(0, 2, 1)
    squares, x = np.linalg.eigh(updates.transpose(0, 2, 1) @ updates)
    values = np.sqrt(np.maximum(squares[:, ::-1], 0.0))
    out = []
    for i, delta in enumerate(deltas):
        spectrum = _spectrum(delta, values[i] * sizes[i] * up_sizes[i] * down_sizes[i])
        k = min(len(spectrum), MAX_RANK)
        if k:
            small = x[i, :, ::-1][:, :k]
            large = updates[i] @ small / values[i, :k]
            u, v = (small, large) if turned else (large, small)
            out.append(_Solved(delta, spectrum, _Made(u.astype(np.float32), v.astype(np.float32))))
    return out


def _by_qr(deltas: list[Delta]) -> list[_Solved]:
    for delta in deltas:
        _finite(delta, delta.up, delta.down)
    # Each side to unit size first: products and squares of what a file holds must not overflow or vanish.
    ups, up_sizes = _unit(np.stack([delta.up for delta in deltas]))
    downs, down_sizes = _unit(np.stack([delta.down for delta in deltas]).transpose(0, 2, 1))
    q_up, r_up = np.linalg.qr(ups)
    q_down, r_down = np.linalg.qr(downs)
    core = r_up @ r_down.transpose(0, 2, 1)
    left, values, right = np.linalg.svd(core, full_matrices=False)
    values = values * up_sizes[:, None] * down_sizes[:, None]
    out = []
    for i, delta in enumerate(deltas):
        spectrum = _spectrum(delta, values[i])
        if not len(spectrum):
            continue
        # Made at once: what they are made of is as large as the update itself.
        k = min(len(spectrum), MAX_RANK)
        u = (q_up[i] @ left[i, :, :k]).astype(np.float32)
        v = (q_down[i] @ right[i, :k].T).astype(np.float32)
        out.append(_Solved(delta, spectrum, _Made(u, v)))
    return out


def _spectrum(delta: Delta, values: NDArray[np.float64]) -> FloatArray:
    """Those of the falling ``values`` that are over the tolerance."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        spectrum = values.astype(np.float32)
    _finite(delta, spectrum)
    kept: FloatArray = spectrum[spectrum > TOLERANCE * spectrum[0]]
    return kept


def _all_finite(deltas: Sequence[Delta], values: NDArray[Any]) -> None:
    """Refuse the first delta whose row of ``values`` [n, r] is not finite."""
    if not np.isfinite(values).all():
        for delta, row in zip(deltas, values, strict=True):
            _finite(delta, row)


def _finite(delta: Delta, *values: Any) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise AdapterError("not finite", f"{delta.site}: the update overflows")


def _unit(factors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide each matrix of [n, d, r] by its largest entry; an all-zero one stays zero, with size 0."""
    wide = factors.astype(np.float64, copy=False)  # which nobody else holds, where it is no copy
    sizes: NDArray[np.float64] = np.abs(wide).max(axis=(1, 2))
    wide /= np.where(sizes > 0, sizes, 1.0)[:, None, None]
    return wide, sizes
