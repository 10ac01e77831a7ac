"""The estimator: what changes its values, and above all what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.estimators import DEFAULT, ESTIMATORS
from hubrank.ranking.estimators.three_views import three_views, z_scores

_cosines = st.integers(-1000, 1000).map(lambda n: n / 1000)


@st.composite
def similarities(draw, least: int = 1):
    """Cosines of 1 to 30 sources in the three views."""
    n = draw(st.integers(least, 30))
    return {
        view: np.array(draw(st.lists(_cosines, min_size=n, max_size=n)), np.float32) for view in ("compute", "read", "write")
    }


@given(
    views=similarities(),
    view=st.sampled_from(["compute", "read", "write"]),
    scale=st.floats(0.01, 100),
    offset=st.floats(-5, 5),
)
def test_rescaling_a_view_changes_nothing(views, view, scale, offset):
    """The views have ranges of their own (a read cosine is high where a compute cosine is low); none may drown the others."""
    changed = views | {view: scale * views[view].astype(np.float64) + offset}
    assert np.allclose(three_views(**changed), three_views(**views), atol=1e-6)


@given(views=similarities(), view=st.sampled_from(["compute", "read", "write"]))
def test_turning_a_view_round_turns_its_part_round(views, view):
    changed = views | {view: -views[view]}
    assert np.allclose(three_views(**views) - three_views(**changed), 2 * z_scores(views[view]), atol=1e-9)


@given(views=similarities(), seed=st.integers(0, 1000))
def test_the_order_of_the_sources_does_not_matter(views, seed):
    order = np.random.default_rng(seed).permutation(len(views["read"]))
    shuffled = {view: values[order] for view, values in views.items()}
    assert np.allclose(three_views(**shuffled), three_views(**views)[order], atol=1e-9)


@given(views=similarities(least=2))
def test_the_values_are_finite_and_centred(views):
    values = three_views(**views)
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 1e-9


@given(value=_cosines)
def test_one_source_is_worth_zero(value):
    one = np.array([value], np.float32)
    assert three_views(compute=one, read=one, write=one).tolist() == [0.0]


@given(value=_cosines, n=st.integers(1, 50))
def test_equal_sources_are_worth_zero(value, n):
    """Exactly: what rounding leaves of equal values must not be blown up to an order."""
    equal = np.full(n, value, np.float32)
    assert three_views(compute=equal, read=equal, write=equal).tolist() == [0.0] * n


def test_a_view_in_which_all_are_equal_has_no_say():
    read = np.array([0.1, 0.5, 0.2], np.float32)
    flat = np.full(3, 0.3, np.float32)
    assert np.allclose(three_views(compute=flat, read=read, write=flat), z_scores(read))


def test_by_hand():
    values = three_views(compute=np.array([0.0, 1.0]), read=np.array([0.2, 0.4]), write=np.array([0.9, 0.1]))
    assert values == pytest.approx([-1 - 1 + 1, 1 + 1 - 1])


def test_a_source_that_is_better_in_every_view_is_first():
    views = {view: np.array([0.1, 0.3, 0.2, 0.05], np.float32) for view in ("compute", "read", "write")}
    assert three_views(**views).argmax() == 1


def test_the_default_is_the_three_views():
    assert ESTIMATORS[DEFAULT] is three_views
