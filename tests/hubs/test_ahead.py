"""Work before its turn: in order, no further ahead than asked, and over when nobody waits for it."""

from __future__ import annotations

import threading

import pytest

from hubrank.hubs.ahead import ahead


def test_results_come_in_order_whichever_is_done_first():
    second_done = threading.Event()

    def work(n):
        if n == 0:
            assert second_done.wait(10), "the second is not worked on beside the first"
        if n == 1:
            second_done.set()
        return n * n

    assert list(ahead(work, range(9), threads=2)) == [(n, n * n) for n in range(9)]


def test_nothing_is_asked_for_further_ahead_than_there_are_threads():
    asked = []

    def items():
        for n in range(100):
            asked.append(n)
            yield n

    results = ahead(str, items(), threads=3)
    assert asked == []
    assert next(results) == (0, "0")
    assert asked == [0, 1, 2, 3]
    assert next(results) == (1, "1")
    assert asked == [0, 1, 2, 3, 4]


def test_what_is_raised_is_raised_at_its_turn():
    results = ahead(lambda n: 6 // (n - 2), [0, 1, 2, 3], threads=2)
    assert next(results) == (0, -3)
    assert next(results) == (1, -6)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_what_the_items_raise_is_raised_and_the_threads_end():
    def items():
        yield 1
        raise OSError("gone")

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="gone"):
        list(ahead(str, items(), threads=2))
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_whoever_stops_asking_leaves_no_thread_and_no_work_behind():
    before, done, free = set(threading.enumerate()), [], threading.Event()

    def work(n):
        if n:
            free.wait(10)
        done.append(n)
        return n

    results = ahead(work, range(50), threads=1)
    assert next(results) == (0, 0)
    results.close()
    free.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert set(done) <= {0, 1}
