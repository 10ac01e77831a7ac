"""One thread inside, as many as before outside, and nothing at all without OpenBLAS."""

from __future__ import annotations

import ctypes

import pytest

from hubrank.signatures import threads


@pytest.fixture(autouse=True)
def _fresh():
    found = threads._controls  # which a test may replace
    found.cache_clear()
    yield
    found.cache_clear()


def test_threads_are_given_back_also_after_an_error(monkeypatch):
    count = [4]
    monkeypatch.setattr(threads, "_controls", lambda: (lambda: count[0], lambda n: count.__setitem__(0, n)))
    with threads.one_thread():
        assert count == [1]
        with threads.one_thread():
            assert count == [1]
        assert count == [1]
    assert count == [4]
    with pytest.raises(KeyError), threads.one_thread():
        raise KeyError
    assert count == [4]


def test_the_real_library_obeys_where_it_is_openblas():
    get, _ = threads._controls()
    before = get()
    with threads.one_thread():
        assert get() == 1
    assert get() == before


class NoOpenBlas:
    """A library without any of the names."""


@pytest.mark.parametrize("fault", [OSError, None])
def test_any_other_library_is_left_alone(monkeypatch, fault):
    def load(path):
        if fault is not None:
            raise fault
        return NoOpenBlas()

    monkeypatch.setattr(ctypes, "CDLL", load)
    with threads.one_thread():
        assert threads._controls()[0]() == 1
