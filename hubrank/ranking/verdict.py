"""Is anything here related at all: how far the nearest source stands out, in this zoo's own measure.

The rule has one number. In the view that names the task (reading; computing for methods that have no other),

    prominence = (cosine of the nearest source - median cosine of all sources), as part of what the zoo's own sources
    have against each other in the median,

and at :data:`BAR` something is related. bench/verdict.py measures it on 33 targets of 200 rows by leaving whole families out
of the example zoo: AUROC 0.93 where the zoo has the very task, 0.82 counting also targets of which it has no more than another
task of the family (0.57 for those alone: a name in common is not much in common). The nearest compute cosine gave 0.89 and
0.77, the top score 0.86 and 0.74, the energy kept by 32 directions a side 0.77 and 0.70: it is told, and not decided by. At
the bar 9 % of the targets without a relative are told that they have one, and 45 % of the others that they have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.background import ENOUGH, Mutual
from hubrank.types import Verdict, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["BAR", "judge", "prominence", "usual_prominence"]

BAR = 0.4
"""A target tuned for a few steps lies further from everything than a finished adapter does."""


def prominence(cosines: FloatArray) -> float:
    """How far the nearest of some sources is above their median."""
    return float(np.max(cosines) - np.median(cosines))


def usual_prominence(mutual: Mutual, view: View, usable: NDArray[np.intp] | None = None) -> float | None:
    """The median of the same over the sources that played the target; None for a zoo too small, or all alike."""
    cosines = mutual.cosines[view] if usable is None else mutual.cosines[view][:, usable]
    found = [prominence(row[np.isfinite(row)]) for row in cosines if np.isfinite(row).sum() >= ENOUGH - 1]
    usual = float(np.median(found)) if found else 0.0
    return usual if usual > 1e-6 else None


def judge(nearest: float, stands_out: float, usual: float | None, energy: float) -> Verdict:
    """The verdict.

    Args:
        nearest: highest cosine of a source with the target.
        stands_out: :func:`prominence` of the target.
        usual: :func:`usual_prominence` of the zoo.
        energy: part of the target's norm that the zoo's leading directions hold.
    """
    if usual is None:
        return Verdict(relevant=True, why="the zoo is too small to tell related from unrelated; compare the scores with care")
    share = stands_out / usual
    relevant = share >= BAR
    why = (
        f"the nearest source (cosine {nearest:.2f}) stands out by {share:.0%} of what sources of this zoo do among themselves, "
        f"{'over' if relevant else 'under'} the bar of {BAR:.0%}; the zoo's main directions hold {energy:.0%} of the target"
    )
    return Verdict(relevant=relevant, why=why, prominence=share)


def verdict_view(views: Mapping[View, object] | tuple[str, ...]) -> View:
    """Reading where the estimator looks at it, else computing."""
    return "read" if "read" in views else "compute"
