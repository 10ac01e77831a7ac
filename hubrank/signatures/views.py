"""The three views of an update, and the cosine of two adapters in each, from canonical factors alone.

For ``dW = U diag(S) V^T``: compute C_p = U S^p V^T (what it computes), read R_p = V S^p V^T (where it looks),
write W_p = U S^p U^T (where it writes). The cosine is the Frobenius inner product over the product of norms. With the
overlaps ``Gu = U1^T U2`` and ``Gv = V1^T V2`` it is ``x^T (overlap) y / (|x| |y|)``, x and y the p-th powers of the singular
values, overlap = Gu * Gv, Gv * Gv or Gu * Gu. Norms come from the whole spectrum, before truncation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.types import Factors, Signature, View

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["BY_POWER", "THREE_VIEWS", "WeightedView", "cosine", "similarity", "site_cosines"]


@dataclass(frozen=True, slots=True)
class WeightedView:
    """A view and the power p that its singular values are raised to."""

    view: View
    power: float

    def weights(self, factors: Factors) -> FloatArray:
        """[k] the kept singular values to the power p, divided by the norm over the whole spectrum."""
        spectrum = factors.spectrum.astype(np.float64)
        # Scaled by the largest, so that powers of tiny updates do not vanish.
        powers = (spectrum / spectrum[0]) ** self.power
        weights: FloatArray = (powers[: len(factors.s)] / np.linalg.norm(powers)).astype(np.float32)
        return weights


THREE_VIEWS = (WeightedView("compute", 1.0), WeightedView("read", 0.0), WeightedView("write", 0.5))
"""The pilot's steadiest three for LoRA: C_1, R_0, W_0.5."""

BY_POWER = (WeightedView("compute", 1.0), WeightedView("read", 1.0), WeightedView("write", 1.0))
"""For bottleneck adapters (bench/bottlenecks.py): their bare subspaces are all alike, so singular values count in full."""


def cosine(a: Factors, b: Factors, view: WeightedView) -> float:
    """Cosine of two updates of one site, in [-1, 1]."""
    x, y = view.weights(a), view.weights(b)
    match view.view:
        case "compute":
            overlap = (a.u.T @ b.u) * (a.v.T @ b.v)
        case "read":
            overlap = (a.v.T @ b.v) ** 2
        case "write":
            overlap = (a.u.T @ b.u) ** 2
    return float(x @ overlap @ y)


def site_cosines(a: Signature, b: Signature, view: WeightedView) -> dict[str, float]:
    """The cosine at every site that both have with the same shapes, by the site's name."""
    others = {factors.site: factors for factors in b.factors}
    shared = ((mine, others[mine.site]) for mine in a.factors if mine.site in others)
    return {
        str(mine.site): cosine(mine, other, view)
        for mine, other in shared
        if mine.u.shape[0] == other.u.shape[0] and mine.v.shape[0] == other.v.shape[0]
    }


def similarity(a: Signature, b: Signature, view: WeightedView) -> float:
    """Mean of :func:`site_cosines`; NaN where they share no site."""
    cosines = site_cosines(a, b, view)
    return float(np.mean(list(cosines.values()))) if cosines else float("nan")
