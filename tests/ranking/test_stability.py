"""Rank-biased overlap, and the rule that stops a run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.stability import AGREEMENT, LEAST_STEPS, WINDOW, Settling, rbo

ITEMS = st.permutations(list(range(12)))


def defined(first, second, p):
    """Equation 23 of the paper, term by term."""
    depth = min(len(first), len(second))
    agreement = [len(set(first[:d]) & set(second[:d])) / d for d in range(1, depth + 1)]
    return (1 - p) * sum(p ** (d - 1) * a for d, a in enumerate(agreement, 1)) + agreement[-1] * p**depth


@given(first=ITEMS, second=ITEMS, cut=st.integers(1, 12), p=st.floats(0.01, 0.99))
def test_it_is_what_the_paper_defines(first, second, cut, p):
    assert rbo(first[:cut], second, p=p) == pytest.approx(defined(first[:cut], second, p))


@given(first=ITEMS, second=ITEMS, p=st.floats(0, 0.99))
def test_symmetric_and_from_0_to_1(first, second, p):
    value = rbo(first, second, p=p)
    assert -1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(rbo(second, first, p=p))


@given(items=ITEMS, p=st.floats(0, 0.99))
def test_equal_and_disjoint_lists(items, p):
    assert rbo(items, items, p=p) == pytest.approx(1.0)
    assert rbo(items, [item + 100 for item in items], p=p) == 0.0


def test_a_swap_at_the_top_costs_more_than_one_below():
    items = list(range(10))
    swapped = [[*items[:i], items[i + 1], items[i], *items[i + 2 :]] for i in range(9)]
    values = [rbo(items, other) for other in swapped]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.8)  # the first place alone differs, and weighs 1 - p
    assert values[8] > 0.98


def test_edges():
    assert rbo([], []) == 1.0
    assert rbo([], [1]) == 0.0
    assert (rbo([1, 2], [1, 3], p=0), rbo([2, 1], [1, 2], p=0)) == (1.0, 0.0)
    for p in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="persistence"):
            rbo([1], [1], p=p)


def stops(orders, every=5, **rule):
    """The step at which a run of these snapshots stops; None if it does not."""
    settling = Settling(**rule)
    return next((i * every for i, order in enumerate(orders, 1) if settling.add(i * every, order)), None)


def test_a_list_that_stands_is_stopped_at_the_first_moment_allowed():
    still = list("abcdefgh")
    assert stops([still] * 20) == max(LEAST_STEPS, 5 * (WINDOW + 1))
    assert stops([still] * 20, least_steps=60) == 60
    assert stops([still] * WINDOW) is None


def test_it_waits_for_the_top_not_for_the_tail():
    top, tail = list("abcde"), [str(i) for i in range(30)]
    turning = [top + tail[i:] + tail[:i] for i in range(20)]
    assert stops(turning) == 25
    restless = [top[i % 5 :] + top[: i % 5] + tail for i in range(20)]
    assert stops(restless) is None


def test_a_slow_drift_is_no_rest():
    """Every snapshot agrees with the one before, but not with the fourth before."""
    items = list(range(40))
    drifting = []
    for i in range(20):
        order = items[:]
        order.insert(max(0, 19 - i), order.pop(39))
        order[0], order[1] = (order[1], order[0]) if i % 8 > 3 else (order[0], order[1])
        drifting.append(order)
    first, second = rbo(drifting[0], drifting[1]), rbo(drifting[3], drifting[4])
    assert first >= AGREEMENT > second
    assert stops(drifting, every=5) == 45 or stops(drifting) is None


def test_the_overlap_of_the_last_two():
    settling = Settling()
    assert settling.overlap is None
    settling.add(5, [1, 2, 3])
    assert settling.overlap is None
    settling.add(10, [2, 1, 3])
    assert settling.overlap == pytest.approx(rbo([1, 2, 3], [2, 1, 3]))
