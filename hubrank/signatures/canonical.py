"""Deltas to canonical factors: the same update has the same factors, whatever A and B it was written as.

``up @ down = U diag(S) V^T`` is the same for (A, B) and (M A, B M^-1), so what follows from U, S and V is invariant under
GL(r). No d_out x d_in matrix is formed. Nearly all updates take the way of Gram matrices, which reads each factor twice: with
``up^T up = L L^T`` (Cholesky), ``L^T (down down^T) L = X diag(S^2) X^T`` is r x r, ``V = down^T L X / S`` and
``U = up (down down^T) L X / S^2``. It squares the singular values, which float64 bears down to the tolerance unless the factors
cancel each other; how much of its 53 bits is left is computed for every site, and where it could show, both factors
go through QR and the core through an SVD, which takes twenty times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import AdapterError
from hubrank.signatures.threads import one_thread
from hubrank.types import Adapter, Delta, Factors, Signature, Site

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["MAX_BYTES", "SHIFT", "TOLERANCE", "canonical_factors", "sign_adapter", "within_budget"]

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


def sign_adapter(adapter: Adapter) -> Signature:
    """The signature of an adapter.

    A shift is a linear map too, from the one number that is always 1: it becomes factors of rank 1 at a site of its own,
    named ``MODULE.shift``, and everything that holds for updates holds for it. Its compute cosine is that of the two shifts.
    Sites whose update is exactly zero carry no direction and are left out, and of adapters of large models the last
    directions (:func:`within_budget`).

    Raises:
        AdapterError: every update is zero (an adapter that was never trained), or an update overflows.
    """
    low_rank = [delta for delta in adapter.deltas if len(delta.down)]
    shifts = [_as_update(delta) for delta in adapter.deltas if delta.shift is not None]
    factors = canonical_factors([*low_rank, *shifts])
    if not factors:
        raise AdapterError("all zero", "every update is zero; the adapter was never trained")
    return Signature(tuple(sorted(within_budget(factors), key=lambda f: f.site)))


def within_budget(factors: Sequence[Factors]) -> list[Factors]:
    """Factors that take at most :data:`MAX_BYTES` in the store, by keeping fewer directions at every site alike.

    How much that leaves out is on record: the spectrum stays whole. An 8B LoRA of rank 16 on all linear modules keeps 3
    directions a site; DESIGN.md has what 2 and 4 of 8 cost (Spearman .985 and .99 with the full ranking).
    """
    kept = most = max((len(f.s) for f in factors), default=0)
    while kept > 1 and sum((len(f.u) + len(f.v) + 12) * min(kept, len(f.s)) for f in factors) > MAX_BYTES:
        kept -= 1
    if kept == most:
        return list(factors)
    # Copies, so that what is left out does not stay in memory behind a view.
    return [replace(f, u=f.u[:, :kept].copy(order="F"), s=f.s[:kept].copy(), v=f.v[:, :kept].copy(order="F")) for f in factors]


def canonical_factors(deltas: Sequence[Delta]) -> list[Factors]:
    """Canonical factors of each non-zero delta, sites of equal shapes in one batch.

    Raises:
        AdapterError: with reason ``not finite``, where scaling overflowed.
    """
    out: list[Factors] = []
    by_shape = sorted(deltas, key=_shapes)
    with one_thread():
        for _, group in groupby(by_shape, key=_shapes):
            for chunk in _chunks(group):
                out += _batch(chunk)
    return out


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


def _batch(deltas: list[Delta]) -> Iterable[Factors]:
    d_out, rank, d_in = _shapes(deltas[0])
    if rank > min(d_out, d_in) // 2 and rank > 1:  # its Gram matrices are as large as the update itself, and singular beyond
        return _by_qr(deltas)
    with np.errstate(all="ignore"):  # what is not finite is refused, what is not exact goes the other way
        try:
            return _by_gram(deltas)
        except np.linalg.LinAlgError:  # of one site at least, which takes the others with it
            return _by_qr(deltas)


def _by_gram(deltas: list[Delta]) -> list[Factors]:
    rank = len(deltas[0].down)
    ups = np.stack([delta.up for delta in deltas], dtype=np.float64)
    downs = np.stack([delta.down for delta in deltas], dtype=np.float64)
    gram_up, gram_down = ups.transpose(0, 2, 1) @ ups, downs @ downs.transpose(0, 2, 1)
    up_sizes, down_sizes = (np.sqrt(np.diagonal(gram, axis1=1, axis2=2)) for gram in (gram_up, gram_down))
    for delta, size in zip(deltas, (up_sizes + down_sizes).sum(axis=1), strict=True):
        _finite(delta, size)
    # Each column of up as long as its row of down, so that sizes that only cancel each other cost no precision.
    balance = np.sqrt(down_sizes / up_sizes)
    balance[~np.isfinite(balance) | (balance == 0)] = 0.0
    inverse = np.where(balance > 0, 1 / balance, 0.0)
    gram_up *= balance[:, :, None] * balance[:, None, :]
    gram_down *= inverse[:, :, None] * inverse[:, None, :]
    # To unit size, so that no power overflows; and what Cholesky needs where columns depend on each other.
    up_square, down_square = (np.trace(gram, axis1=1, axis2=2) for gram in (gram_up, gram_down))
    there = (up_square > 0) & (down_square > 0)
    gram_up /= np.where(there, up_square, 1.0)[:, None, None]
    gram_down /= np.where(there, down_square, 1.0)[:, None, None]
    gram_up[~there], gram_down[~there] = 0.0, 0.0
    lower = np.linalg.cholesky(gram_up + _JITTER * np.eye(rank))
    squares, x = np.linalg.eigh(lower.transpose(0, 2, 1) @ gram_down @ lower)
    squares, x = np.maximum(squares[:, ::-1], 0.0), x[:, :, ::-1]
    values = np.sqrt(squares)
    kept = (values > TOLERANCE * values[:, :1]).sum(axis=1) * there
    to_v = lower @ x
    to_u = gram_down @ to_v
    out: list[Factors] = []
    for i, delta in enumerate(deltas):
        n, k = int(kept[i]), min(int(kept[i]), MAX_RANK)
        if not n:
            continue
        if squares[i, n - 1] < _PRECISE:
            out += _by_qr([delta])
            continue
        spectrum = _spectrum(delta, values[i, :n] * np.sqrt(up_square[i]) * np.sqrt(down_square[i]))
        scale_v = (inverse[i][:, None] / np.sqrt(down_square[i])) * (to_v[i, :, :k] / values[i, :k])
        scale_u = (balance[i][:, None] / np.sqrt(up_square[i])) * (to_u[i, :, :k] / squares[i, :k])
        # Column by column in memory, as they are quantised.
        u = (scale_u.T @ ups[i].T).astype(np.float32).T
        v = (scale_v.T @ downs[i]).astype(np.float32).T
        out.append(Factors(delta.site, u=u, s=spectrum[:k], v=v, spectrum=spectrum))
    return out


def _by_qr(deltas: list[Delta]) -> list[Factors]:
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
        spectrum = spectrum[spectrum > TOLERANCE * spectrum[0]]
        if not len(spectrum):
            continue
        k = min(len(spectrum), MAX_RANK)
        u = (q_up[i] @ left[i, :, :k]).astype(np.float32)
        v = (q_down[i] @ right[i, :k].T).astype(np.float32)
        out.append(Factors(delta.site, u=u, s=spectrum[:k], v=v, spectrum=spectrum))
    return out


def _finite(delta: Delta, *values: Any) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise AdapterError("not finite", f"{delta.site}: the update overflows")


def _spectrum(delta: Delta, values: NDArray[np.float64]) -> FloatArray:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        spectrum = values.astype(np.float32)
    _finite(delta, spectrum)
    return spectrum


def _unit(factors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide each matrix of [n, d, r] by its largest entry; an all-zero one stays zero, with size 0."""
    wide = factors.astype(np.float64)
    sizes: NDArray[np.float64] = np.abs(wide).max(axis=(1, 2))
    wide /= np.where(sizes > 0, sizes, 1.0)[:, None, None]
    return wide, sizes
