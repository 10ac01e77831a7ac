"""Deltas to canonical factors: the same update has the same factors, whatever A and B it was written as.

``up @ down = U diag(S) V^T`` is the same for (A, B) and (M A, B M^-1), so what follows from U, S and V is invariant under
GL(r). No d_out x d_in matrix is formed: both factors go through QR, and only the small core through an SVD.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta, Factors, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["TOLERANCE", "canonical_factors", "sign_adapter"]

TOLERANCE = 1e-3
"""Singular values below this part of the largest are dropped: zero-padded ranks, and what float16 files round to."""

MAX_RANK = 64
"""Directions kept at one site; norms still come from the whole spectrum."""


def sign_adapter(adapter: Adapter) -> Signature:
    """The signature of an adapter.

    Sites whose update is exactly zero carry no direction and are left out.

    Raises:
        AdapterError: every update is zero (an adapter that was never trained), or only a shift, or an update overflows.
    """
    if all(0 in delta.down.shape for delta in adapter.deltas):
        raise AdapterError(
            "unsupported method", f"{adapter.variant or adapter.method} only shifts, which no signature holds yet"
        )
    factors = canonical_factors([delta for delta in adapter.deltas if 0 not in delta.down.shape])
    if not factors:
        raise AdapterError("all zero", "every update is zero; the adapter was never trained")
    return Signature(tuple(sorted(factors, key=lambda f: f.site)))


def canonical_factors(deltas: Sequence[Delta]) -> list[Factors]:
    """Canonical factors of each non-zero delta, sites of equal shapes in one batch.

    Raises:
        AdapterError: with reason ``not finite``, where scaling overflowed.
    """
    out: list[Factors] = []
    by_shape = sorted(deltas, key=_shapes)
    for _, group in groupby(by_shape, key=_shapes):
        out += _batch(list(group))
    return out


def _shapes(delta: Delta) -> tuple[int, int, int]:
    return (*delta.up.shape, delta.down.shape[1])


def _batch(deltas: list[Delta]) -> Iterable[Factors]:
    for delta in deltas:
        if not (np.isfinite(delta.up).all() and np.isfinite(delta.down).all()):
            raise AdapterError("not finite", f"{delta.site}: the update overflows")
    # Each side to unit size first: products and squares of what a file holds must not overflow or vanish.
    ups, up_sizes = _unit(np.stack([delta.up for delta in deltas]))
    downs, down_sizes = _unit(np.stack([delta.down for delta in deltas]).transpose(0, 2, 1))
    q_up, r_up = np.linalg.qr(ups)
    q_down, r_down = np.linalg.qr(downs)
    core = r_up.astype(np.float64) @ r_down.astype(np.float64).transpose(0, 2, 1)
    left, values, right = np.linalg.svd(core, full_matrices=False)
    values = values * up_sizes[:, None] * down_sizes[:, None]
    for i, delta in enumerate(deltas):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            spectrum = values[i].astype(np.float32)
        if not np.isfinite(spectrum).all():
            raise AdapterError("not finite", f"{delta.site}: the update overflows")
        spectrum = spectrum[spectrum > TOLERANCE * spectrum[0]]
        if not len(spectrum):
            continue
        k = min(len(spectrum), MAX_RANK)
        u = q_up[i] @ left[i, :, :k].astype(np.float32)
        v = q_down[i] @ right[i, :k].T.astype(np.float32)
        yield Factors(delta.site, u=u, s=spectrum[:k], v=v, spectrum=spectrum)


def _unit(factors: FloatArray) -> tuple[FloatArray, NDArray[np.float64]]:
    """Divide each matrix of [n, d, r] by its largest entry; an all-zero one stays zero, with size 0."""
    sizes: FloatArray = np.abs(factors).max(axis=(1, 2))
    scaled = (factors / np.where(sizes > 0, sizes, 1.0)[:, None, None]).astype(np.float32)
    return scaled, sizes.astype(np.float64)
