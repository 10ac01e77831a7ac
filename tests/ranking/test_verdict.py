"""The verdict: how far the nearest source stands out, against what chance would let one of as many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.background import AGAINST, ENOUGH, Mutual, against, compare_sources
from hubrank.ranking.standardise import usual_cosines
from hubrank.ranking.verdict import BAR, chance, judge, usual_scatter
from tests.ranking.builders import families, packed_of

COUNT = 50
BY_CHANCE = math.sqrt(2 * math.log(COUNT))  # 2.8 deviations


def judged(leads, scatter=0.02, *, usual=0.1, sources=None, energy=0.25):
    """The verdict on sources that lead what is usual for them by so much."""
    usual = np.broadcast_to(np.float32(usual), len(leads)).astype(np.float32)
    cosines = usual + np.asarray(leads, np.float32)
    return judge(cosines, usual, scatter, sources=sources or len(leads), energy=energy)


def leads_with(highest: float) -> np.ndarray:
    return np.array([0.0] * (COUNT - 1) + [highest], np.float32)


@pytest.mark.parametrize(("part", "relevant"), [(2.0, True), (1.01, True), (0.99, False), (0.0, False)])
def test_the_bar(part, relevant):
    verdict = judged(leads_with(part * BAR * BY_CHANCE * 0.02))
    assert verdict.relevant is relevant
    assert verdict.prominence == pytest.approx(part * BAR, abs=1e-3)
    assert "for it 0.10 is usual" in verdict.why
    assert f"stands out by {part * BAR * BY_CHANCE:.1f} of the zoo's own deviations" in verdict.why
    assert f"{'over' if relevant else 'under'} the bar of {BAR * BY_CHANCE:.1f} for 50 sources" in verdict.why
    assert "hold 25% of the target" in verdict.why


def test_a_source_that_is_like_everything_is_not_what_stands_out():
    """Its cosine is the highest, and no higher than with the rest of the zoo."""
    usual = np.array([0.5, 0.1, 0.1], np.float32)
    verdict = judge(usual + np.array([0.01, 0.02, 0.15], np.float32), usual, 0.02, sources=COUNT, energy=0.5)
    assert verdict.relevant
    assert "cosine 0.25, for it 0.10 is usual" in verdict.why


def test_unrelated_sources_seldom_pass_whatever_their_number():
    """The more sources there are, the further one of them stands out by chance: a fixed bar would let any large zoo pass."""
    random = np.random.default_rng(0)
    for count in (24, 300, 10_000):
        said = [judged(random.normal(0, 0.02, count)).relevant for _ in range(200)]
        assert np.mean(said) < 0.3
        assert judged(np.append(random.normal(0, 0.02, count), 3 * BAR * BY_CHANCE * 0.02)).relevant


def test_chance_of_very_few():
    assert chance(0) == chance(1) == chance(2) > 1


def test_without_a_measure_nothing_is_refused():
    verdict = judged(leads_with(0.0), None)
    assert verdict.relevant
    assert verdict.prominence is None
    assert "too small" in verdict.why


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.floats(-1, 1, width=32))
def test_what_is_usual_for_all_is_forgotten(leads, shift):
    found, shifted = (judged(leads, usual=usual).prominence for usual in (0.1, 0.1 + shift))
    assert found == pytest.approx(shifted, abs=1e-3)


def test_what_is_usual_for_a_source_is_its_median_or_else_that_of_all():
    table = np.array([[0.1, 0.5, np.nan], [0.3, np.nan, np.nan], [0.2, 0.7, np.nan]], np.float32)
    assert usual_cosines(table) == pytest.approx([0.2, 0.6, 0.3])
    assert usual_cosines(table[:, 2:]) == pytest.approx([0.0])


def test_the_candidates_of_a_large_zoo_are_compared_with_sources_from_all_of_it(monkeypatch):
    """As if all had been: the zoo was compared with a sample of itself."""
    packed = packed_of(families(np.random.default_rng(0)))
    whole, sources = compare_sources(packed), np.array([3, 0, 7])
    expected = against(packed, whole, sources)
    monkeypatch.setattr("hubrank.ranking.background.AGAINST", 5)
    sampled = compare_sources(packed, all_sources=False)
    assert sampled.cosines["compute"].shape[1] == 5 < len(packed.sources) < AGAINST
    assert against(packed, sampled, sources) == pytest.approx(expected, abs=1e-5, nan_ok=True)


def scattered(random: np.random.Generator, relatives: int) -> Mutual:
    """40 sources against each other, their cosines 0.02 apart, and so many relatives each at 0.5."""
    cosines = random.normal(0.1, 0.02, (40, 40)).astype(np.float32)
    for row in range(40):
        cosines[row, [(row + i + 1) % 40 for i in range(relatives)]] = 0.5
        cosines[row, row] = np.nan
    return Mutual(np.arange(40), {"compute": cosines}, np.ones(40))


def test_relatives_within_the_zoo_move_the_measure_little():
    """A zoo of pairs and one of strangers must judge the same target alike."""
    random = np.random.default_rng(0)
    alone, paired, several = (usual_scatter(scattered(random, relatives)) for relatives in (0, 1, 5))
    assert alone == pytest.approx(0.02, rel=0.1)
    assert paired == pytest.approx(alone, rel=0.15)
    assert several == pytest.approx(alone, rel=0.3)


def test_no_measure_for_a_zoo_too_small_or_all_alike():
    small = Mutual(np.arange(2), {"compute": np.full((2, ENOUGH - 2), 0.5, np.float32)}, np.ones(2))
    assert usual_scatter(small) is None
    alike = Mutual(np.arange(2), {"compute": np.full((2, ENOUGH), 1.0, np.float32)}, np.ones(2))
    assert usual_scatter(alike) is None


def test_sources_of_a_zoo_scatter():
    mutual = compare_sources(packed_of(families(np.random.default_rng(0))))
    assert 0 < usual_scatter(mutual) < 0.2
