"""Is anything here related at all: how far the nearest source stands out, against what chance would let one of them.

In the view that names the task (reading; computing for methods that have no other), the cosines of unrelated sources scatter
around their median about as a normal distribution does. Of n draws from it the largest lies near sqrt(2 ln n) standard
deviations (the universal threshold of Donoho and Johnstone, Biometrika 81(3), 1994). So

    prominence = (cosine of the nearest source - median cosine of all n) / (scatter * sqrt(2 ln n)),

with the scatter that the zoo's own sources see when they play the target (:func:`usual_scatter`), and at :data:`BAR`, which is
1 and was fitted to nothing, something is related.

"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.background import ENOUGH, Mutual
from hubrank.types import Verdict, View

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["BAR", "chance", "judge", "stands_out", "usual_scatter", "verdict_view"]

BAR = 1.0


def stands_out(cosines: FloatArray) -> float:
    """How far the nearest of some sources is above their median."""
    return float(np.max(cosines) - np.median(cosines))


def usual_scatter(mutual: Mutual, view: View) -> float | None:
    """What a source of the zoo sees of the others: the median absolute deviation of its cosines, times 1.4826.

    Of all sources the median; so neither a few relatives nor a few odd sources change it. None for a zoo too small, or all
    alike.
    """
    rows = [row[np.isfinite(row)] for row in mutual.cosines[view]]
    found = [float(np.median(np.abs(row - np.median(row)))) for row in rows if len(row) >= ENOUGH - 1]
    usual = 1.4826 * float(np.median(found)) if found else 0.0
    return usual if usual > 1e-6 else None


def chance(sources: int) -> float:
    """About how many deviations the largest of so many draws from a normal distribution lies above its mean."""
    return math.sqrt(2.0 * math.log(max(2, sources)))


def judge(cosines: FloatArray, scatter: float | None, energy: float) -> Verdict:
    """The verdict.

    Args:
        cosines: [n] of all sources with the target.
        scatter: :func:`usual_scatter` of the zoo.
        energy: part of the target's norm that the zoo's leading directions hold.
    """
    if scatter is None:
        return Verdict(relevant=True, why="the zoo is too small to tell related from unrelated; compare the scores with care")
    deviations, by_chance = stands_out(cosines) / scatter, chance(len(cosines))
    relevant = deviations >= BAR * by_chance
    why = (
        f"the nearest source (cosine {np.max(cosines):.2f}) stands out by {deviations:.1f} of the zoo's own deviations, "
        f"{'and' if relevant else 'but'} the nearest of {len(cosines)} unrelated ones would by about {by_chance:.1f}; "
        f"the zoo's main directions hold {energy:.0%} of the target"
    )
    return Verdict(relevant=relevant, why=why, prominence=deviations / by_chance)


def verdict_view(views: Mapping[View, object] | tuple[str, ...]) -> View:
    """Reading where the estimator looks at it, else computing."""
    return "read" if "read" in views else "compute"
