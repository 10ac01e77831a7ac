"""The blend is the formula that its docstring states."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.ranking.blend import LOGME_WEIGHT, blended


def test_it_is_a_sum_of_z_scores():
    values, logmes = np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.4, 0.1])
    expected = (values - 2) / values.std() + 0.5 * (logmes - 0.2) / logmes.std()
    assert blended(values, logmes, weight=0.5) == pytest.approx(expected)
    assert blended(values, logmes) == pytest.approx(blended(values, logmes, weight=LOGME_WEIGHT))


def test_neither_scale_nor_origin_counts():
    values, logmes = [3.0, 1.0, 2.0], [0.1, 0.4, 0.1]
    moved = blended([1e4 * v + 7 for v in values], [0.01 * x - 3 for x in logmes])
    assert moved == pytest.approx(blended(values, logmes))


@pytest.mark.parametrize("equal", [[0.0, 0.0], [0.1 + 0.2, 0.3], [-1e9, -1e9]])
def test_a_side_on_which_all_are_equal_counts_for_nothing(equal):
    assert blended([1.0, 2.0], equal) == pytest.approx([-1.0, 1.0])


def test_one_and_none():
    assert blended([4.0], [2.0]).tolist() == [0.0]
    assert blended([], []).tolist() == []
