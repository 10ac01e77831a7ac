"""One thread inside, as many as before outside."""

from __future__ import annotations

import pytest

from hubrank.signatures.threads import _controller, one_thread


def counts():
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
