"""LogME, H-score and the maps, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.ranking.rivals.features import affine_map, h_score, logme, one_hot


def log_evidence(x, y, alpha, beta):
    """log N(y; 0, I / beta + X X^T / alpha), the marginal likelihood that LogME maximises."""
    covariance = np.eye(len(y)) / beta + x @ x.T / alpha
    _, size = np.linalg.slogdet(covariance)
    return -0.5 * (len(y) * np.log(2 * np.pi) + size + y @ np.linalg.solve(covariance, y))


@pytest.mark.parametrize(("n", "d"), [(40, 5), (12, 30)])
def test_logme_is_the_largest_evidence(n, d):
    random = np.random.default_rng(n)
    x = random.normal(size=(n, d))
    y = x[:, 0] + 0.5 * random.normal(size=n)
    grid = np.logspace(-2, 2, 81)
    best = max(log_evidence(x, y, alpha, beta) for alpha in grid for beta in grid)
    assert logme(features=x, labels=y) * n == pytest.approx(best, abs=0.05)


def test_logme_prefers_features_that_tell_the_classes():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    told = one_hot(labels) @ random.normal(size=(3, 8)) + 0.3 * random.normal(size=(90, 8))
    assert logme(features=told, labels=labels) > logme(features=random.normal(size=(90, 8)), labels=labels)
    assert h_score(features=told, labels=labels) > h_score(features=random.normal(size=(90, 8)), labels=labels)


@given(seed=st.integers(0, 50))
def test_neither_depends_on_a_rotation_or_on_the_order_of_rows(seed):
    random = np.random.default_rng(seed)
    x, labels = random.normal(size=(30, 6)), np.arange(30) % 3
    rotation, _ = np.linalg.qr(random.normal(size=(6, 6)))
    order = random.permutation(30)
    for score in (logme, h_score):
        plain = score(features=x, labels=labels)
        assert score(features=x @ rotation, labels=labels) == pytest.approx(plain, rel=1e-6)
        assert score(features=x[order], labels=labels[order]) == pytest.approx(plain, rel=1e-6)


def test_h_score_of_many_rows_is_the_one_of_the_plain_covariance():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 20000)
    x = random.normal(size=(20000, 4)) * [1, 2, 3, 4] + labels[:, None]
    centred = x - x.mean(axis=0)
    means = np.stack([centred[labels == c].mean(axis=0) for c in (0, 1)])[labels]
    plain = np.trace(np.linalg.solve(np.cov(centred.T, bias=True), means.T @ means / len(x)))
    assert h_score(features=x, labels=labels) == pytest.approx(plain, rel=0.02)


def test_numbers_are_scored_too():
    random = np.random.default_rng(2)
    x = random.normal(size=(50, 3)) * [1, 2, 3]
    assert h_score(features=x, labels=x[:, 0]) > h_score(features=x, labels=random.normal(size=50))


def test_constant_features_score_and_do_not_fail():
    labels = np.arange(10) % 2
    assert np.isfinite(logme(features=np.zeros((10, 3)), labels=labels))
    assert np.isfinite(h_score(features=np.zeros((10, 3)), labels=labels))


def test_the_map_finds_an_affine_function():
    random = np.random.default_rng(3)
    before, weight = random.normal(size=(200, 5)), random.normal(size=(5, 4))
    found, offset = affine_map(before=before, after=before @ weight + 2.0, ridge=1e-9)
    assert np.allclose(found, weight, atol=1e-6)
    assert np.allclose(offset, 2.0, atol=1e-6)
