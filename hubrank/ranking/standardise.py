"""Standardising per source: is this source nearer to the target than it is to the rest of the zoo?

Some sources are near everything, so a plain similarity puts them first for every target. Measured by how a source stands
to the others, ``(s(t, j) - mean_i s(i, j)) / sd_i s(i, j)`` with i over the other sources of the zoo, such a hub loses its
head start. It serves to find the same task, and to rank soft prompts and prefixes; for the transfer of LoRAs, where some
sources are simply good, it does harm (docs/method.md has the figures), so it is an estimator's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["standardise", "usual_cosines", "without_own_pairs"]

_ROUNDING = 1e-6  # of the largest value: what rounding leaves of equal float32 numbers is no spread


def standardise(similarities: FloatArray, zoo: FloatArray, *, least: int = 2) -> NDArray[np.float64]:
    """Similarities of a target, each in standard deviations from what its source has with the zoo.

    Args:
        similarities: [n] of the target with each source.
        zoo: [m, n] of m sources of the zoo, each playing the target, with each source; NaN where a pair does not count: a
            source with itself, and two that share no site.
        least: a source needs so many that count, at least 2.

    Returns:
        [n] values; NaN for a source that has too few that count, or the same similarity with all of them, and where its
        similarity with the target is NaN itself.
    """
    wide = np.asarray(zoo, dtype=np.float64)
    counts = np.isfinite(wide)
    known = np.where(counts, wide, 0.0)
    number = counts.sum(axis=0)
    mean = known.sum(axis=0) / np.maximum(number, 1)
    deviation = np.sqrt((np.where(counts, wide - mean, 0.0) ** 2).sum(axis=0) / np.maximum(number, 1))
    measurable = (number >= max(2, least)) & (deviation > _ROUNDING * np.abs(known).max(axis=0, initial=0.0))
    values: NDArray[np.float64] = np.full(np.shape(similarities), np.nan)
    np.divide(np.asarray(similarities, dtype=np.float64) - mean, deviation, out=values, where=measurable)
    return values


def without_own_pairs(zoo: FloatArray) -> FloatArray:
    """[n, n] similarities of a zoo with itself, NaN on the diagonal: a source's similarity with itself says nothing."""
    out: FloatArray = np.where(np.eye(len(zoo), dtype=bool), np.nan, zoo).astype(zoo.dtype)
    return out


def usual_cosines(table: FloatArray) -> FloatArray:
    """[k] median of each column of [m, k] cosines of sources that played the target; of all of them where a column has none."""
    there = np.isfinite(table).any(axis=0)
    everywhere = float(np.nanmedian(table)) if there.any() else 0.0
    usual: FloatArray = np.full(table.shape[1], everywhere, np.float32)
    usual[there] = np.nanmedian(table[:, there], axis=0)
    return usual
