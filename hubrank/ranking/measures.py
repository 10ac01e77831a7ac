"""How good a ranking of sources is, given the transfer that was really measured.

All take ``values`` [n], what a ranking gives each source (the higher the better), and ``measured`` [n], what the target's
metric was after tuning from it; NaN in ``measured`` leaves a source out. Ties in ``values`` are worth the mean over the orders
they could be in, so that no ranking gains from the order of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

__all__ = ["Interval", "bootstrap", "gain", "ndcg", "rank_ndcg", "regret", "spearman"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and the percentile bootstrap's bounds of it."""

    mean: float
    low: float
    high: float


def regret(values: ArrayLike, measured: ArrayLike, k: int) -> float:
    """(best - best of the top k) / best, from 0 to 1, for k >= 1.

    What a user loses who tries the first k of the list instead of all sources: Vu et al., "Exploring and Predicting
    Transferability across NLP Tasks" (EMNLP 2020), and Poth et al., "What to Pre-Train on?" (EMNLP 2021), section 5.
    """
    ranked, truth = _pairs(values, measured)
    if not len(truth):
        return float("nan")
    best = float(truth.max())
    return (best - _expected_best(ranked, truth, min(k, len(truth)))) / best if best else 0.0


def gain(values: ArrayLike, measured: ArrayLike, without: float) -> float:
    """What the first source of the list adds to the metric of the target tuned ``without`` any source."""
    ranked, truth = _pairs(values, measured)
    return _expected_best(ranked, truth, 1) - without if len(truth) else float("nan")


def ndcg(values: ArrayLike, measured: ArrayLike) -> float:
    """Normalised discounted cumulative gain over the whole list, from 0 to 1; a source's gain is 2^metric - 1.

    Järvelin and Kekäläinen (TOIS 2002), with the exponential gain of Burges et al. (ICML 2005) as Poth et al. (EMNLP 2021)
    use it; the metric counts from 0 to 1.
    """
    ranked, truth = _pairs(values, measured)
    return _ndcg(ranked, 2.0**truth - 1.0)


def rank_ndcg(values: ArrayLike, measured: ArrayLike) -> float:
    """The same with a source's place as its gain: n - 1 for the best, 0 for the worst of n; equal sources share it.

    Spreads out metrics that lie close together, as Vu et al. (EMNLP 2020) do.
    """
    ranked, truth = _pairs(values, measured)
    return _ndcg(ranked, _mean_ranks(truth))


def spearman(values: ArrayLike, measured: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where either side is constant."""
    ranked, truth = (_mean_ranks(side) for side in _pairs(values, measured))
    if len(truth) < 2 or np.ptp(ranked) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(np.corrcoef(ranked, truth)[0, 1])


def bootstrap(
    per_target: ArrayLike,
    *,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    statistic: Callable[[Numbers], Numbers] | None = None,
) -> Interval:
    """Mean over targets with its interval by the percentile bootstrap over targets (Efron and Tibshirani 1993, chapter 13).

    Args:
        per_target: [targets] one figure a target; NaN leaves a target out. For two rankings' difference: the differences.
        statistic: of [draws, targets] along the last axis; the mean unless given.
    """
    figures = np.asarray(per_target, dtype=np.float64)
    figures = figures[np.isfinite(figures)]
    if not len(figures):
        return Interval(float("nan"), float("nan"), float("nan"))
    of = statistic or (lambda drawn: drawn.mean(axis=-1))
    drawn = of(figures[np.random.default_rng(seed).integers(0, len(figures), (draws, len(figures)))])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(of(figures[None])[0]), float(low), float(high))


def _pairs(values: ArrayLike, measured: ArrayLike) -> tuple[Numbers, Numbers]:
    ranked, truth = np.asarray(values, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if ranked.shape != truth.shape or ranked.ndim != 1:
        raise ValueError(f"values {ranked.shape} and measured {truth.shape} are not two lists of one length")
    there = np.isfinite(truth)
    # A source that a ranking cannot place comes last.
    return np.nan_to_num(ranked[there], nan=-np.inf, posinf=np.inf, neginf=-np.inf), truth[there]


def _expected_best(ranked: Numbers, truth: Numbers, k: int) -> float:
    """Mean of the best metric among the first k, over all orders of tied sources."""
    bar = np.sort(ranked)[::-1][k - 1]
    above, tied = truth[ranked > bar], np.sort(truth[ranked == bar])
    floor = float(above.max()) if len(above) else -np.inf
    left, n = k - len(above), len(tied)
    # Of n tied sources the i-th smallest is the largest of the `left` drawn in C(i, left-1) of C(n, left) draws.
    weights = np.ones(n)
    for i in range(n):
        weights[i] = _binomial_ratio(i, left - 1, n, left)
    # Rounding must not make it better than the best.
    return min(float((weights * np.maximum(tied, floor)).sum()), float(truth.max()))


def _binomial_ratio(a: int, b: int, c: int, d: int) -> float:
    from math import comb

    return comb(a, b) / comb(c, d)


def _ndcg(ranked: Numbers, gains: Numbers) -> float:
    if not len(gains):
        return float("nan")
    discounts = 1.0 / np.log2(np.arange(2, len(gains) + 2))
    ideal = float((np.sort(gains)[::-1] * discounts).sum())
    order = np.argsort(-ranked, kind="stable")
    _, groups = np.unique(-ranked[order], return_inverse=True)
    # Tied sources share the discounts of the places they take up.
    shared = (np.bincount(groups, weights=discounts) / np.bincount(groups))[groups]
    return float((gains[order] * shared).sum()) / ideal if ideal else 1.0


def _mean_ranks(values: Numbers) -> Numbers:
    """Ranks from 0, the smallest first; ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks
