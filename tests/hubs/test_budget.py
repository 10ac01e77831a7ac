"""The request budget, on a clock of its own."""

from __future__ import annotations

import pickle
import threading

from hypothesis import given
from hypothesis import strategies as st

from hubrank.hubs.budget import ANONYMOUS, LONGEST_WAIT, WINDOW, RateBudget, kind_of
from tests.hubs.quick import Clock


def take(budget: RateBudget, clock: Clock, count: int, kind: str = "api") -> int:
    """How many of so many requests go without a wait."""
    return sum(budget.acquire("hub", kind) == 0 for _ in range(count))


def said(remaining: int, reset: int, quota: int = 500, window: int = 300) -> dict[str, str]:
    return {"ratelimit": f'"api";r={remaining};t={reset}', "ratelimit-policy": f'"fixed window";"api";q={quota};w={window}'}


def test_kinds_are_the_hubs_own():
    assert kind_of("https://huggingface.co/api/models?filter=peft") == "api"
    assert kind_of("https://huggingface.co/a/b/resolve/main/x.bin") == "resolvers"
    assert kind_of("https://cdn.example/lfs/x") == "other"


def test_without_a_word_from_the_hub_the_anonymous_limits_hold():
    clock = Clock()
    budget = RateBudget(clock=clock)
    assert take(budget, clock, 600) == ANONYMOUS["api"] == 500
    assert take(budget, clock, 4000, "resolvers") == ANONYMOUS["resolvers"] == 3000
    assert take(budget, clock, 10_000, "other") == 10_000
    assert budget.acquire("other hub", "api") == 0
    assert budget.acquire("hub", "api") == WINDOW
    clock.now += WINDOW
    assert take(budget, clock, 600) == 500


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 200)), max_size=40))
def test_no_window_of_any_five_minutes_holds_more(bursts):
    clock, sent = Clock(), []
    budget = RateBudget({"api": 50}, clock=clock)
    for count, pause in bursts:
        sent += [clock.now] * take(budget, clock, count)
        clock.now += pause
    for start in sent:
        assert sum(start <= moment < start + WINDOW for moment in sent) <= 50


def test_what_the_hub_says_counts():
    clock = Clock()
    budget = RateBudget(clock=clock)
    assert budget.acquire("hub", "api") == 0
    budget.observe("hub", "api", 200, said(3, 60))
    assert take(budget, clock, 10) == 3
    assert budget.acquire("hub", "api") == 60
    clock.now += 61
    assert budget.acquire("hub", "api") == 0
    budget.observe("hub", "api", 200, said(2499, 300, quota=2500))
    assert take(budget, clock, 3000) == 2499


def test_an_answer_that_comes_late_gives_nothing_back():
    clock = Clock()
    budget = RateBudget(clock=clock)
    budget.observe("hub", "api", 200, said(10, 100))
    assert take(budget, clock, 8) == 8
    budget.observe("hub", "api", 200, said(9, 100))  # answered before the other seven were counted
    assert take(budget, clock, 10) == 2
    budget.observe("hub", "api", 200, said(7, 100))
    assert take(budget, clock, 10) == 0


def test_after_a_429_nobody_asks_until_the_hub_wants_it():
    clock = Clock()
    budget = RateBudget(clock=clock)
    budget.observe("hub", "api", 429, {"retry-after": "12"})
    assert budget.acquire("hub", "api") == 12
    assert budget.acquire("hub", "resolvers") == 0
    clock.now += 12
    assert budget.acquire("hub", "api") == 0
    budget.observe("hub", "api", 429, said(0, 30))
    assert budget.acquire("hub", "api") == 30


@given(st.text(max_size=60), st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from([200, 429, 503]))
def test_no_answer_makes_us_wait_longer_than_five_minutes(text, r, t, status):
    clock = Clock()
    budget = RateBudget(clock=clock)
    budget.observe("hub", "api", status, {**said(r, t, quota=r, window=t), "retry-after": str(t)})
    budget.observe("hub", "api", status, {"ratelimit": text, "ratelimit-policy": text, "retry-after": text})
    assert 0 <= budget.acquire("hub", "api") <= LONGEST_WAIT
    clock.now += LONGEST_WAIT + 1
    assert r == 0 or budget.acquire("hub", "api") <= LONGEST_WAIT


def test_threads_share_it():
    budget, granted = RateBudget({"api": 100}, clock=Clock()), []

    def ask() -> None:
        granted.extend(budget.acquire("hub", "api") == 0 for _ in range(40))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 100


def test_hosts_without_number_do_not_fill_the_memory():
    budget = RateBudget(clock=Clock())
    for i in range(5000):
        budget.observe(f"host-{i}", "other", 429, {"retry-after": "300"})
    assert len(budget._windows) < 1100


def test_a_copy_for_another_process_counts_for_itself():
    budget = RateBudget({"api": 1})
    assert budget.acquire("hub", "api") == 0
    copy = pickle.loads(pickle.dumps(budget))
    assert copy.acquire("hub", "api") == 0
    assert copy.acquire("hub", "api") > 0
