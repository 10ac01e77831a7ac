"""LoHa and LoKr against the real peft: a delta is what merging adds to the weight, however it is factored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.peft_products import read_loha, read_lokr
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import assert_exact, tune

QUERY = "base_model.model.encoder.layer.0.attention.self.query"
COMMON = {
    "alpha": 5,
    "target_modules": ["query", "value", "dense"],
    "rank_pattern": {"query": 3, r"layer\.1\.output\.dense": 1},
    "alpha_pattern": {"value": 7},
}
LOKR = {
    "whole": {"r": 8},
    "w2 in factors": {"r": 2, "decompose_factor": 2},
    "w1 whole, w2 in factors": {"r": 2, "decompose_factor": 4},
    "both in factors": {"r": 1, "decompose_both": True, "decompose_factor": 8, "rank_pattern": {}},
    "defaults": {"r": 3, "decompose_both": True},
    "lycoris": {"r": 2, "init_weights": "lycoris"},
}


@pytest.mark.parametrize("rank", [1, 2, 5, 6, 9])  # low rank up to 5, dense above
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_loha_is_what_merging_adds(rank, kind, tmp_path):
    from peft import LoHaConfig

    config = COMMON if kind == "bert" else {**COMMON, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    tuned = tune(kind, LoHaConfig(r=rank, **config), tmp_path)
    adapter = tuned.read()
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("lora", "loha", ())


@pytest.mark.parametrize("case", LOKR)
def test_lokr_is_what_merging_adds(case, tmp_path):
    from peft import LoKrConfig

    tuned = tune("bert", LoKrConfig(**{**COMMON, **LOKR[case]}), tmp_path)
    adapter = tuned.read()
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant) == ("lora", "lokr")


def tensors_of(**parts):
    return {f"{QUERY}.{name}": np.asarray(value, np.float32) for name, value in parts.items()}


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_other_factors_of_the_same_product_are_the_same_loha(seed, rank):
    rng = np.random.default_rng(seed)
    a1, b1, a2, b2 = (rng.standard_normal(shape) for shape in ((9, rank), (rank, 7), (9, rank), (rank, 7)))
    basis = np.linalg.qr(rng.standard_normal((rank, rank)))[0] * rng.uniform(0.5, 2, rank)

    def product(a1, b1, a2, b2):
        tensors = tensors_of(hada_w1_a=a1, hada_w1_b=b1, hada_w2_a=a2, hada_w2_b=b2)
        (delta,) = read_loha({"r": rank, "alpha": 2}, tensors, "b").deltas
        return delta.up @ delta.down

    one = product(a1, b1, a2, b2)
    np.testing.assert_allclose(product(a1 @ basis, np.linalg.inv(basis) @ b1, a2, b2), one, atol=1e-4)
    np.testing.assert_allclose(product(a2, b2, a1, b1), one, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3))
def test_a_number_moved_between_the_two_is_the_same_lokr(seed, number):
    rng = np.random.default_rng(seed)
    w1, a, b = rng.standard_normal((3, 2)), rng.standard_normal((4, 2)), rng.standard_normal((2, 5))

    def product(**parts):
        (delta,) = read_lokr({"r": 2, "alpha": 2}, tensors_of(**parts), "b").deltas
        return delta.up @ delta.down

    one = product(lokr_w1=w1, lokr_w2_a=a, lokr_w2_b=b)
    np.testing.assert_allclose(product(lokr_w1=w1 * number, lokr_w2_a=a / number, lokr_w2_b=b), one, atol=1e-4)
    np.testing.assert_allclose(product(lokr_w1=w1, lokr_w2=a @ b), one, atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"lokr_w1": (2, 2)}, "incomplete"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (3, 2)}, "incomplete"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (3, 2), "lokr_w2_b": (3, 3)}, "shape mismatch"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (3, 3), "lokr_w2_b": (3, 3)}, "shape mismatch"),
        ({"lokr_w1": (2,), "lokr_w2": (2, 2)}, "shape mismatch"),
        ({"lokr_w1": (2, 2), "lokr_w2": (2, 0)}, "shape mismatch"),
        ({"lokr_w1": (2, 2), "lokr_w2": (2, 2, 3, 3)}, "unsupported variant"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (2, 2), "lokr_w2_b": (2, 2), "lokr_t2": (2, 2, 3, 3)}, "unsupported variant"),
        ({"lokr_w1": (2, 2), "lokr_w2": (2, 2), "lokr_w2_a": (2, 2)}, "several adapters"),
        ({"lokr_w1": (4000, 4000), "lokr_w2": (4000, 4000)}, "too large"),
        ({"lokr_w1": (1 << 20, 1), "lokr_w2": (1 << 20, 1)}, "too large"),
        ({"lokr_w1_a": (1 << 18, 2), "lokr_w1_b": (2, 1 << 18), "lokr_w2": (2, 2)}, None),
        ({"lokr_w1": (5000, 5000), "lokr_w2": (2, 2)}, "too large"),
    ],
)
def test_a_lokr_that_is_wrong_or_too_large(shapes, reason):
    tensors = {f"{QUERY}.{name}": np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes.items()}
    if reason is None:
        assert read_lokr({"r": 2}, tensors, "b").deltas[0].up.shape == (1 << 19, 4)
        return
    with pytest.raises(AdapterError) as caught:
        read_lokr({"r": 2}, tensors, "b")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (((6, 2), (2, 5), (6, 2), (2, 4)), "shape mismatch"),
        (((6, 2), (2, 5), (7, 2), (2, 5)), "shape mismatch"),
        (((6, 3), (3, 5), (6, 3), (3, 5)), "shape mismatch"),  # the config says 2
        (((6, 2), (2, 5), (6, 2), (2, 5, 1)), "shape mismatch"),
        (((1 << 19, 2), (2, 1 << 19), (1 << 19, 2), (2, 1 << 19)), None),
        (((1 << 27, 2), (2, 4), (1 << 27, 2), (2, 4)), "too large"),
    ],
)
def test_a_loha_that_is_wrong_or_too_large(shapes, reason):
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    tensors = {f"{QUERY}.{name}": np.broadcast_to(np.float32(0.5), shape) for name, shape in zip(names, shapes, strict=True)}
    if reason is None:
        assert read_loha({"r": 2}, tensors, "b").deltas[0].down.shape == (4, 1 << 19)
        return
    with pytest.raises(AdapterError) as caught:
        read_loha({"r": 2}, tensors, "b")
    assert caught.value.reason == reason


def test_a_convolution_is_refused_by_name():
    tensors = tensors_of(hada_t1=np.ones((2, 2, 3, 3)), hada_w1_a=np.ones((2, 4)))
    with pytest.raises(AdapterError, match="unsupported variant"):
        read_loha({"r": 2}, tensors, "b")
