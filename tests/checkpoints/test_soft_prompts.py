"""A prompt as a delta: the mean of its unit tokens, whose inner products are SPoT's mean cosines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.soft_prompts import prompt_delta
from hubrank.ranking.rivals.embeddings import prompt_tokens


def tokens_of(seed, count=5):
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


@given(seed=st.integers(0, 1000))
def test_the_inner_product_of_two_is_the_mean_cosine_of_all_pairs_of_tokens(seed):
    one, other = tokens_of(seed), tokens_of(seed + 1)
    cosines = prompt_tokens(target=one, sources=other[None])
    assert prompt_delta("layers.0.prompt", one).shift @ prompt_delta("layers.0.prompt", other).shift == pytest.approx(
        cosines[0], abs=1e-6
    )


@given(seed=st.integers(0, 1000), sizes=st.lists(st.floats(1e-6, 1e6), min_size=5, max_size=5))
def test_long_tokens_have_no_more_say(seed, sizes):
    tokens = tokens_of(seed)
    scaled = tokens * np.array(sizes, np.float32)[:, None]
    np.testing.assert_allclose(
        prompt_delta("layers.0.prompt", scaled).shift, prompt_delta("layers.0.prompt", tokens).shift, atol=1e-6
    )


def test_it_is_as_long_as_the_tokens_agree():
    one = np.tile(tokens_of(0, count=1), (4, 1))
    assert np.linalg.norm(prompt_delta("layers.0.prompt", one).shift) == pytest.approx(1)
    opposite = one * np.array([[1], [-1], [1], [-1]], np.float32)
    assert np.linalg.norm(prompt_delta("layers.0.prompt", opposite).shift) == pytest.approx(0)


def test_a_token_of_zeros_and_the_largest_there_are():
    tokens = np.zeros((3, 8), np.float32)
    tokens[1:, 0] = np.finfo(np.float32).max
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        delta = prompt_delta("layers.0.prompt", tokens)
    assert delta.shift == pytest.approx([2 / 3, *np.zeros(7)])
    assert delta.shift.dtype == np.float32
    assert np.array_equal(delta.up, delta.down.T)
