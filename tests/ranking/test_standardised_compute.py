"""The estimator of prompts and prefixes: a source's own level has no say, and it always has an answer."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.estimators import DEFAULT, DEFAULTS, ESTIMATORS, default_estimator, wanted
from hubrank.ranking.estimators.standardised_compute import ENOUGH_PAIRS, standardised_compute
from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.standardise import standardise, without_own_pairs

_cosines = st.integers(-1000, 1000).map(lambda n: n / 1000)


def zoo_of(n, seed=0):
    random = np.random.default_rng(seed)
    return random.random(n), without_own_pairs(random.random((n, n)))


@pytest.mark.parametrize("n", [ENOUGH_PAIRS + 1, 20])
def test_it_is_the_compute_view_standardised(n):
    compute, zoo = zoo_of(n)
    assert np.array_equal(standardised_compute(compute=compute, zoo=zoo), standardise(compute, zoo))


@given(seed=st.integers(0, 1000), source=st.integers(0, 7), offset=st.floats(-1, 1))
def test_a_source_that_is_nearer_to_all_gains_nothing(seed, source, offset):
    compute, zoo = zoo_of(8, seed)
    before = standardised_compute(compute=compute, zoo=zoo)
    compute[source] += offset
    zoo[:, source] += offset
    assert np.allclose(standardised_compute(compute=compute, zoo=zoo), before, atol=1e-6)


@pytest.mark.parametrize("n", range(1, ENOUGH_PAIRS + 1))
def test_a_small_zoo_is_ordered_by_the_cosines(n):
    compute, zoo = zoo_of(n)
    values = standardised_compute(compute=compute, zoo=zoo)
    assert np.array_equal(values, z_scores(compute))
    assert np.array_equal(np.argsort(values), np.argsort(compute))


def test_a_source_whose_usual_is_unknown_is_as_near_as_usual():
    compute, zoo = zoo_of(9)
    zoo[3:, 4] = np.nan
    values = standardised_compute(compute=compute, zoo=zoo)
    assert values[4] == 0
    assert np.count_nonzero(values) == 8


@given(
    rows=st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.one_of(_cosines, st.just(float("nan"))), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_the_values_are_finite(rows):
    zoo = np.array(rows)
    assert np.isfinite(standardised_compute(compute=np.linspace(-1, 1, len(zoo)), zoo=zoo)).all()


# The table of estimators.


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_takes_known_arrays_by_keyword(name):
    assert set(wanted(ESTIMATORS[name])) <= {
        *("compute", "read", "write", "zoo", "strength", "evidence", "trust", "usual_read", "usual_write")
    }
    parameters = inspect.signature(ESTIMATORS[name]).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_each_method_has_its_own_default():
    assert set(DEFAULTS.values()) <= set(ESTIMATORS)
    assert default_estimator("lora") == "four-views"
    assert default_estimator("bottleneck") == "read-write"
    assert DEFAULT == "three-views"
    assert (default_estimator("prompt"), default_estimator("prefix")) == ("tokens-std", "compute-std")
    assert default_estimator("a method without figures") == DEFAULT
