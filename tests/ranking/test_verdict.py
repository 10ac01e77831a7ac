"""The verdict: how far the nearest source stands out, in the zoo's own measure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.background import ENOUGH, Mutual, compare_sources
from hubrank.ranking.verdict import BAR, judge, prominence, usual_prominence, verdict_view
from tests.ranking.builders import families, packed_of


@pytest.mark.parametrize(("stands_out", "relevant"), [(0.5, True), (0.2, True), (0.19, False), (0.0, False), (-0.1, False)])
def test_the_bar(stands_out, relevant):
    verdict = judge(0.3, stands_out, 0.5, 0.25)
    assert verdict.relevant is relevant
    assert verdict.prominence == pytest.approx(stands_out / 0.5)
    assert f"by {stands_out / 0.5:.0%} of what sources of this zoo do among themselves" in verdict.why
    assert f"{'over' if relevant else 'under'} the bar of {BAR:.0%}" in verdict.why
    assert "hold 25% of the target" in verdict.why


def test_without_a_measure_nothing_is_refused():
    verdict = judge(0.0, 0.0, None, 0.0)
    assert verdict.relevant
    assert verdict.prominence is None
    assert "too small" in verdict.why


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.floats(-1, 1, width=32))
def test_prominence_forgets_what_all_have_in_common(cosines, shift):
    array = np.array(cosines, np.float32)
    assert prominence(array) >= 0
    assert prominence(array + np.float32(shift)) == pytest.approx(prominence(array), abs=1e-5)


def test_what_is_usual_is_the_median_over_sources():
    cosines = np.full((3, ENOUGH), 0.1, np.float32)
    cosines[:, 0] = (0.3, 0.5, 0.9)
    cosines[0, 1] = np.nan
    mutual = Mutual(np.arange(3), {"read": cosines})
    assert usual_prominence(mutual, "read") == pytest.approx(0.4)


def test_no_usual_for_a_zoo_too_small_or_all_alike():
    small = Mutual(np.arange(2), {"read": np.full((2, ENOUGH - 2), 0.5, np.float32)})
    assert usual_prominence(small, "read") is None
    alike = Mutual(np.arange(2), {"read": np.full((2, ENOUGH), 1.0, np.float32)})
    assert usual_prominence(alike, "read") is None


def test_families_stand_out():
    mutual = compare_sources(packed_of(families(np.random.default_rng(0))))
    assert usual_prominence(mutual, "read") > 0.1


def test_the_view_that_names_the_task_where_the_estimator_has_it():
    assert verdict_view(("compute", "read", "write")) == "read"
    assert verdict_view(("compute", "zoo")) == "compute"
