"""The estimator's value and LogME, as one readable sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LOGME_WEIGHT", "blended"]

LOGME_WEIGHT = 2.0
"""w of ``z(value) + w * z(LogME)``: how much a standard deviation of LogME counts against one of the estimator's value.

Of 0, 1/4, 1/2, 1, 2 and 4 the one with the least regret over the first ten of 24 sources on 16 targets (bench/blend.py):
regret@1 / @3 2.2 / 1.3 % without LogME, 1.5 / 0.1 % with it (LogME of all 24 by itself: 1.7 / 0.1 %); without sources of the
target's own task 5.0 / 1.8 and 2.2 / 0.1 %. What the value knows of the rows is LogME to first order; the source's own
outweighs it."""


def blended(values: Sequence[float], logmes: Sequence[float], *, weight: float = LOGME_WEIGHT) -> NDArray[np.float64]:
    """``z(value) + weight * z(logme)``, the z-scores over the sources given.

    The value says how alike the updates are, LogME (You et al., ICML 2021) how well the target's labels follow from what the
    source makes of its rows; their scales have nothing in common, so each is measured in its own deviations.

    Args:
        values, logmes: [n] each.

    Returns:
        [n]; a side on which all are equal counts for nothing.
    """
    return _z(values) + weight * _z(logmes)


def _z(numbers: Sequence[float]) -> NDArray[np.float64]:
    wide = np.asarray(numbers, dtype=np.float64)
    if not len(wide):
        return wide
    deviation = float(wide.std())
    centred: NDArray[np.float64] = wide - wide.mean()
    # What rounding leaves of equal numbers is no spread.
    return centred / deviation if deviation > 1e-9 * float(np.abs(wide).max(initial=0.0)) else np.zeros(len(wide))
