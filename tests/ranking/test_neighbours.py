"""Short vectors follow the exact cosines, and the map follows the vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.neighbours import mean_cosines, vectors_of, vectors_of_zoo
from hubrank.ranking.zoo_map import MOST, Guest, map_zoo, scale
from hubrank.signatures.basis import project
from hubrank.zoo.packed import pack
from tests.builders import BASE, MODULES, make_source, random_signature


def packed_zoo(count=8, **shape):
    zoo = [(make_source(f"org/{i}"), random_signature(i, **shape)) for i in range(count)]
    return zoo, pack(BASE, "lora", 1, zoo)


def test_with_all_directions_they_are_the_exact_cosines():
    zoo, packed = packed_zoo(6)
    vectors = vectors_of_zoo(packed)
    exact = packed.cosines_of([project(signature, packed.basis) for _, signature in zoo])["compute"]
    np.testing.assert_allclose(mean_cosines(vectors, vectors), exact, atol=0.02)
    np.testing.assert_allclose(np.diag(mean_cosines(vectors, vectors)), 1.0, atol=0.02)


def test_an_adapter_from_outside_is_compared_like_a_source():
    zoo, packed = packed_zoo(6)
    vectors = vectors_of_zoo(packed)
    one = vectors_of([project(zoo[3][1], packed.basis)], vectors.directions)
    near = mean_cosines(one, vectors)[0]
    assert near.argmax() == 3
    assert near[3] == pytest.approx(1.0, abs=0.02)


def test_sites_that_one_lacks_are_left_out_of_the_mean():
    zoo = [(make_source("org/all"), random_signature(1)), (make_source("org/half"), random_signature(1, sites=MODULES[:2]))]
    zoo += [(make_source("org/other"), random_signature(2, sites=MODULES[2:]))]
    packed = pack(BASE, "lora", 1, zoo)
    vectors = vectors_of_zoo(packed)
    cosines = mean_cosines(vectors, vectors)
    assert cosines[0, 1] == pytest.approx(1.0, abs=0.02)
    assert np.isnan(cosines[1, 2])


@given(st.integers(0, 50), st.integers(3, 12))
def test_scaling_keeps_what_two_dimensions_can_hold(seed, count):
    """Points on a circle in the plane come back up to rotation and reflection: all their distances do."""
    angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, count)
    flat = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points, held = scale((flat @ flat.T).astype(np.float32))
    wanted = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=-1), wanted, atol=1e-3)
    assert held == pytest.approx(1.0, abs=1e-3)


def test_scaling_of_unrelated_and_of_missing():
    points, held = scale(np.full((4, 4), np.nan, np.float32))
    assert np.isfinite(points).all()
    assert held == pytest.approx(2 / 3)
    same, held = scale(np.ones((3, 3), np.float32))
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_the_map_is_the_same_every_time_and_puts_guests_last():
    zoo, packed = packed_zoo()
    guests = [Guest("mine", zoo[2][1]), Guest("elsewhere", random_signature(1, sites=["encoder.layer.7.attention.self.key"]))]
    drawn = map_zoo(packed, guests)
    assert drawn == map_zoo(packed, guests)
    assert [place.name for place in drawn.places if place.guest] == ["mine"]
    assert len(drawn.places) == 9
    at = {place.name: (place.x, place.y) for place in drawn.places}
    assert at["mine"] == pytest.approx(at["org/2"], abs=0.05)


def test_too_few_points_make_no_map():
    assert map_zoo(packed_zoo(2)[1]) is None
    assert map_zoo(packed_zoo(3)[1]) is not None


def test_of_a_large_zoo_the_nearest_are_drawn():
    zoo, packed = packed_zoo(MOST + 40, sites=MODULES[:1], rank=1)
    drawn = map_zoo(packed, [Guest("mine", zoo[17][1])])
    names = [place.name for place in drawn.places]
    assert "org/17" in names
    assert len(names) <= MOST + 1
    assert drawn.sources == MOST + 40
    assert len(map_zoo(packed).places) <= MOST
