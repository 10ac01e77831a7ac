"""Is anything here related at all: how far the nearest source stands out, against what chance would let one of them.

In the view of what adapters compute, the cosines of unrelated sources scatter about as a normal distribution does, each around
what is usual for it: some sources are a little like everything. Of n draws from it the largest lies near sqrt(2 ln n) standard
deviations (the universal threshold of Donoho and Johnstone, Biometrika 81(3), 1994). So

    prominence = max over the sources of (cosine with the target - usual cosine) / (scatter * sqrt(2 ln n)),

with a source's median cosine with the others of the zoo as the usual one, and the scatter that the zoo's own sources see when
they play the target (:func:`usual_scatter`); and at :data:`BAR` something is related.

bench/verdict.py asks it about targets of 200 rows, tuned from two seeds. With whole families left out of two zoos (14
targets), its AUROC is 0.92 where the zoo has the very task (0.92 in the example zoo, 0.91 in one of an adapter a task), 0.80
counting also those of which it has no more than another task of the family: a name in common is not much in common, 0.51 for
those alone. By measured transfer (14 targets), whether some source gains 3 points or more or none gains 1: 0.91. It was chosen
among some forty figures on the first seed (0.91, 0.88); on the second it has 0.92 and 0.94. The rule before, how far the read
cosine of the nearest source leads the median of all, gets 0.84 and 0.65. The highest compute cosine by itself does as well
(0.90, 0.93), but has no scale, so holds for one base, method and number of sources only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.background import ENOUGH, Mutual
from hubrank.types import Verdict, View

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["BAR", "CANDIDATES", "chance", "judge", "usual_scatter"]

BAR = 1.2
"""Chosen by measured transfer: there 79 % of the zoos in which something helps are told so, and 5 % of those in which nothing
does (bench/verdict.py). With each target left out the best bar lies between 1.00 and 1.07 (81 and 5 %); this one is on the
careful side."""

CANDIDATES = 32
"""Of a large zoo, so many sources of the highest cosines are asked how far they stand out."""


def usual_scatter(mutual: Mutual, view: View = "compute") -> float | None:
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


def judge(cosines: FloatArray, usual: FloatArray, scatter: float | None, *, sources: int, energy: float) -> Verdict:
    """The verdict.

    Args:
        cosines, usual: [k] of the candidates: compute cosines with the target, and what is usual for each (``usual_cosines``).
        scatter: :func:`usual_scatter` of the zoo.
        sources: how many were compared with the target.
        energy: part of the target's norm that the zoo's leading directions hold.
    """
    if scatter is None:
        return Verdict(relevant=True, why="the zoo is too small to tell related from unrelated; compare the scores with care")
    leads = cosines - usual
    nearest = int(np.argmax(leads))
    deviations, by_chance = float(leads[nearest]) / scatter, chance(sources)
    relevant = deviations >= BAR * by_chance
    over = "over" if relevant else "under"
    why = (
        f"the nearest source (cosine {cosines[nearest]:.2f}, for it {usual[nearest]:.2f} is usual) stands out by "
        f"{deviations:.1f} of the zoo's own deviations, {over} the bar of {BAR * by_chance:.1f} for {sources} sources; "
        f"the zoo's main directions hold {energy:.0%} of the target"
    )
    return Verdict(relevant=relevant, why=why, prominence=deviations / by_chance)
