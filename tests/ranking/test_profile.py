"""A source among the others of its zoo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hubrank.ranking.profile import mean_norm, profile_source, telling
from hubrank.types import Delta, Signature
from hubrank.zoo.store import Zoo
from tests.ranking.builders import modules, random_deltas, rewritten, sign, source


@pytest.fixture
def random():
    return np.random.default_rng(3)


def scaled(deltas, by):
    """The same updates times a factor, or times one for each layer."""
    factors = by if isinstance(by, dict) else {0: by, 1: by}
    return [Delta(d.site, down=d.down, up=factors[d.site.layer] * d.up) for d in deltas]


def zoo_of(folder, adapters):
    zoo = Zoo(folder, create=True)
    for i, deltas in enumerate(adapters):
        zoo.put(source(f"org/a{i:02}"), sign(deltas))
    return zoo


def profile_of(zoo, name):
    found = next(one for one in zoo.sources(gone=True) if one.name == name)
    return profile_source(zoo, found, zoo.signature(found))


def test_strength_is_told_against_the_others(tmp_path, random):
    zoo = zoo_of(tmp_path, [scaled(random_deltas(random, modules()), 1.0 + i) for i in range(9)])
    profiles = [profile_of(zoo, f"org/a{i:02}") for i in range(9)]
    assert [round(one.weaker * 8) for one in profiles] == list(range(9))
    assert {one.sampled for one in profiles} == {8}
    assert profiles[4].strength == pytest.approx(mean_norm(zoo.signature(profiles[4].source)))


def test_strength_does_not_grow_with_the_number_of_sites(tmp_path, random):
    deltas = random_deltas(random, modules())
    alike = [Delta(d.site, down=deltas[0].down, up=deltas[0].up) for d in deltas]
    assert mean_norm(sign(alike)) == pytest.approx(mean_norm(sign(alike[:1])))


def test_the_nearest_come_first_and_the_source_is_not_its_own(tmp_path, random):
    parent = random_deltas(random, modules())
    others = [random_deltas(random, modules()) for _ in range(8)]
    zoo = zoo_of(tmp_path, [parent, *others, rewritten(random, parent, noise=0.5), rewritten(random, parent, noise=0.05)])
    found = profile_of(zoo, "org/a00")
    assert found.others == 10
    assert [near.source.name for near in found.nearest[:2]] == ["org/a10", "org/a09"]
    assert found.nearest[0].cosine > found.nearest[1].cosine > found.usual_nearest
    assert "org/a00" not in {near.source.name for near in found.nearest}


def test_a_source_near_to_all_is_known_by_its_crowd(tmp_path, random):
    parent = random_deltas(random, modules())
    around = [
        [
            Delta(p.site, down=np.concatenate([p.down, o.down]), up=np.concatenate([p.up, 1.5 * o.up], axis=1))
            for p, o in zip(parent, random_deltas(random, modules()), strict=True)
        ]
        for _ in range(11)
    ]
    zoo = zoo_of(tmp_path, [parent, *around])
    assert profile_of(zoo, "org/a00").less_crowded > 0.9
    assert profile_of(zoo, "org/a00").crowd > profile_of(zoo, "org/a05").crowd


def test_the_layer_that_holds_more_than_usual(tmp_path, random):
    zoo = zoo_of(tmp_path, [scaled(random_deltas(random, modules()), {0: 1.0, 1: 4.0 if i == 3 else 1.0}) for i in range(9)])
    first, last = profile_of(zoo, "org/a03").layers
    assert first.share + last.share == pytest.approx(1.0)
    assert last.share > 0.9
    assert last.usual == pytest.approx(0.5, abs=0.1)


def test_one_that_left_its_hub_is_among_those_that_left(tmp_path, random):
    zoo = zoo_of(tmp_path, [random_deltas(random, modules()) for _ in range(9)])
    zoo.mark(zoo.sources()[4], gone=True)
    assert profile_of(zoo, "org/a04").others == 8


def test_alone_it_is_what_it_is(tmp_path, random):
    found = profile_of(zoo_of(tmp_path, [random_deltas(random, modules())]), "org/a00")
    assert (found.others, found.weaker, found.nearest, found.crowd, found.usual_nearest) == (0, None, (), None, None)
    assert found.sites == found.comparable == 4


def test_what_nobody_shares_is_not_compared(tmp_path, random):
    rare = random_deltas(random, modules(names=("output.dense",)))
    zoo = zoo_of(tmp_path, [*(random_deltas(random, modules()) for _ in range(24)), rare])
    found = profile_of(zoo, "org/a24")
    assert (found.others, found.comparable, found.sites, found.weaker) == (0, 0, 2, None)


def test_one_that_changes_nothing_spoils_no_zoo(tmp_path, random):
    zoo = zoo_of(tmp_path, [random_deltas(random, modules()) for _ in range(9)])
    nothing = Signature(tuple(replace(f, s=0 * f.s, spectrum=0 * f.spectrum) for f in zoo.signature(zoo.sources()[0]).factors))
    zoo.put(source("org/zero"), nothing)
    found = profile_of(zoo, "org/zero")
    assert (found.others, found.strength, found.layers) == (0, 0.0, ())
    assert profile_of(zoo, "org/a03").others == 8


def test_views_that_are_all_alike_tell_nothing():
    cosines = {
        "compute": np.array([0.1, np.nan, 0.3]),
        "read": np.array([1.0, np.nan, 1.0 - 1e-7]),
        "write": np.full(3, np.nan),
    }
    assert telling(cosines, ["compute", "read", "write"]) == ("compute",)
