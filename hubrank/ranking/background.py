"""The zoo against itself: the scale that scores are read on, and what "related" looks like in this zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.estimators import Estimator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray
    from hubrank.zoo.packed import Packed

__all__ = ["ENOUGH", "SAMPLE", "Background", "measure_background"]

ENOUGH = 8
"""A zoo of fewer sources gives no scale."""

SAMPLE = 64
"""Of a larger zoo, this many sources, evenly spaced, play the target."""

AGAINST = 512
"""And this many, evenly spaced, stand for those that they are compared with."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """How the zoo's own sources stand to each other under one estimator.

    Attributes:
        median, deviation: of the estimator's values of sources against sources; the deviation is 1.4826 times the median
            absolute one, which for a normal distribution is the standard deviation.
        nearest: [m] sorted; for each source its highest compute cosine with another source.
    """

    median: float
    deviation: float
    nearest: FloatArray

    def scores(self, values: FloatArray) -> FloatArray:
        """Values on the common scale: deviations from the background's median."""
        scores: FloatArray = (values - self.median) / self.deviation
        return scores


def measure_background(packed: Packed, estimator: Estimator) -> Background | None:
    """Let each source of the zoo play the target against the others; None for a zoo too small to say anything."""
    if len(packed.sources) < ENOUGH:
        return None
    if len(packed.sources) > AGAINST:
        packed = packed.subset(_evenly(len(packed.sources), AGAINST))
    chosen = _evenly(len(packed.sources), min(len(packed.sources), SAMPLE))
    mutual = packed.cosines_of([packed.source(int(row)) for row in chosen])
    values, nearest = [], []
    for i, row in enumerate(chosen):
        cosines = {view: found[i] for view, found in mutual.items()}
        others = np.isfinite(cosines["compute"])
        others[row] = False
        if others.sum() >= ENOUGH - 1:
            values.append(estimator(**{view: found[others] for view, found in cosines.items()}))
            nearest.append(cosines["compute"][others].max())
    if not values:
        return None
    pooled = np.concatenate(values)
    median = float(np.median(pooled))
    deviation = float(1.4826 * np.median(np.abs(pooled - median)))
    return Background(median, deviation, np.sort(np.asarray(nearest))) if deviation > 0 else None


def _evenly(n: int, count: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, n - 1, count).astype(np.intp))
