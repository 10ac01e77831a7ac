"""DoRA, AdaLoRA, and what else a LoRA file may hold, against the real peft: a delta is what merging adds to the weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.peft_lora import read_adalora, read_lora, wanted_adalora, wanted_tensors
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import assert_exact, tune

QUERY = "base_model.model.encoder.layer.0.attention.self.query"
LINEAR = ["query", "value", "dense"]
DORA = {
    "every linear": ("bert", {"target_modules": LINEAR}),
    "a headed model": ("bert-head", {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "an embedding": ("bert", {"target_modules": ["query", "word_embeddings"]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "rslora": ("bert", {"target_modules": ["query"], "use_rslora": True, "alpha_pattern": {"layer.1.*": 3}}),
    "patterns": ("llama", {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}}),
}
ADALORA = {
    "every linear": ("bert", {"lora_alpha": 10, "target_modules": LINEAR}),
    "conv1d": ("gpt2", {"lora_alpha": 10, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "no alpha": ("bert", {"lora_alpha": 0, "target_modules": ["query"]}),
}


def dora(tmp_path, case="every linear"):
    from peft import LoraConfig

    kind, config = DORA[case]
    return tune(kind, LoraConfig(r=4, lora_alpha=6, use_dora=True, **config), tmp_path, merge=kind != "bert-head")


@pytest.mark.parametrize("case", [name for name, (kind, _) in DORA.items() if kind != "bert-head"])
def test_dora_with_the_base_is_the_exact_change(case, tmp_path):
    tuned = dora(tmp_path, case)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant) == ("lora", "dora")
    assert "exact" in adapter.warnings[0]


@pytest.mark.parametrize("case", DORA)
def test_dora_without_the_base_is_its_low_rank_part_and_its_magnitudes(case, tmp_path):
    tuned = dora(tmp_path, case)
    adapter = tuned.read()
    plain = {name: tensor for name, tensor in tuned.tensors.items() if "magnitude" not in name}
    lora = read_lora({**tuned.config, "use_dora": False}, plain, "b")
    for delta, expected in zip(adapter.deltas, lora.deltas, strict=True):
        assert delta.site == expected.site
        assert np.array_equal(delta.up, expected.up)
        assert np.array_equal(delta.down, expected.down)
    magnitudes = {tensor.tobytes() for name, tensor in tuned.tensors.items() if "magnitude" in name}
    assert {delta.shift.tobytes() for delta in adapter.deltas} == magnitudes
    assert "without the base" in adapter.warnings[0]


def test_dora_needs_all_of_the_base_or_none(tmp_path):
    tuned = dora(tmp_path)
    tuned.base.pop("encoder.layer.1.output.dense.weight")
    assert "without the base" in tuned.read(base=True).warnings[0]


def test_a_headed_model_finds_the_base_s_own_names(tmp_path):
    assert "exact" in dora(tmp_path, "a headed model").read(base=True).warnings[0]


@pytest.mark.parametrize(
    "name", ["lora_magnitude_vector.weight", "lora_magnitude_vector.default", "lora_magnitude_vector.default.weight"]
)
def test_old_keys_of_the_magnitudes(name):
    ones = np.ones((2, 3), np.float32)
    tensors = {f"{QUERY}.lora_A.weight": ones, f"{QUERY}.lora_B.weight": ones.T, f"{QUERY}.{name}": np.ones(3, np.float32)}
    assert wanted_tensors(tensors) == list(tensors)
    assert np.array_equal(read_lora({"r": 2, "use_dora": True}, tensors, "b").deltas[0].shift, np.ones(3))


@pytest.mark.parametrize("magnitude", [np.ones(4), np.ones((3, 3)), np.ones(0), np.float32(1.0)])
def test_magnitudes_that_do_not_fit(magnitude):
    ones = np.ones((2, 3), np.float32)
    tensors = {f"{QUERY}.lora_A.weight": ones, f"{QUERY}.lora_B.weight": ones.T}
    tensors[f"{QUERY}.lora_magnitude_vector"] = np.asarray(magnitude, np.float32)
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_lora({"r": 2, "use_dora": True}, tensors, "b")


def test_magnitudes_and_the_flag_go_together():
    ones = np.ones((2, 3), np.float32)
    tensors = {f"{QUERY}.lora_A.weight": ones, f"{QUERY}.lora_B.weight": ones.T}
    with pytest.raises(AdapterError, match="incomplete"):
        read_lora({"r": 2, "use_dora": True}, tensors, "b")
    with pytest.raises(AdapterError, match="bad config"):
        read_lora({"r": 2}, {**tensors, f"{QUERY}.lora_magnitude_vector": np.ones(3, np.float32)}, "b")


def test_a_base_of_another_shape_or_with_nan(tmp_path):
    tuned = dora(tmp_path, "rslora")
    name = "encoder.layer.0.attention.self.query.weight"
    for weight, reason in (
        (np.ones((32, 31)), "shape mismatch"),
        (np.full((32, 32), np.nan), "not finite"),
        (np.ones(32), "shape"),
    ):
        tuned.base[name] = weight.astype(np.float32)
        with pytest.raises(AdapterError, match=reason):
            tuned.read(base=True)


@pytest.mark.parametrize("targets", [["query", "word_embeddings"], ["word_embeddings", "position_embeddings"]])
def test_an_embedding_is_a_linear_map_of_tokens(targets, tmp_path):
    from peft import LoraConfig

    tuned = tune("bert", LoraConfig(r=4, lora_alpha=6, target_modules=targets, rank_pattern={"word_embeddings": 2}), tmp_path)
    assert_exact(tuned, tuned.read())


def test_the_bias_of_b_is_a_shift(tmp_path):
    from peft import LoraConfig

    tuned = tune("bert", LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=LINEAR), tmp_path)
    adapter = tuned.read()
    assert_exact(tuned, adapter)
    assert all(delta.shift is not None for delta in adapter.deltas)


def test_a_bias_that_does_not_fit():
    ones = np.ones((2, 3), np.float32)
    tensors = {f"{QUERY}.lora_A.weight": ones, f"{QUERY}.lora_B.weight": ones.T, f"{QUERY}.lora_B.bias": np.ones(4, np.float32)}
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_lora({"r": 2}, tensors, "b")


def test_tuned_biases_and_tokens_are_left_out_and_said(tmp_path):
    from peft import LoraConfig

    config = LoraConfig(r=4, bias="lora_only", trainable_token_indices=[1, 2], target_modules=["query"])
    adapter = tune("bert", config, tmp_path, merge=False).read()
    assert len(adapter.deltas) == 2
    assert ["bias=lora_only" in adapter.warnings[0], "trainable_token_indices" in adapter.warnings[1]] == [True, True]


def test_what_is_not_the_adapter_s_is_not_wanted():
    names = [f"{QUERY}.modules_to_save.default.weight", f"{QUERY}.modules_to_save.lora_A.weight", f"{QUERY}.base_layer.weight"]
    names += ["base_model.model.embeddings.word_embeddings.token_adapter.trainable_tokens_delta", f"{QUERY}.lora_E"]
    assert wanted_tensors(names) == []
    assert wanted_adalora(names) == [f"{QUERY}.lora_E"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 3}),
        ("monteclora_config", {}),
        ("kasa_config", {"beta": 1}),
        ("layer_replication", [[0, 4], [2, 6]]),
        ("target_parameters", ["mlp.experts.down_proj"]),
    ],
)
def test_what_changes_the_formula_is_refused_by_name(flag, value):
    ones = np.ones((2, 3), np.float32)
    tensors = {f"{QUERY}.lora_A.weight": ones, f"{QUERY}.lora_B.weight": ones.T}
    if not value:
        assert read_lora({"r": 2, flag: value}, tensors, "b").deltas
        return
    with pytest.raises(AdapterError, match=f"unsupported variant: {flag}"):
        read_lora({"r": 2, flag: value}, tensors, "b")


@pytest.mark.parametrize("case", ADALORA)
def test_adalora_is_what_merging_adds(case, tmp_path):
    from peft import AdaLoraConfig

    kind, config = ADALORA[case]
    tuned = tune(kind, AdaLoraConfig(init_r=6, target_r=3, total_step=100, **config), tmp_path)
    adapter = tuned.read()
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant) == ("lora", "adalora")


def test_adalora_after_its_ranks_were_pruned(tmp_path):
    import torch
    from peft import AdaLoraConfig, get_peft_model
    from safetensors.numpy import load_file

    from tests.checkpoints.peft_models import tiny_model

    model = tiny_model("bert")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    config = AdaLoraConfig(init_r=4, target_r=2, lora_alpha=10, total_step=100, target_modules=["query"])
    tuned = get_peft_model(model, config)
    masks = {0: [True, False, True, True], 1: [False] * 4}
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter))
            if "lora_E" in name:
                parameter[~torch.tensor(masks[int(name.split("layer.")[1][0])])] = 0.0
    names = {i: f"encoder.layer.{i}.attention.self.query.lora_E.default" for i in masks}
    tuned.peft_config["default"].rank_pattern = {names[i]: mask for i, mask in masks.items()}
    with pytest.warns(UserWarning, match="invalid shape"):  # peft's own, of the module that has no rank left
        tuned.save_pretrained(tmp_path, save_embedding_layers=False)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (delta,) = read_adalora(tuned.peft_config["default"].to_dict(), tensors, "b").deltas
    weight = "encoder.layer.0.attention.self.query.weight"
    merged = dict(tuned.merge_and_unload().named_parameters())
    change = (merged[weight] - before[weight]).detach().numpy()
    assert delta.up.shape == (32, 3)
    np.testing.assert_allclose(delta.up @ delta.down, change, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_another_basis_of_the_rank_space_is_the_same_adalora(seed, rank):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rank, 7)), rng.standard_normal((9, rank))
    e = rng.standard_normal((rank, 1)) + 2
    order, sizes = rng.permutation(rank), rng.uniform(0.5, 2, (rank, 1))

    def product(a, b, e):
        parts = {"lora_A": a, "lora_B": b, "lora_E": e}
        tensors = {f"{QUERY}.{name}": value.astype(np.float32) for name, value in parts.items()}
        (delta,) = read_adalora({"init_r": rank}, tensors, "b").deltas
        return delta.up @ delta.down

    np.testing.assert_allclose(product((a * sizes)[order], b[:, order], (e / sizes)[order]), product(a, b, e), atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_another_basis_of_the_rank_space_is_the_same_lora(seed, rank):
    rng = np.random.default_rng(seed)
    a, b, bias = rng.standard_normal((rank, 7)), rng.standard_normal((9, rank)), rng.standard_normal(9)
    basis = np.linalg.qr(rng.standard_normal((rank, rank)))[0] * rng.uniform(0.5, 2, rank)

    def read(a, b):
        parts = {"lora_A.weight": a, "lora_B.weight": b, "lora_B.bias": bias}
        tensors = {f"{QUERY}.{name}": value.astype(np.float32) for name, value in parts.items()}
        return read_lora({"r": rank}, tensors, "b").deltas[0]

    one, other = read(a, b), read(np.linalg.inv(basis) @ a, b @ basis)
    np.testing.assert_allclose(other.up @ other.down, one.up @ one.down, atol=1e-4)
    assert np.array_equal(one.shift, other.shift)


@pytest.mark.parametrize(
    ("config", "rank"), [({"init_r": 3}, 2), ({"init_r": 2}, 3), ({}, 3), ({"init_r": 2, "rank_pattern": {"a": [1]}}, 3)]
)
def test_an_adalora_of_a_rank_that_its_config_contradicts(config, rank):
    shapes = {"lora_A": (rank, 4), "lora_B": (5, rank), "lora_E": (rank, 1)}
    tensors = {f"{QUERY}.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_adalora(config, tensors, "b")
