"""Similarities of soft prompts, ways to rank by them, and the choice among both that never sees the target it is scored on.

Candidates are every similarity below, each plain, centred per source, and standardised per source, and the one that ships:
SPoT's, standardised, with the target's strength bounded by the zoo's (hubrank.ranking.estimators.standardised_tokens).

    mean       cosine of the token means
    unit mean  cosine of the means of the unit tokens
    SPoT       mean cosine over all pairs of tokens: the inner product of the means of the unit tokens
    inner      inner product of the token means
    sqrt       cosine of the signed square roots of the token means
    sign       cosine of the signs of the token means
    t          cosine of the token means in standard errors
    median     cosine of the token medians
    sub10, 30  overlap of the leading 10 or 30 directions of the tokens
    nearest    mean over the target's tokens of the cosine with the nearest of the source's; ``both ways`` of the two means
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from hubrank.ranking.estimators.standardised_tokens import OUTER
from hubrank.ranking.standardise import standardise, without_own_pairs

BOUNDED = "SPoT, std, bounded"
WAYS = ("", ", centred", ", std")


def similarities(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """[n, n] by name, of prompts [n, P, d]; row target, column source."""
    wide = tokens.astype(np.float64)
    means, units = wide.mean(axis=1), unit(wide)
    unit_means = units.mean(axis=1)
    errors = wide.std(axis=1) / np.sqrt(wide.shape[1])
    nearest = np.array([[(one @ other.T).max(axis=1).mean() for other in units] for one in units])
    directions = [np.linalg.svd(prompt, full_matrices=False)[2] for prompt in wide]
    return {
        "mean": cosines(means),
        "unit mean": cosines(unit_means),
        "SPoT": unit_means @ unit_means.T,
        "inner": means @ means.T,
        "sqrt": cosines(np.sign(means) * np.sqrt(np.abs(means))),
        "sign": cosines(np.sign(means)),
        "t": cosines(means / errors),
        "median": cosines(np.median(wide, axis=1)),
        "sub10": overlaps(directions, 10),
        "sub30": overlaps(directions, 30),
        "nearest": nearest,
        "nearest, both ways": (nearest + nearest.T) / 2,
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, each by its length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """[n, n] of [n, d]."""
    return unit(vectors) @ unit(vectors).T


def overlaps(directions: list[np.ndarray], k: int) -> np.ndarray:
    """Mean squared cosine of the angles between the leading k of the directions [.., d] of each."""
    return np.array([[np.square(a[:k] @ b[:k].T).sum() / min(k, len(a)) for b in directions] for a in directions])


def by_way(similarity: np.ndarray, way: str, target: int, zoo: np.ndarray) -> np.ndarray:
    """Values of the zoo's sources for a target, in one of :data:`WAYS`."""
    of_target, mutual = similarity[target, zoo], without_own_pairs(similarity[np.ix_(zoo, zoo)])
    if way == ", centred":
        return of_target - np.nanmean(mutual, axis=0)
    return standardise(of_target, mutual) if way == ", std" else of_target


def by_tokens(spot: np.ndarray, target: int, zoo: np.ndarray, *, times: float = 1.0, outer: float | None = OUTER) -> np.ndarray:
    """SPoT's similarity, standardised, as if the mean of the target's unit tokens were so many times as long.

    Args:
        spot: [n, n] of :func:`similarities`; its diagonal holds the squared lengths.
        outer: the target's length is brought into the range of the zoo's without so much at each end; None for not at all.
    """
    length = times * np.sqrt(spot[target, target])
    bounds = np.quantile(np.sqrt(np.diag(spot)[zoo]), [outer, 1 - outer]) if outer is not None else (0.0, np.inf)
    factor = times * np.clip(length, *bounds) / length
    return standardise(factor * spot[target, zoo], without_own_pairs(spot[np.ix_(zoo, zoo)]))


def candidates(found: Mapping[str, np.ndarray], target: int, zoo: np.ndarray) -> dict[str, np.ndarray]:
    """Values of the zoo's sources for a target, by candidate.

    Args:
        found: :func:`similarities` of the prompts.
    """
    values = {f"{name}{way}": by_way(of, way, target, zoo) for name, of in found.items() for way in WAYS}
    return {**values, BOUNDED: by_tokens(found["SPoT"], target, zoo)}


def choose_nested(tables: Mapping[str, np.ndarray], column: int, *, larger: bool) -> tuple[dict[str, int], np.ndarray]:
    """For each target the candidate that is best on the others: how often each was chosen, and the metrics [targets, 3] it gets.

    Args:
        tables: metrics [targets, 3] of each candidate.
        column: the metric to choose by, its mean over all other targets; ``larger`` where more of it is better.
    """
    names, stack = list(tables), np.stack(list(tables.values()))
    score = stack[:, :, column] if larger else -stack[:, :, column]
    others = (score.sum(axis=1, keepdims=True) - score).argmax(axis=0)
    chosen = Counter(names[i] for i in others)
    return dict(chosen.most_common()), stack[others, np.arange(stack.shape[1])]
