"""Prompts and prefixes, ranked as a packed zoo: by their means, whatever the order of the tokens."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints.peft_prompts import read_prefix, read_prompt
from hubrank.ranking.rank import rank_sources
from hubrank.ranking.rivals.embeddings import prompt_tokens
from hubrank.ranking.standardise import standardise, without_own_pairs
from hubrank.signatures.canonical import sign_adapter
from hubrank.zoo.packed import pack
from tests.ranking.builders import BASE, source

D, TOKENS, LAYERS = 32, 6, 2


@pytest.fixture
def random():
    return np.random.default_rng(0)


def prompt(tokens):
    config = {"num_virtual_tokens": len(tokens), "token_dim": tokens.shape[1], "num_transformer_submodules": 1}
    return sign_adapter(read_prompt(config, {"prompt_embeddings": tokens.astype(np.float32)}, BASE))


def prefix(tokens):
    config = {"num_virtual_tokens": len(tokens), "token_dim": D, "num_layers": LAYERS, "num_attention_heads": 2}
    return sign_adapter(read_prefix(config, {"prompt_embeddings": tokens.astype(np.float32)}, BASE))


def packed_of(method, signatures):
    return pack(BASE, method, 1, [(source(f"org/a{i:02}", method=method), one) for i, one in enumerate(signatures)])


def some_tokens(random, n, width=D):
    """Adapters of one corner of the space, as prompts of one base are: a mean that all share, one of their own, and noise."""
    common = 0.5 * random.normal(size=width)
    return [common + 0.5 * random.normal(size=width) + random.normal(size=(TOKENS, width)) for _ in range(n)]


def names(ranked):
    return [row.source.repo for row in ranked.rows]


@pytest.mark.parametrize(("method", "sign", "width"), [("prompt", prompt, D), ("prefix", prefix, 2 * LAYERS * D)])
def test_the_same_tokens_in_another_order_are_first(random, method, sign, width):
    zoo = some_tokens(random, 12, width)
    packed = packed_of(method, [sign(tokens) for tokens in zoo])
    ranked = rank_sources(packed, sign(zoo[7][random.permutation(TOKENS)]))
    assert ranked.compared == 12
    first = ranked.rows[0]
    assert (first.source.repo, first.coverage) == ("org/a07", 1.0)
    assert first.similarity == pytest.approx(1.0, abs=0.01)
    assert first.layers == pytest.approx([1.0] * (1 if method == "prompt" else LAYERS), abs=0.01)
    assert [row.score for row in ranked.rows] == sorted((row.score for row in ranked.rows), reverse=True)
    assert ranked.energy == pytest.approx(1.0, abs=0.01)
    assert ranked.verdict.relevant


def test_prompts_are_ranked_by_all_pairs_of_their_tokens_standardised(random):
    """Whatever the lengths of tokens; the target's own say, how much its tokens agree, lies within the zoo's here."""
    zoo = [tokens * random.uniform(0.1, 10, size=(TOKENS, 1)) for tokens in some_tokens(random, 12)]
    target = some_tokens(np.random.default_rng(0), 1)[0] + 0.5 * random.normal(size=D)
    pairs = np.array([prompt_tokens(target=one, sources=np.stack([*zoo, target])) for one in [*zoo, target]])
    means = np.sqrt(np.diag(pairs))
    assert np.quantile(means[:-1], 0.1) < means[-1] < np.quantile(means[:-1], 0.9)
    expected = standardise(pairs[-1, :-1], without_own_pairs(pairs[:-1, :-1]))
    ranked = rank_sources(packed_of("prompt", [prompt(tokens) for tokens in zoo]), prompt(target))
    by_cosine = rank_sources(packed_of("prompt", [prompt(tokens) for tokens in zoo]), prompt(target), estimator="compute-std")
    for row in ranked.rows:
        i = int(row.source.repo[-2:])
        assert row.value == pytest.approx(expected[i], abs=0.1)
        assert row.similarity == pytest.approx(pairs[-1, i] / (means[-1] * means[i]), abs=0.01)
    assert names(ranked) != names(by_cosine)


def test_a_prefix_is_compared_by_its_means_and_its_product(random):
    packed = packed_of("prefix", [prefix(tokens) for tokens in some_tokens(random, 8, 2 * LAYERS * D)])
    assert [str(site) for site in packed.sites] == [
        f"{layer}.prefix.{part}" for layer in range(LAYERS) for part in ("key.shift", "product", "value.shift")
    ]


def test_the_energy_of_a_stranger_is_that_of_its_mean(random):
    """What a prompt reads is one constant, which every zoo holds; that must not pass for a half of the target."""
    zoo, target = some_tokens(random, 8), np.zeros((TOKENS, D))
    for tokens in zoo:
        tokens[:, 16:] = 0
    target[:, 16:] = random.normal(size=(TOKENS, 16))
    ranked = rank_sources(packed_of("prompt", [prompt(tokens) for tokens in zoo]), prompt(target))
    assert ranked.energy == pytest.approx(0.0, abs=1e-6)
    assert not ranked.verdict.relevant
    assert {row.similarity for row in ranked.rows} == {0.0}


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_small_zoo_is_ranked_by_the_cosines(random, n):
    zoo = some_tokens(random, n)
    ranked = rank_sources(packed_of("prompt", [prompt(tokens) for tokens in zoo]), prompt(zoo[-1]))
    similarities = [row.similarity for row in ranked.rows]
    assert similarities == sorted(similarities, reverse=True)
    assert ranked.rows[0].source.repo == f"org/a{n - 1:02}"
    assert [row.score for row in ranked.rows] == [None] * n
