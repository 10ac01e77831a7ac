"""One thread inside, as many as before outside."""

from __future__ import annotations

import numpy as np  # brings the libraries that are told
import pytest

from hubrank.signatures.threads import _controller, one_thread


def counts():
    assert np.linalg
    return [library["num_threads"] for library in _controller().info() if library["user_api"] == "blas"]


def test_threads_are_given_back_also_after_an_error():
    before = counts()
    assert before  # numpy's own, at least
    with one_thread():
        assert set(counts()) == {1}
        with one_thread():
            assert set(counts()) == {1}
        assert set(counts()) == {1}
    assert counts() == before
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert counts() == before


def test_who_is_inside_already_is_told_nothing_again(monkeypatch):
    told = []
    real = type(_controller()).limit
    monkeypatch.setattr(type(_controller()), "limit", lambda *args, **kwargs: told.append(1) or real(*args, **kwargs))
    with one_thread():
        for _ in range(3):
            with one_thread():
                pass
    with one_thread():
        pass
    assert len(told) == 2
