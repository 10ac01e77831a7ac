"""What the families share: keys, scales, limits, and the finished adapter."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hubrank.checkpoints import peft_modules, peft_products
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, deadline, scale_of, vector_delta
from hubrank.checkpoints.peft_products import read_loha
from hubrank.errors import AdapterError

ONE = np.ones(2, np.float32)


def test_keys_with_and_without_the_adapter_s_name():
    plain, own = Grammar.of("ia3_l"), Grammar.of("oft_R.weight")
    assert plain.wanted(["a.b.ia3_l", "a.b.ia3_l.default", "a.b.ia3_l.weight", "ia3_l", "a.ia3_l2"]) == [
        "a.b.ia3_l",
        "a.b.ia3_l.default",
    ]
    assert own.wanted(["a.oft_R.weight", "a.oft_R.default.weight", "a.oft_R"]) == ["a.oft_R.weight", "a.oft_R.default.weight"]
    assert plain.wanted(["a.modules_to_save.default.ia3_l", "a.original_module.ia3_l"]) == []


def test_modules_come_in_the_order_of_their_sites():
    modules = Grammar.of("x").modules({f"base_model.model.layers.{i}.q.x": ONE for i in (10, 2, 0)})
    assert list(modules) == ["layers.0.q", "layers.2.q", "layers.10.q"]


def test_a_long_name_is_no_trap():
    started = time.thread_time()
    grammar = Grammar.of("lora_[AB].weight", "lora_magnitude_vector", "lora_magnitude_vector.weight")
    assert grammar.wanted(["a." * 200_000, "a.lora_A." * 100_000, "a.lora_magnitude_vector." + "b" * 1_000_000 + "."]) == []
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("config", "alpha", "scale"),
    [
        ({"r": 4, "lora_alpha": 6}, "lora_alpha", 1.5),
        ({"r": 4, "lora_alpha": 6, "use_rslora": True}, "lora_alpha", 3),
        ({"r": 4, "alpha": 6, "use_rslora": True}, "alpha", 1.5),  # a field that LoHa does not have
        ({"r": 8, "rank_pattern": {"q": 4}, "alpha_pattern": {"q": 2}}, "alpha", 0.5),
        ({"r": 4}, "alpha", 2),
    ],
)
def test_the_scale(config, alpha, scale):
    assert scale_of(config, "layers.0.q", 4, deadline(), alpha=alpha) == pytest.approx(scale)


def test_the_limit_counts_all_modules_of_an_adapter(monkeypatch):
    monkeypatch.setattr(peft_modules, "MAX_ENTRIES", 3 * 64)  # two dense ones and the identity they share
    budget = Budget()
    budget.take(2 * 64, "layers.0.q")
    (_, one), (_, two) = (budget.factors(np.ones((8, 8), np.float32), f"layers.{i}.q") for i in range(2))
    assert one is two
    with pytest.raises(AdapterError, match=r"layers.2.q.*exceed") as caught:
        budget.take(1, "layers.2.q")
    assert caught.value.reason == "too large"


def test_many_small_dense_modules_stay_exact_and_more_are_taken_apart(monkeypatch):
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    shapes = ((8, 4), (4, 8), (8, 4), (4, 8))
    random = np.random.default_rng(0)
    tensors = {
        f"layers.{i}.q.{name}": random.standard_normal(shape).astype(np.float32)
        for i in range(3)
        for name, shape in zip(names, shapes, strict=True)
    }
    exact = read_loha({"r": 4}, tensors, "b").deltas
    assert all(delta.spectrum is None for delta in exact)
    assert len({id(delta.down) for delta in exact}) == 1
    monkeypatch.setattr(peft_products, "WHOLE", 3 * 64 - 1)
    for delta, whole in zip(read_loha({"r": 4}, tensors, "b").deltas, exact, strict=True):
        singular = np.linalg.svd(whole.up @ whole.down, compute_uv=False)
        assert np.allclose(delta.spectrum[: len(singular)], singular, rtol=1e-4, atol=1e-4 * singular[0])


def test_dense_factors_are_exact_on_either_side():
    budget = Budget()
    for shape in ((3, 5), (5, 3), (4, 4)):
        dense = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
        up, down = budget.factors(dense, "m")
        assert np.array_equal(up @ down, dense)
        assert up.shape[1] == min(shape)


def test_an_adapter_is_checked_as_a_whole():
    with pytest.raises(AdapterError, match="no weights"):
        adapter_of("b", "ia3", [])
    with pytest.raises(AdapterError, match="ambiguous modules"):
        adapter_of("b", "ia3", [vector_delta("bert.encoder.layer.0.q", ONE), vector_delta("encoder.layer.0.q", ONE)])
    with pytest.raises(AdapterError, match="not finite"):
        adapter_of("b", "ia3", [vector_delta("layers.0.q", ONE * np.inf)])
    adapter = adapter_of("b", "ia3", [vector_delta("layers.1.q", ONE), vector_delta("layers.0.q", ONE)])
    assert [delta.site.layer for delta in adapter.deltas] == [0, 1]
