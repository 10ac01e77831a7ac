"""Vectors of tasks and priors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.rivals.embeddings import delta_activations, flattened, prompt_tokens, task_embedding, text_embedding
from hubrank.ranking.rivals.priors import complex_reasoning, data_size, random_order, source_prior


@pytest.mark.parametrize("cosine", [flattened, text_embedding, delta_activations])
def test_cosines_by_hand(cosine):
    sources = [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert cosine(target=[5.0, 0.0], sources=sources) == pytest.approx([1, 0, -1, 2**-0.5, 0])


@given(seed=st.integers(0, 100))
def test_the_flattened_cosine_changes_with_the_init_of_the_same_update(seed):
    """Why the paper's own measure cannot rank adapters off the shelf: (A, B) and (M A, B M^-1) are one adapter."""
    random = np.random.default_rng(seed)
    a, b, m = random.normal(size=(2, 8)), random.normal(size=(8, 2)), np.linalg.qr(random.normal(size=(2, 2)))[0]
    one, other = np.concatenate([a.ravel(), b.ravel()]), np.concatenate([(m @ a).ravel(), (b @ m.T).ravel()])
    assert np.allclose(b @ a, (b @ m.T) @ (m @ a))
    assert flattened(target=one, sources=[other])[0] < 1 - 1e-6


def test_prompt_tokens_are_the_mean_of_all_pairs():
    random = np.random.default_rng(0)
    target, sources = random.normal(size=(3, 5)), random.normal(size=(4, 3, 5))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    slow = [np.mean([cosine(a, b) for a in target for b in source]) for source in sources]
    assert prompt_tokens(target=target, sources=sources) == pytest.approx(slow)


def test_task_embedding_is_task2vecs_similarity():
    target, sources = np.array([1.0, 0.0, 2.0]), np.array([[1.0, 0.0, 2.0], [0.0, 5.0, 0.0], [2.0, 1.0, 2.0]])
    values = task_embedding(target=target, sources=sources)
    assert values[0] == pytest.approx(1)
    assert values[1] == pytest.approx(0)
    a, b = target / (target + sources[2]), sources[2] / (target + sources[2])
    assert values[2] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_prior_is_what_a_source_did_for_others():
    others = np.array([[0.5, 0.6, 0.7], [0.1, np.nan, 0.3]])
    values = source_prior(others=others)
    assert values.argmax() == 2
    assert values.argmin() == 0
    assert source_prior(others=np.full((2, 3), 0.4)).tolist() == [0, 0, 0]
    assert np.isfinite(source_prior(others=np.full((2, 3), np.nan))).all()


def test_the_other_priors():
    assert data_size(rows=[10, 300, 20]).argmax() == 1
    assert complex_reasoning(families=["NLI", "sentiment"]).tolist() == [1, 0]
    assert sorted(random_order(n=5, seed=1)) == [0, 1, 2, 3, 4]
