"""The ranking of bottleneck adapters: what is usual for a source is no merit, and the rows count as one view more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.estimators.four_views import known_z_scores
from hubrank.ranking.estimators.read_write import read_write
from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.first_order import Evidence
from hubrank.ranking.rank import compare, measure
from hubrank.signatures.basis import project
from hubrank.signatures.views import BY_POWER, THREE_VIEWS, similarity
from hubrank.zoo.packed import pack, views_of
from tests.ranking.builders import BASE, modules, random_deltas, sign, source

_numbers = st.integers(-1000, 1000).map(lambda n: n / 1000)


@st.composite
def arrays(draw):
    n = draw(st.integers(1, 20))
    names = ("read", "write", "usual_read", "usual_write", "evidence")
    return {name: np.array(draw(st.lists(_numbers, min_size=n, max_size=n)), np.float64) for name in names}


@given(given_arrays=arrays(), trust=st.floats(0, 1))
def test_the_formula(given_arrays, trust):
    a = given_arrays
    expected = z_scores(a["read"] - a["usual_read"]) + z_scores(a["write"] - a["usual_write"])
    expected = expected + trust * known_z_scores(a["evidence"])
    assert np.allclose(read_write(**a, trust=trust), expected)


@given(given_arrays=arrays(), more=st.lists(_numbers, min_size=20, max_size=20))
def test_a_source_that_is_nearer_to_everything_gains_nothing_by_it(given_arrays, more):
    a, hub = given_arrays, np.array(more)[: len(given_arrays["read"])]
    nearer = a | {name: a[name] + hub for name in ("read", "usual_read", "write", "usual_write")}
    assert np.allclose(read_write(**nearer, trust=0.8), read_write(**a, trust=0.8), atol=1e-6)


def packed_bottlenecks(random, count=12):
    zoo = [(source(f"org/a{i:02}", method="bottleneck"), sign(random_deltas(random, modules()))) for i in range(count)]
    return zoo, pack(BASE, "bottleneck", 1, zoo)


def test_bottlenecks_are_compared_by_whole_singular_values():
    random = np.random.default_rng(2)
    zoo, packed = packed_bottlenecks(random)
    target = sign(random_deltas(random, modules()))
    found = packed.cosines(project(target, packed.basis))
    for view in BY_POWER:
        exact = [similarity(target, signature, view) for _, signature in zoo]
        assert found[view.view] == pytest.approx(exact, abs=0.01)
    flat = [similarity(target, signature, THREE_VIEWS[1]) for _, signature in zoo]
    assert np.abs(found["read"] - flat).max() > 0.02
    assert views_of("lora") == THREE_VIEWS


def test_through_the_zoo_with_rows_and_without():
    """What is usual is measured over all sources; the zoo's own scale is that of the estimator."""
    random = np.random.default_rng(3)
    zoo, packed = packed_bottlenecks(random, 20)
    yardstick = measure(packed)
    assert yardstick.name == "read-write"
    assert yardstick.mutual.cosines["read"].shape == (20, 20)
    near = zoo[7][1]
    found = compare(yardstick, near)
    assert found.order()[0] == 7
    informed = compare(replace(yardstick, evidence=Evidence(np.eye(20)[3] * 5, 400, 2)), near)
    added = informed.values - found.values
    assert added.argmax() == 3
    assert added.max() == pytest.approx(400 / 464 * known_z_scores(np.eye(20)[3])[3])
    assert np.isfinite(found.scores).all()


def test_of_a_large_zoo_few_sources_say_what_is_usual(monkeypatch):
    random = np.random.default_rng(6)
    _, packed = packed_bottlenecks(random, 40)
    monkeypatch.setattr("hubrank.ranking.background.AGAINST", 10)
    assert measure(packed).mutual.cosines["read"].shape == (16, 40)
    assert measure(packed, estimator="three-views").mutual.cosines["read"].shape == (10, 10)
    monkeypatch.setattr("hubrank.ranking.background.SAMPLE", 16)
    assert measure(packed).mutual.cosines["read"].shape == (8, 40)
