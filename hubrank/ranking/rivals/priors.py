"""Rankings that do not look at the target: how much data a source saw, what kind of task it was, how it helped others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

__all__ = ["COMPLEX", "complex_reasoning", "data_size", "random_order", "source_prior"]

COMPLEX = ("nli", "question answering", "commonsense", "multiple choice", "coreference")
"""Families that call for complex inference, in the words of Pruksachatkun et al."""


def data_size(*, rows: ArrayLike) -> Numbers:
    """The more rows a source was trained on the better: Phang, Févry and Bowman, "Sentence Encoders on STILTs" (2018)."""
    return np.asarray(rows, dtype=np.float64)


def complex_reasoning(*, families: Sequence[str]) -> Numbers:
    """1 for tasks that need complex inference and reasoning, else 0.

    Pruksachatkun et al., "Intermediate-Task Transfer Learning with Pretrained Models for Natural Language Understanding: When
    and Why Does It Work?" (ACL 2020) find these the best intermediate tasks, whatever the target.
    """
    return np.asarray([float(any(word in family.lower() for word in COMPLEX)) for family in families])


def source_prior(*, others: ArrayLike) -> Numbers:
    """How well each source served the other targets: the mean over them of its metric, z-scored a target.

    Args:
        others: [targets, n] the measured transfer of the *other* targets (leave one target out), NaN where it was not.
    """
    measured = np.asarray(others, dtype=np.float64)
    there = np.isfinite(measured)
    counts = np.maximum(there.sum(axis=1, keepdims=True), 1)
    filled = np.where(there, measured, 0.0)
    mean = filled.sum(axis=1, keepdims=True) / counts
    deviation = np.sqrt((np.where(there, measured - mean, 0.0) ** 2).sum(axis=1, keepdims=True) / counts)
    z = np.where(there, (measured - mean) / np.where(deviation > 1e-12, deviation, np.inf), 0.0)
    return np.asarray(z.sum(axis=0) / np.maximum(there.sum(axis=0), 1))


def random_order(*, n: int, seed: int) -> Numbers:
    """Chance. With all values equal the measures give its expectation exactly; this gives one draw."""
    return np.random.default_rng(seed).permutation(n).astype(np.float64)
