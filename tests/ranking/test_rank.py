"""From a signature to an ordered list: the order, the evidence of each layer, the warnings, the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hubrank.errors import EmptyZooError
from hubrank.ranking.estimators import DEFAULT
from hubrank.ranking.rank import rank_sources
from hubrank.signatures.views import THREE_VIEWS, similarity, site_cosines
from hubrank.zoo.packed import pack
from tests.ranking.builders import BASE, families, modules, packed_of, random_deltas, rewritten, sign, source

D, SPAN = 64, 32  # the families live in the first half of the coordinates


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def adapters(random):
    """Twelve adapters in four families."""
    return families(random, d=D, span=SPAN)


def names(ranked):
    return [row.source.repo for row in ranked.rows]


# The order.


@pytest.mark.parametrize("planted", [0, 5, 11])
def test_the_same_update_with_other_factors_is_first(random, adapters, planted):
    ranked = rank_sources(packed_of(adapters), sign(rewritten(random, adapters[planted])), estimator=DEFAULT)
    first = ranked.rows[0]
    assert first.source.repo == f"org/a{planted:02}"
    assert first.similarity == pytest.approx(1.0, abs=0.01)
    assert first.layers == pytest.approx([1.0, 1.0], abs=0.01)
    family = 3 * (planted // 3)
    assert set(names(ranked)[:3]) == {f"org/a{family + i:02}" for i in range(3)}


def test_rows_are_ordered_by_value_and_numbered(random, adapters):
    ranked = rank_sources(packed_of(adapters), sign(rewritten(random, adapters[4], noise=0.5)), estimator=DEFAULT)
    values, scores = [row.value for row in ranked.rows], [row.score for row in ranked.rows]
    assert [row.rank for row in ranked.rows] == list(range(1, 13))
    assert values == sorted(values, reverse=True)
    assert scores == sorted(scores, reverse=True)
    assert (ranked.compared, ranked.skipped) == (12, {})
    assert len(set(names(ranked))) == 12


def test_the_packed_similarity_is_that_of_the_factors(random, adapters):
    mine = sign(rewritten(random, adapters[4], noise=0.5))
    for row in rank_sources(packed_of(adapters), mine, estimator=DEFAULT).rows:
        other = sign(adapters[int(row.source.repo[-2:])])
        assert row.similarity == pytest.approx(np.mean([similarity(mine, other, view) for view in THREE_VIEWS]), abs=0.01)
        sites = np.array([list(site_cosines(mine, other, view).values()) for view in THREE_VIEWS])
        assert row.layers == pytest.approx([sites[:, :2].mean(), sites[:, 2:].mean()], abs=0.01)


def test_top_keeps_the_first_and_counts_all(random, adapters):
    mine = sign(rewritten(random, adapters[7]))
    packed = packed_of(adapters)
    everything = rank_sources(packed, mine, estimator=DEFAULT)
    three = rank_sources(packed, mine, estimator=DEFAULT, top=3)
    assert three.rows == everything.rows[:3]
    assert three.compared == 12
    assert len(rank_sources(packed, mine, estimator=DEFAULT, top=99).rows) == 12


def test_the_order_of_the_zoo_does_not_matter(random, adapters):
    mine = sign(rewritten(random, adapters[2], noise=0.3))
    pairs = [(source(f"org/a{i:02}"), sign(deltas)) for i, deltas in enumerate(adapters)]
    forwards, backwards = (rank_sources(pack(BASE, "lora", 1, some), mine, estimator=DEFAULT) for some in (pairs, pairs[::-1]))
    assert names(forwards) == names(backwards)


def test_a_zoo_too_small_for_scores_is_ranked_all_the_same(random, adapters):
    ranked = rank_sources(packed_of(adapters[:4]), sign(rewritten(random, adapters[1])), estimator=DEFAULT)
    assert ranked.rows[0].source.repo == "org/a01"
    assert [row.score for row in ranked.rows] == [None] * 4
    assert ranked.verdict.relevant
    assert "too small" in ranked.verdict.why


def test_one_source_alone(random, adapters):
    (row,) = rank_sources(packed_of(adapters[:1]), sign(adapters[0]), estimator=DEFAULT).rows
    assert (row.rank, row.value, row.score) == (1, 0.0, None)


# The evidence.


def test_layers_that_a_source_lacks_are_none(random):
    full = [random_deltas(random, modules(range(3))) for _ in range(8)]
    zoo = [*full, random_deltas(random, modules([0, 2])), random_deltas(random, modules([1]))]
    rows = {row.source.repo: row for row in rank_sources(packed_of(zoo), sign(full[0]), estimator=DEFAULT).rows}
    assert [layer is None for layer in rows["org/a00"].layers] == [False, False, False]
    assert [layer is None for layer in rows["org/a08"].layers] == [False, True, False]
    assert [layer is None for layer in rows["org/a09"].layers] == [True, False, True]


def test_layers_that_the_target_lacks_are_none(random):
    zoo = [random_deltas(random, modules(range(3))) for _ in range(8)]
    mine = [delta for delta in zoo[0] if delta.site.layer != 1]
    for row in rank_sources(packed_of(zoo), sign(mine), estimator=DEFAULT).rows:
        assert [layer is None for layer in row.layers] == [False, True, False]


def test_layers_count_from_zero(random):
    """Also in a zoo that leaves the first layers alone: the third figure is the third layer's."""
    zoo = [random_deltas(random, modules([2, 4])) for _ in range(8)]
    (first, *_) = rank_sources(packed_of(zoo), sign(zoo[0]), estimator=DEFAULT).rows
    assert [layer is None for layer in first.layers] == [True, True, False, True, False]


def test_encoder_layers_come_before_decoder_layers(random):
    where = [f"{stack}.block.{layer}.layer.0.SelfAttention.q" for stack in ("decoder", "encoder") for layer in range(2)]
    zoo = [random_deltas(random, where) for _ in range(8)]
    mine = [*zoo[0][2:], *random_deltas(random, where[:2])]  # the encoder of the first source, a decoder of its own
    first = rank_sources(packed_of(zoo), sign(mine), estimator=DEFAULT).rows[0]
    assert len(first.layers) == 4
    assert min(first.layers[:2]) > 0.9
    assert max(first.layers[2:]) < 0.6


def test_modules_outside_the_layers_count_but_have_no_layer(random):
    zoo = [random_deltas(random, [*modules(range(2)), "pooler.dense"]) for _ in range(8)]
    row = rank_sources(packed_of(zoo), sign(zoo[0]), estimator=DEFAULT).rows[0]
    assert len(row.layers) == 2
    assert row.coverage == 1.0


def test_a_source_that_shares_little_is_marked(random):
    full = [random_deltas(random, modules(range(4))) for _ in range(8)]
    half = random_deltas(random, modules([0, 1]))
    quarter = random_deltas(random, modules([3]))
    ranked = rank_sources(packed_of([*full, half, quarter]), sign(random_deltas(random, modules(range(4)))), estimator=DEFAULT)
    rows = {row.source.repo: row for row in ranked.rows}
    assert (rows["org/a00"].coverage, rows["org/a00"].warnings) == (1.0, ())
    assert (rows["org/a08"].coverage, rows["org/a08"].warnings) == (0.5, ())
    assert (rows["org/a09"].coverage, rows["org/a09"].warnings) == (0.25, ("compared on 25% of the target's sites",))


def test_the_warnings_of_a_source_come_along(random, adapters):
    packed = packed_of(adapters)
    marked = tuple(replace(found, warnings=("old",)) for found in packed.sources)
    ranked = rank_sources(replace(packed, sources=marked), sign(adapters[0]), estimator=DEFAULT)
    assert {row.warnings for row in ranked.rows} == {("old",)}


# Nothing in common.


def test_sources_without_a_shared_site_are_skipped_and_counted(random):
    zoo = [*(random_deltas(random, modules([0])) for _ in range(8)), random_deltas(random, modules([1]))]
    ranked = rank_sources(packed_of(zoo), sign(zoo[0][:1]), estimator=DEFAULT)
    assert (ranked.compared, ranked.skipped) == (8, {"no comparable sites": 1})
    assert "org/a08" not in names(ranked)


def test_nothing_comparable(random, adapters):
    for other in (random_deltas(random, modules([7]), d=D), random_deltas(random, modules(), d=D // 2)):
        with pytest.raises(EmptyZooError, match="no source in the zoo changes the layers"):
            rank_sources(packed_of(adapters), sign(other), estimator=DEFAULT)


# The verdict.


def test_a_relative_is_relevant(random, adapters):
    ranked = rank_sources(packed_of(adapters), sign(rewritten(random, adapters[3], noise=0.5)), estimator=DEFAULT)
    assert ranked.verdict.relevant
    assert "over the bar of" in ranked.verdict.why


def test_a_stranger_is_not(random, adapters):
    """A target in directions that no source of the zoo uses."""
    ranked = rank_sources(packed_of(adapters), sign(random_deltas(random, modules(), d=D, span=(SPAN, D))), estimator=DEFAULT)
    assert not ranked.verdict.relevant
    assert "under the bar of" in ranked.verdict.why
    assert ranked.energy == pytest.approx(0.0, abs=1e-6)


def test_energy_is_the_part_that_the_zoo_spans(random, adapters):
    packed = packed_of(adapters)
    inside = rank_sources(packed, sign(adapters[0]), estimator=DEFAULT).energy
    across = rank_sources(packed, sign(random_deltas(random, modules(), d=D)), estimator=DEFAULT).energy
    assert inside == pytest.approx(1.0, abs=1e-3)
    assert 0.1 < across < 0.5  # a half of each side: a quarter of the square
    for i in range(12):
        assert 0.0 <= rank_sources(packed, sign(adapters[i]), estimator=DEFAULT).energy <= 1.0
