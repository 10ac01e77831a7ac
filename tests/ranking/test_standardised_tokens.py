"""The estimator of prompts: SPoT's mean cosine of all pairs of tokens, standardised, of a target no stranger than the zoo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.estimators.standardised_compute import ENOUGH_PAIRS, standardised_compute
from hubrank.ranking.estimators.standardised_tokens import OUTER, standardised_tokens
from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.standardise import standardise, without_own_pairs


def prompts(n, seed=0):
    """Means of unit tokens [n, 8], of a common part and one of their own, their cosines, and their lengths."""
    random = np.random.default_rng(seed)
    means = random.normal(size=8) + random.normal(size=(n, 8))
    means *= random.uniform(0.2, 0.4, size=(n, 1)) / np.linalg.norm(means, axis=1, keepdims=True)
    lengths = np.linalg.norm(means, axis=1)
    return means, means @ means.T / np.outer(lengths, lengths), lengths


def values_of(cosines, lengths, *, target=-1, times=1.0):
    """Of one prompt against the others, as if its mean were so many times as long."""
    others = np.delete(np.arange(len(lengths)), target)
    zoo = without_own_pairs(cosines[np.ix_(others, others)])
    return standardised_tokens(compute=cosines[target, others], zoo=zoo, strength=lengths[others] / (times * lengths[target]))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_inner_product_of_the_means_standardised(seed):
    means, cosines, lengths = prompts(13, seed)
    middle = int(np.argsort(lengths)[6])  # a target that is neither the strongest nor the weakest
    others = np.delete(np.arange(13), middle)
    inner = means @ means.T
    expected = standardise(inner[middle, others], without_own_pairs(inner[np.ix_(others, others)]))
    np.testing.assert_allclose(values_of(cosines, lengths, target=middle), expected, rtol=1e-6)


def test_prompts_of_equal_strength_are_ranked_by_their_cosines():
    _, cosines, _ = prompts(12)
    zoo = without_own_pairs(cosines[:-1, :-1])
    values = standardised_tokens(compute=cosines[-1, :-1], zoo=zoo, strength=np.ones(11))
    assert np.array_equal(values, standardised_compute(compute=cosines[-1, :-1], zoo=zoo))


@given(seed=st.integers(0, 100), times=st.floats(1e-6, 1e6))
def test_a_target_is_no_stranger_than_a_tenth_of_the_zoo(seed, times):
    """Much weaker, it would be ranked by what is usual for a source; much stronger, as if nothing were."""
    _, cosines, lengths = prompts(12, seed)
    low, high = np.quantile(lengths[:-1], [OUTER, 1 - OUTER])
    nearest = np.clip(times * lengths[-1], low, high) / lengths[-1]
    np.testing.assert_allclose(values_of(cosines, lengths, times=times), values_of(cosines, lengths, times=nearest), rtol=1e-6)


@pytest.mark.parametrize("n", range(1, ENOUGH_PAIRS + 1))
def test_a_small_zoo_is_ordered_by_the_cosines(n):
    _, cosines, lengths = prompts(n + 1)
    assert np.array_equal(values_of(cosines, lengths), z_scores(cosines[-1, :-1]))


def test_a_source_s_own_strength_has_no_say():
    """It stands on both sides of its own usual; among the others' it counts."""
    _, cosines, lengths = prompts(12)
    before = values_of(cosines, lengths)
    lengths[3] *= 1.05
    after = values_of(cosines, lengths)
    assert after[3] == pytest.approx(before[3])
    assert not np.allclose(np.delete(after, 3), np.delete(before, 3))
