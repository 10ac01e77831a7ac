"""Rankings against a tiny transfer whose answers are known, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.benchmark.judge import MEASURES, ceiling, chance, judge, no_transfer, paired, prior, restricted
from tests.benchmark.builders import measured


def test_known_answers():
    targets = [measured([0.8, 0.6, 0.4], name="t", scratch=0.5), measured([0.5, 1.0, np.nan], name="u", scratch=0.5)]
    found = judge("x", {"t": [np.array([1.0, 3.0, 2.0])], "u": [np.array([2.0, 1.0, 9.0])]}, targets)
    assert found.per_target["t"]["regret@1"] == pytest.approx(0.25)
    assert found.per_target["t"]["regret@3"] == 0
    assert found.per_target["t"]["gain"] == pytest.approx(0.1)
    assert found.per_target["t"]["spearman"] == pytest.approx(-0.5)
    assert found.per_target["u"]["regret@1"] == pytest.approx(0.5)
    assert found.per_target["u"]["gain"] == pytest.approx(0.0)
    assert found.figures["regret@1"].mean == pytest.approx(0.375)
    assert (found.figures["regret@1"].low, found.figures["regret@1"].high) == pytest.approx((0.25, 0.5))


def test_seeds_of_a_ranking_are_averaged_and_a_target_without_values_is_left_out():
    targets = [measured([0.8, 0.4], name="t"), measured([0.8, 0.4], name="u")]
    found = judge("x", {"t": [np.array([1.0, 0.0]), np.array([0.0, 1.0])]}, targets)
    assert set(found.per_target) == {"t"}
    assert found.figures["regret@1"].mean == pytest.approx(0.25)


def test_each_source_is_compared_with_the_start_of_its_own_shape():
    target = measured([0.6, 0.5])
    target.scratch[:] = [0.6, 0.2]
    assert judge("x", {"t": [np.array([1.0, 0.0])]}, [target]).figures["gain"].mean == pytest.approx(0.0)
    assert judge("x", {"t": [np.array([0.0, 1.0])]}, [target]).figures["gain"].mean == pytest.approx(0.3)


def test_a_difference_is_taken_target_by_target():
    targets = [measured([0.8, 0.4], name="t"), measured([0.2, 0.1], name="u"), measured([0.5, 0.5], name="v")]
    good = judge("x", {name: [np.array([1.0, 0.0])] for name in "tuv"}, targets)
    bad = judge("y", {name: [np.array([0.0, 1.0])] for name in "tu"}, targets)
    found = paired(bad, good, "regret@1")
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_references():
    targets = [measured([0.8, 0.6, 0.4], name="t", scratch=0.4), measured([0.9, 0.6, 0.3], name="u", scratch=0.3)]
    assert chance(targets).per_target["t"]["regret@1"] == pytest.approx(0.25)
    lost = no_transfer(targets)
    assert lost.per_target["t"]["regret@1"] == pytest.approx(0.5)
    assert np.isnan(lost.per_target["t"]["ndcg"])
    assert prior(targets).figures["regret@1"].mean == 0  # each order tells the other
    assert prior(targets[:1]) is None
    assert no_transfer([measured([0.1, 0.2], scratch=np.nan)]) is None


def test_the_ceiling_is_one_seed_against_the_mean_of_the_others():
    # Seed 0 puts the first source first, where seed 1 has it at 0.4 of 0.8; and the other way round.
    found = ceiling([measured([[0.9, 0.6], [0.4, 0.8]]), measured([0.1, 0.2], name="u")])
    assert found.per_target["t"]["regret@1"] == pytest.approx(((0.8 - 0.4) / 0.8 + (0.9 - 0.6) / 0.9) / 2)
    assert "1 targets" in found.note
    assert ceiling([measured([0.1, 0.2])]) is None


def test_kin_and_unmatched_sources_leave_the_list():
    target = measured([0.9, 0.5, 0.1, 0.2], kin=[True, False, False, False])
    kept = np.array([True, True, True, False])
    assert restricted(target, kept, kin=True).there.tolist() == [True, True, True, False]
    assert restricted(target, kept, kin=False).there.tolist() == [False, True, True, False]


@st.composite
def cases(draw):
    n = draw(st.integers(2, 7))
    seeds = [draw(st.lists(st.integers(1, 20), min_size=n, max_size=n)) for _ in range(draw(st.integers(1, 3)))]
    return (
        np.array(seeds) / 20,
        np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), float),
        draw(st.permutations(range(n))),
    )


@given(case=cases())
def test_the_order_of_the_sources_changes_nothing(case):
    seeds, values, order = case
    order = list(order)
    one = judge("x", {"t": [values]}, [measured(seeds)])
    two = judge("x", {"t": [values[order]]}, [measured(seeds[:, order])])
    for measure in MEASURES:
        assert one.per_target["t"][measure] == pytest.approx(two.per_target["t"][measure], abs=1e-9)


@given(case=cases())
def test_the_order_of_targets_and_sources_changes_no_reference(case):
    seeds, _, order = case
    order = list(order)
    rest = 0.9 - seeds / 2
    for reference in (chance, no_transfer, prior, ceiling):
        one = reference([measured(seeds, name="t"), measured(rest, name="u")])
        two = reference([measured(rest[:, order], name="u"), measured(seeds[:, order], name="t")])
        assert (one is None) == (two is None)
        for target in () if one is None else ("t", "u"):
            assert one.per_target[target] == pytest.approx(two.per_target[target], abs=1e-9, nan_ok=True)
