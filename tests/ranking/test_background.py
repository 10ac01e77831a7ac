"""The zoo against itself: the common scale, and when there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hubrank.ranking.background import ENOUGH, SAMPLE, compare_sources, estimate, measure_background
from hubrank.ranking.estimators import three_views
from hubrank.signatures.views import THREE_VIEWS, site_cosines
from hubrank.zoo.packed import pack
from tests.ranking.builders import BASE, families, modules, packed_of, random_deltas, sign, source


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_a_small_zoo_gives_no_scale(random):
    adapters = [random_deltas(random, modules()) for _ in range(ENOUGH)]
    assert measure_background(compare_sources(packed_of(adapters[:-1])), three_views) is None
    assert measure_background(compare_sources(packed_of(adapters)), three_views) is not None


def test_a_zoo_of_copies_gives_no_scale(random):
    """There is no deviation to measure in."""
    adapter = random_deltas(random, modules())
    assert measure_background(compare_sources(packed_of([adapter] * 12)), three_views) is None


def test_sources_that_share_nothing_are_no_background(random):
    """Twelve sources, but each shares sites with five others: too few to say anything."""
    adapters = [random_deltas(random, modules([i % 2])) for i in range(12)]
    assert measure_background(compare_sources(packed_of(adapters)), three_views) is None


def test_the_scale_is_that_of_the_values_of_source_against_source(random):
    packed = packed_of(families(random))
    background = measure_background(compare_sources(packed), three_views)
    signatures = [sign(deltas) for deltas in families(np.random.default_rng(0))]
    values, nearest = [], []
    for mine in signatures:
        others = [other for other in signatures if other is not mine]
        views = {v.view: np.array([np.mean(list(site_cosines(mine, o, v).values())) for o in others]) for v in THREE_VIEWS}
        values.append(three_views(**views))
        nearest.append(views["compute"].max())
    pooled = np.concatenate(values)
    median = np.median(pooled)
    assert background.median == pytest.approx(median, abs=0.01)
    assert background.deviation == pytest.approx(1.4826 * np.median(np.abs(pooled - median)), abs=0.02)
    assert np.allclose(background.nearest, np.sort(nearest), atol=0.01)


def test_scores_are_a_monotone_map(random):
    background = measure_background(compare_sources(packed_of(families(random))), three_views)
    values = np.sort(random.normal(size=50) * 3)
    scores = background.scores(values)
    assert (np.diff(scores) > 0).all()
    assert background.scores(np.array([background.median])) == pytest.approx([0.0])
    assert background.scores(np.array([background.median + background.deviation])) == pytest.approx([1.0])


def test_a_large_zoo_is_sampled_evenly(random):
    """The sample stands for all: near copies in the second half would be missed by the first rows alone."""
    n = 2 * SAMPLE
    where = modules([0], ["attention.self.query"])
    twin = random_deltas(random, where)
    signatures = [sign(random_deltas(random, where)) for _ in range(SAMPLE)] + [sign(twin)] * SAMPLE
    packed = pack(BASE, "lora", 1, [(source(f"org/a{i:03}"), signature) for i, signature in enumerate(signatures)])
    background = measure_background(compare_sources(packed), three_views)
    assert len(packed.sources) == n
    assert len(background.nearest) == SAMPLE
    assert (background.nearest > 0.9).mean() == pytest.approx(0.5, abs=0.01)


# Estimators that want the zoo's cosines with itself.


def test_sources_are_compared_with_all_others(random):
    adapters = families(random)
    mutual = compare_sources(packed_of(adapters))
    assert mutual.rows.tolist() == list(range(12))
    signatures = [sign(deltas) for deltas in adapters]
    for view in THREE_VIEWS:
        found = mutual.cosines[view.view]
        assert np.isnan(np.diag(found)).all()
        for i, mine in enumerate(signatures):
            for j, other in enumerate(signatures):
                if i != j:
                    assert found[i, j] == pytest.approx(np.mean(list(site_cosines(mine, other, view).values())), abs=0.01)


def test_a_source_that_plays_the_target_is_no_part_of_the_zoo(random):
    """Its own cosines would be measured by themselves."""
    mutual = compare_sources(packed_of(families(random)))
    square = mutual.cosines["compute"]
    seen = []

    def estimator(*, compute, zoo):
        seen.append((compute, zoo))
        return compute

    measure_background(mutual, estimator)
    for i, (compute, zoo) in enumerate(seen):
        others = np.delete(np.arange(12), i)
        assert np.array_equal(compute, square[i, others])
        assert np.array_equal(zoo, square[np.ix_(others, others)], equal_nan=True)
    assert len(seen) == 12


def test_the_target_meets_the_whole_zoo(random):
    packed = packed_of(families(random))
    mutual = compare_sources(packed)
    usable = np.array([1, 4, 5])
    cosines = {view: np.arange(12.0) for view in ("compute", "read", "write")}
    values = estimate(lambda *, read, zoo: read + zoo[0], cosines, mutual, usable, strength=1.0)
    assert np.array_equal(values, usable + mutual.cosines["compute"][0, usable])


def test_strengths_are_parts_of_the_target_s(random):
    """Of the zoo's rows, and not of the one that plays the target; by the norms before they were packed."""
    adapters = [[replace(one, up=(i + 1) * one.up) for one in deltas] for i, deltas in enumerate(families(random))]
    packed = packed_of(adapters)
    exact = np.array([np.sqrt(np.mean([np.sum(f.spectrum**2) for f in sign(deltas).factors])) for deltas in adapters])
    np.testing.assert_allclose(packed.strengths, exact, rtol=1e-5)
    assert packed.source(3).strength == pytest.approx(exact[3])
    mutual = compare_sources(packed)
    seen = []

    def estimator(*, compute, strength):
        seen.append(strength)
        return compute

    estimate(estimator, {"compute": np.zeros(12)}, mutual, np.arange(12), strength=2.0)
    np.testing.assert_allclose(seen.pop(), exact / 2, rtol=1e-5)
    measure_background(mutual, estimator)
    for i, strength in enumerate(seen):
        np.testing.assert_allclose(strength, np.delete(exact, i) / exact[i], rtol=1e-5)


def test_of_a_large_zoo_a_sample_stands_for_all(monkeypatch, random):
    packed = packed_of(families(random))
    whole = compare_sources(packed, all_sources=False)
    assert whole.cosines["read"].shape == (len(packed.sources), len(packed.sources))
    monkeypatch.setattr("hubrank.ranking.background.AGAINST", 5)
    some = compare_sources(packed, all_sources=False)
    kept = np.unique(np.linspace(0, len(packed.sources) - 1, 5).astype(int))
    np.testing.assert_allclose(some.cosines["read"], whole.cosines["read"][np.ix_(kept, kept)], atol=1e-6)
    assert compare_sources(packed, all_sources=True).cosines["read"].shape == whole.cosines["read"].shape
