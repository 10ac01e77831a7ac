"""The verdict: how far the nearest source stands out, against what chance would let one of as many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.background import ENOUGH, Mutual, compare_sources
from hubrank.ranking.verdict import BAR, chance, judge, stands_out, usual_scatter, verdict_view
from tests.ranking.builders import families, packed_of

COUNT = 50
BY_CHANCE = math.sqrt(2 * math.log(COUNT))  # 2.8 deviations


def cosines_with(highest: float) -> np.ndarray:
    return np.array([0.1] * (COUNT - 1) + [0.1 + highest], np.float32)


@pytest.mark.parametrize(("part", "relevant"), [(2.0, True), (1.01, True), (0.99, False), (0.0, False)])
def test_the_bar(part, relevant):
    verdict = judge(cosines_with(part * BAR * BY_CHANCE * 0.02), 0.02, 0.25)
    assert verdict.relevant is relevant
    assert verdict.prominence == pytest.approx(part * BAR, abs=1e-3)
    assert f"stands out by {part * BAR * BY_CHANCE:.1f} of the zoo's own deviations" in verdict.why
    assert f"{'over' if relevant else 'under'} the bar of {BAR * BY_CHANCE:.1f} for 50 sources" in verdict.why
    assert "hold 25% of the target" in verdict.why


def test_unrelated_sources_seldom_pass_whatever_their_number():
    """The more sources there are, the further one of them stands out by chance: a fixed bar would let any large zoo pass."""
    random = np.random.default_rng(0)
    for count in (24, 300, 10_000):
        said = [judge(random.normal(0.1, 0.02, count).astype(np.float32), 0.02, 0.5).relevant for _ in range(200)]
        assert np.mean(said) < 0.3
        assert judge(np.append(random.normal(0.1, 0.02, count), 0.21).astype(np.float32), 0.02, 0.5).relevant


def test_chance_of_very_few():
    assert chance(0) == chance(1) == chance(2) > 1


def test_without_a_measure_nothing_is_refused():
    verdict = judge(cosines_with(0.0), None, 0.0)
    assert verdict.relevant
    assert verdict.prominence is None
    assert "too small" in verdict.why


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.floats(-1, 1, width=32))
def test_what_all_have_in_common_is_forgotten(cosines, shift):
    array = np.array(cosines, np.float32)
    assert stands_out(array) >= 0
    assert stands_out(array + np.float32(shift)) == pytest.approx(stands_out(array), abs=1e-5)


def scattered(random: np.random.Generator, relatives: int) -> Mutual:
    """40 sources against each other, their cosines 0.02 apart, and so many relatives each at 0.5."""
    cosines = random.normal(0.1, 0.02, (40, 40)).astype(np.float32)
    for row in range(40):
        cosines[row, [(row + i + 1) % 40 for i in range(relatives)]] = 0.5
        cosines[row, row] = np.nan
    return Mutual(np.arange(40), {"read": cosines}, np.ones(40))


def test_relatives_within_the_zoo_move_the_measure_little():
    """A zoo of pairs and one of strangers must judge the same target alike."""
    random = np.random.default_rng(0)
    alone, paired, several = (usual_scatter(scattered(random, relatives), "read") for relatives in (0, 1, 5))
    assert alone == pytest.approx(0.02, rel=0.1)
    assert paired == pytest.approx(alone, rel=0.15)
    assert several == pytest.approx(alone, rel=0.3)


def test_no_measure_for_a_zoo_too_small_or_all_alike():
    small = Mutual(np.arange(2), {"read": np.full((2, ENOUGH - 2), 0.5, np.float32)}, np.ones(2))
    assert usual_scatter(small, "read") is None
    alike = Mutual(np.arange(2), {"read": np.full((2, ENOUGH), 1.0, np.float32)}, np.ones(2))
    assert usual_scatter(alike, "read") is None


def test_sources_of_a_zoo_scatter():
    mutual = compare_sources(packed_of(families(np.random.default_rng(0))))
    assert 0 < usual_scatter(mutual, "read") < 0.2


def test_the_view_that_names_the_task_where_the_estimator_has_it():
    assert verdict_view(("compute", "read", "write")) == "read"
    assert verdict_view(("compute", "zoo")) == "compute"
