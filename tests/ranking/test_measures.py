"""The measures of a ranking, against their definitions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.measures import bootstrap, gain, ndcg, rank_ndcg, regret, spearman


@st.composite
def rankings(draw):
    """Few distinct values, so that ties are common."""
    n = draw(st.integers(1, 6))
    values = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    measured = draw(st.lists(st.integers(1, 20), min_size=n, max_size=n))
    return np.array(values, float), np.array(measured) / 20


def by_all_orders(values, measured, of):
    """Mean of ``of(measured in order)`` over every order that the values allow."""
    orders = [order for order in permutations(range(len(values))) if all(np.diff(values[list(order)]) <= 0)]
    return np.mean([of(measured[list(order)]) for order in orders])


@given(case=rankings(), k=st.integers(1, 7))
def test_regret_is_the_mean_over_the_orders_of_ties(case, k):
    values, measured = case
    expected = by_all_orders(values, measured, lambda m: (m.max() - m[:k].max()) / m.max())
    assert regret(values, measured, k) == pytest.approx(expected, abs=1e-9)


@given(case=rankings())
def test_ndcg_is_the_mean_over_the_orders_of_ties(case):
    values, measured = case
    discounts = 1 / np.log2(np.arange(2, len(values) + 2))
    ideal = ((2 ** np.sort(measured)[::-1] - 1) * discounts).sum()
    expected = by_all_orders(values, measured, lambda m: ((2**m - 1) * discounts).sum() / ideal)
    assert ndcg(values, measured) == pytest.approx(expected, abs=1e-9)


@given(case=rankings(), scale=st.floats(0.5, 3), offset=st.floats(-3, 3))
def test_only_the_order_counts(case, scale, offset):
    values, measured = case
    for measure in (ndcg, rank_ndcg, spearman, lambda v, m: regret(v, m, 1), lambda v, m: gain(v, m, 0.2)):
        assert measure(scale * values + offset, measured) == pytest.approx(measure(values, measured), abs=1e-9)


@given(case=rankings())
def test_the_truth_itself_is_the_best_ranking(case):
    values, measured = case
    assert regret(measured, measured, 1) == pytest.approx(0, abs=1e-12)
    assert ndcg(measured, measured) == pytest.approx(1)
    assert rank_ndcg(measured, measured) == pytest.approx(1)
    for measure in (ndcg, rank_ndcg, spearman):
        assert measure(values, measured) <= measure(measured, measured) + 1e-9 or np.ptp(measured) == 0


def test_a_source_that_was_not_measured_does_not_count():
    values, measured = [3, 2, 1], [np.nan, 0.5, 1.0]
    assert regret(values, measured, 1) == pytest.approx(0.5)
    assert gain(values, measured, 0.4) == pytest.approx(0.1)
    assert np.isnan(regret([1], [np.nan], 1))


def test_a_source_that_cannot_be_placed_is_last():
    assert regret([np.nan, 0.0], [1.0, 0.5], 1) == pytest.approx(0.5)


def test_spearman_by_hand():
    assert spearman([1, 2, 3, 4], [0.1, 0.2, 0.4, 0.3]) == pytest.approx(0.8)
    assert spearman([1, 1, 1], [0.1, 0.2, 0.3]) == 0


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        regret([1, 2], [1.0], 1)


def test_the_bootstrap_holds_its_mean_and_narrows():
    random = np.random.default_rng(0)
    few, many = bootstrap(random.normal(size=10)), bootstrap(random.normal(size=1000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    assert bootstrap([0.5, 0.5, np.nan]) == bootstrap([0.5, 0.5])
    assert np.isnan(bootstrap([]).mean)
