"""Only the largest directions are made of large updates: the signature is that of the whole, and little memory buys it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints import leading
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.leading import KEPT, Leading, Room, by_gram, kronecker, of_product
from hubrank.checkpoints.peft_products import read_loha, read_lokr
from hubrank.errors import AdapterError
from hubrank.signatures.canonical import MAX_RANK, sign_adapter
from hubrank.zoo.admission import _MAX_RANK

QUERY = "base_model.model.encoder.layer.{}.attention.self.query"
SIDES = st.integers(1, 7)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def whole(part: Leading) -> np.ndarray:
    return (part.u * part.values[: part.u.shape[1]]) @ part.v.T


def assert_same_signature(one, other):
    """Up to the signs of pairs of directions."""
    for a, b in zip(sign_adapter(one).factors, sign_adapter(other).factors, strict=True):
        assert a.site == b.site
        np.testing.assert_allclose(a.spectrum, b.spectrum, rtol=1e-4)
        np.testing.assert_allclose((a.u * a.s) @ a.v.T, (b.u * b.s) @ b.v.T, atol=1e-4 * a.s[0])


def test_no_signature_keeps_more_than_is_made():
    assert KEPT == MAX_RANK


@given(SIDES, SIDES, SIDES, st.integers(0, 9))
def test_a_product_is_what_its_directions_make(d_out, rank, d_in, seed):
    up, down = random(d_out, rank, seed=seed), random(rank, d_in, seed=seed + 1)
    part = of_product(up, down)
    np.testing.assert_allclose(whole(part), up @ down, atol=1e-4)
    assert (np.diff(part.values) <= 1e-9).all()
    assert of_product(up, down, 1).u.shape == (d_out, 1)
    np.testing.assert_allclose(of_product(up, down, 1).values, part.values)


def test_factors_that_cancel_each_other_keep_their_precision():
    one, other = random(30, 2), random(2, 25, seed=1)
    noise = random(30, 2, seed=2) * 1e4
    up, down = np.hstack([one, noise, -noise]), np.vstack([other, other, other])
    part = of_product(up.astype(np.float64), down.astype(np.float64), 2)
    expected = np.linalg.svd(one.astype(np.float64) @ other, compute_uv=False)[:2]
    np.testing.assert_allclose(part.values[:2], expected, rtol=1e-6)
    np.testing.assert_allclose(whole(part), one @ other, atol=1e-5)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
def test_a_kronecker_product_is_what_its_directions_make(a, b, c, d, seed):
    one, other = random(a, c, seed=seed), random(b, d, seed=seed + 1)
    parts = [by_gram(w.astype(np.float64)[None])[0] for w in (one, other)]
    both = kronecker(*parts, kept=1000)
    np.testing.assert_allclose(whole(both), np.kron(one, other), atol=1e-4)
    best = kronecker(*parts, kept=1)
    expected = np.linalg.svd(np.kron(one, other), compute_uv=False)
    np.testing.assert_allclose(best.values, expected[: len(best.values)], atol=1e-4 * expected[0])
    assert (expected[len(best.values) :] < 1e-4 * expected[0]).all()
    np.testing.assert_allclose(best.u.T @ np.kron(one, other) @ best.v, [[expected[0]]], rtol=1e-4)


def lokr(kind: str, layers: int = 2) -> dict[str, np.ndarray]:
    tensors = {}
    for layer in range(layers):
        name = QUERY.format(layer)
        w1 = {"lokr_w1": random(4, 6, seed=layer)} if kind != "both" else factors("lokr_w1", 4, 3, 6, layer)
        w2 = {"lokr_w2": random(20, 12, seed=layer + 9)} if kind == "whole" else factors("lokr_w2", 20, 3, 12, layer + 9)
        tensors |= {f"{name}.{part}": tensor for part, tensor in {**w1, **w2}.items()}
    return tensors


def factors(name: str, rows: int, rank: int, columns: int, seed: int) -> dict[str, np.ndarray]:
    return {f"{name}_a": random(rows, rank, seed=seed), f"{name}_b": random(rank, columns, seed=seed + 1)}


@pytest.mark.parametrize("kind", ["whole", "factors", "both"])
@pytest.mark.parametrize("alpha", [6, -6])
def test_a_large_lokr_has_the_signature_of_its_dense_matrices(kind, alpha, monkeypatch):
    config = {"r": 3, "alpha": alpha}
    exact = read_lokr(config, lokr(kind), "b")
    monkeypatch.setattr("hubrank.checkpoints.peft_products.WHOLE", 0)
    parts = read_lokr(config, lokr(kind), "b")
    assert_same_signature(exact, parts)
    assert [delta.spectrum is None for delta in (*exact.deltas, *parts.deltas)] == [True, True, False, False]


@pytest.mark.parametrize("rank", [2, 9])
def test_a_large_loha_has_the_signature_of_its_dense_matrices(rank, monkeypatch):
    shapes = {"hada_w1_a": (30, rank), "hada_w1_b": (rank, 20), "hada_w2_a": (30, rank), "hada_w2_b": (rank, 20)}
    tensors = {f"{QUERY.format(0)}.{name}": random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    exact = read_loha({"r": rank}, tensors, "b")
    monkeypatch.setattr("hubrank.checkpoints.peft_products.WHOLE", 0)
    assert_same_signature(exact, read_loha({"r": rank}, tensors, "b"))


def test_what_is_kept_of_each_falls_with_the_number_of_modules():
    assert Room([(64, 64)]).kept == KEPT
    assert Room([(4096, 4096)] * 224).kept == (1 << 23) // (224 * 8192)
    for sides in ([(4096, 4096)] * 3000, [(1 << 24, 1)]):
        with pytest.raises(AdapterError, match="too large"):
            Room(sides)


def test_the_work_is_bounded():
    room = Room([(2048, 2048)])
    for _ in range(leading.MAX_WORK // 2048**3):
        room.work("m", 2048, 2048)
    with pytest.raises(AdapterError, match="would take too long"):
        room.work("m", 2048, 2048)


def test_no_spectrum_is_longer_than_the_store_admits():
    values = np.ones(_MAX_RANK + 1)
    with pytest.raises(AdapterError, match="too large"):
        Leading(np.ones((1, 1)), values, np.ones((1, 1))).delta(site_of("layers.0.query"))
    assert Leading(np.ones((1, 1)), values[1:], np.ones((1, 1))).delta(site_of("layers.0.query")).rank == _MAX_RANK


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_what_overflows_is_refused(value, monkeypatch):
    monkeypatch.setattr("hubrank.checkpoints.peft_products.WHOLE", 0)
    tensors = lokr("whole")
    tensors[f"{QUERY.format(0)}.lokr_w2"][0, 0] = value
    with pytest.raises(AdapterError, match="not finite"):
        read_lokr({"r": 3, "alpha": 99}, tensors, "b")
