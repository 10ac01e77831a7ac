"""The zoo against itself: the scale that scores are read on, and what "related" looks like in this zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.ranking.estimators import Estimator, takes_off_usual, wanted
from hubrank.ranking.standardise import usual_cosines
from hubrank.types import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.ranking.first_order import Evidence
    from hubrank.types import FloatArray
    from hubrank.zoo.packed import Packed

__all__ = [
    "AGAINST",
    "ENOUGH",
    "SAMPLE",
    "Background",
    "Mutual",
    "against",
    "asks_every_source",
    "compare_sources",
    "estimate",
    "measure_background",
]

ENOUGH = 8
"""A zoo of fewer sources gives no scale."""

SAMPLE = 64
"""Of a larger zoo, this many sources, evenly spaced, play the target."""

_FEWEST = 8

AGAINST = 512
"""And this many, evenly spaced, stand for those that they are compared with."""


def asks_every_source(estimator: Estimator) -> bool:
    """Whether an estimator looks at how each source stands to the rest of the zoo, for which a sample cannot stand."""
    return "zoo" in wanted(estimator) or takes_off_usual(estimator)


@dataclass(frozen=True, slots=True, eq=False)
class Mutual:
    """Cosines of a zoo's sources with each other.

    Attributes:
        rows: [m] the sources that played the target.
        cosines: per view [m, n]; NaN for a source with itself, and where two share no site.
        strengths: [m] how strong the updates of these sources are (:attr:`hubrank.zoo.packed.Packed.strengths`).
    """

    rows: NDArray[np.intp]
    cosines: Mapping[View, FloatArray]
    strengths: NDArray[np.float64]


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

    def scores(self, values: FloatArray, *, spread: float = 0.0) -> FloatArray:
        """Values on the common scale: deviations from the background's median.

        Args:
            spread: standard deviation of what the target's rows add to the values: the zoo's sources have none, so that the
                background knows nothing of it. It adds to the deviation as what is independent of it does.
        """
        scores: FloatArray = (values - self.median) / np.hypot(self.deviation, spread)
        return scores


def compare_sources(packed: Packed, *, all_sources: bool = True, few: bool = False) -> Mutual:
    """Let sources of the zoo, evenly spaced, play the target against the others.

    Args:
        all_sources: against every source, for an estimator that standardises by source; otherwise a sample stands for them.
        few: of a large zoo so few play that no more is compared than with a sample; a median needs no more.
    """
    if not all_sources and len(packed.sources) > AGAINST:
        packed = packed.subset(_evenly(len(packed.sources), AGAINST))
    n = len(packed.sources)
    players = max(_FEWEST, SAMPLE * AGAINST // n) if few and n > AGAINST else SAMPLE
    rows = _evenly(n, min(n, players))
    cosines = packed.cosines_of([packed.source(int(row)) for row in rows])
    for of_view in cosines.values():
        of_view[np.arange(len(rows)), rows] = np.nan
    return Mutual(rows, cosines, packed.strengths[rows])


def against(packed: Packed, mutual: Mutual, sources: NDArray[np.intp]) -> FloatArray:
    """Compute cosines [m, k] of sources that play the target with the k given ones; NaN for a source with itself."""
    known = mutual.cosines["compute"]
    if known.shape[1] == len(packed.sources):
        return known[:, sources]
    rows = _evenly(len(packed.sources), SAMPLE)
    found = packed.subset(sources).cosines_of([packed.source(int(row)) for row in rows])["compute"]
    found[rows[:, None] == sources] = np.nan
    return found


def estimate(
    estimator: Estimator,
    cosines: Mapping[View, FloatArray],
    mutual: Mutual,
    usable: NDArray[np.intp],
    *,
    strength: float,
    evidence: Evidence | None = None,
    without: int | None = None,
) -> FloatArray:
    """An estimator's values of the usable sources, [k], from the arrays that it wants.

    Args:
        cosines: per view [n], of the target with every source.
        strength: of the target's update.
        evidence: what the target's rows say of every source; None where they say nothing.
        without: the row of ``mutual`` that the target is itself; its cosines say nothing of the rest of the zoo.
    """
    names = wanted(estimator)
    arrays: dict[str, NDArray[Any]] = {str(view): cosine[usable] for view, cosine in cosines.items() if view in names}
    others = np.delete(np.arange(len(mutual.rows)), [] if without is None else without)
    if "zoo" in names:
        arrays["zoo"] = mutual.cosines["compute"][np.ix_(others, usable)]
    if "strength" in names:
        arrays["strength"] = mutual.strengths[others] / strength
    for view in cosines:
        if takes_off_usual(estimator, view):
            arrays[f"usual_{view}"] = usual_cosines(mutual.cosines[view][np.ix_(others, usable)])
    if "evidence" in names:
        arrays["evidence"] = np.full(len(usable), np.nan) if evidence is None else evidence.values[usable]
    numbers = {"trust": 0.0 if evidence is None else evidence.trust} if "trust" in names else {}
    return estimator(**arrays, **numbers)


def measure_background(mutual: Mutual, estimator: Estimator) -> Background | None:
    """What an estimator gives the zoo's sources against each other; None for a zoo too small to say anything."""
    if mutual.cosines["compute"].shape[1] < ENOUGH:
        return None
    values, nearest = [], []
    for row in range(len(mutual.rows)):
        cosines = {view: found[row] for view, found in mutual.cosines.items()}
        others = np.flatnonzero(np.isfinite(cosines["compute"]))
        if len(others) >= ENOUGH - 1:
            strength = float(mutual.strengths[row])
            values.append(estimate(estimator, cosines, mutual, others, strength=strength, without=row))
            nearest.append(cosines["compute"][others].max())
    if not values:
        return None
    pooled = np.concatenate(values)
    median = float(np.median(pooled))
    deviation = float(1.4826 * np.median(np.abs(pooled - median)))
    return Background(median, deviation, np.sort(np.asarray(nearest))) if deviation > 0 else None


def _evenly(n: int, count: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, n - 1, count).astype(np.intp))
