"""Standardising per source: what it undoes, what it keeps, and what it says where there is nothing to measure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.standardise import standardise, without_own_pairs

_cosines = st.integers(-1000, 1000).map(lambda n: n / 1000)


@st.composite
def zoos(draw, *, least=3, gaps=False):
    """(target [n], zoo [n, n] without own pairs), some pairs missing if asked for."""
    n = draw(st.integers(least, 12))
    rows = st.lists(_cosines, min_size=n, max_size=n)
    target = np.array(draw(rows))
    zoo = without_own_pairs(np.array([draw(rows) for _ in range(n)]))
    if gaps:
        holes = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for _ in range(n)]
        zoo[np.array(holes)] = np.nan
    return target, zoo


def by_double_loop(target, zoo):
    """The definition, word for word."""
    out = []
    for j in range(len(target)):
        others = [zoo[i, j] for i in range(len(zoo)) if not np.isnan(zoo[i, j])]
        if len(others) < 2:
            out.append(np.nan)
            continue
        mean = sum(others) / len(others)
        deviation = (sum((value - mean) ** 2 for value in others) / len(others)) ** 0.5
        out.append((target[j] - mean) / deviation if deviation > 1e-6 * max(map(abs, others)) else np.nan)
    return np.array(out)


@given(zoo=zoos(gaps=True))
def test_it_is_what_the_definition_says(zoo):
    np.testing.assert_allclose(standardise(*zoo), by_double_loop(*zoo), rtol=1e-9, atol=1e-9)


@given(zoo=zoos(), data=st.data())
def test_a_source_that_is_nearer_to_all_gains_nothing(zoo, data):
    """Whatever stretch and offset each source's similarities have, its values stay."""
    target, pairs = zoo
    n = len(target)
    scale = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=n, max_size=n)))
    offset = np.array(data.draw(st.lists(st.floats(-2, 2), min_size=n, max_size=n)))
    before = standardise(target, pairs)
    after = standardise(scale * target + offset, scale * pairs + offset)
    # Equal numbers may differ by rounding after the map, which must not be taken for a spread.
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


@given(zoo=zoos(gaps=True), seed=st.integers(0, 1000))
def test_the_order_of_the_sources_does_not_matter(zoo, seed):
    target, pairs = zoo
    random = np.random.default_rng(seed)
    order = random.permutation(len(target))
    expected = standardise(target, pairs)[order]
    np.testing.assert_allclose(standardise(target[order], pairs[np.ix_(order, order)]), expected, atol=1e-9)
    rows = random.permutation(len(target))
    np.testing.assert_allclose(standardise(target[order], pairs[np.ix_(rows, order)]), expected, atol=1e-9)


@given(zoo=zoos())
def test_a_row_of_nothing_changes_nothing(zoo):
    target, pairs = zoo
    more = np.concatenate([pairs, np.full((1, len(target)), np.nan)])
    np.testing.assert_array_equal(standardise(target, more), standardise(target, pairs))


def test_by_hand():
    zoo = np.array([[np.nan, 0.9], [0.1, np.nan], [0.3, 0.5]])
    assert standardise(np.array([0.4, 0.9]), zoo) == pytest.approx([2.0, 1.0])


def test_a_hub_is_not_first():
    """Source 0 is near everything; source 2 is nearer to the target than to the others."""
    zoo = without_own_pairs(np.array([[1, 0.1, 0.2, 0.0], [0.8, 1, 0.1, 0.1], [0.9, 0.2, 1, 0.2], [0.7, 0, 0, 1]]))
    target = np.array([0.8, 0.1, 0.6, 0.1])
    assert target.argmax() == 0
    assert standardise(target, zoo).argmax() == 2


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_zoo_too_small_to_measure_gives_nothing(n):
    assert np.isnan(standardise(np.full(n, 0.5), without_own_pairs(np.full((n, n), 0.3)))).all()


@pytest.mark.parametrize("value", [0.0, 0.3, -1.0, 1e-30])
def test_no_spread_gives_nothing(value):
    zoo = without_own_pairs(np.full((9, 9), value, np.float32))
    assert np.isnan(standardise(np.linspace(0, 1, 9), zoo)).all()


def test_only_the_source_that_cannot_be_measured_has_no_value():
    zoo = without_own_pairs(np.random.default_rng(0).random((6, 6)))
    zoo[1:, 2] = np.nan
    zoo[:, 4] = 0.25
    target = np.full(6, 0.5)
    target[5] = np.nan
    assert np.isnan(standardise(target, zoo)).tolist() == [False, False, True, False, True, True]


def test_a_source_needs_as_many_pairs_as_are_asked_for():
    zoo = without_own_pairs(np.random.default_rng(0).random((5, 5)))
    assert np.isfinite(standardise(np.ones(5), zoo, least=4)).all()
    assert np.isnan(standardise(np.ones(5), zoo, least=5)).all()
    one = zoo[:2, 2:]
    assert np.isnan(standardise(np.ones(3), one[:1], least=0)).all()  # one value has no spread, whoever asks


def test_the_zoo_stays_as_it_was():
    zoo = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    kept = zoo.copy()
    standardise(zoo[0], without_own_pairs(zoo))
    assert np.array_equal(zoo, kept)
    assert without_own_pairs(zoo).dtype == np.float32
