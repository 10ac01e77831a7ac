"""LoRA against the real peft on tiny random models: a delta is what merging adds to the weight. And what must be refused."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hubrank.checkpoints.peft_lora import read_lora, wanted_tensors
from hubrank.checkpoints.reader import read_adapters
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.signatures.canonical import sign_adapter
from tests.builders import MODULES, lora_tensors

CONFIG = {"r": 2, "lora_alpha": 4}

REGEX = r"encoder\.layer\.[01]\.attention\.self\.query"
CASES = {
    "lora": ("bert", {"r": 4, "lora_alpha": 10, "target_modules": ["query", "value"]}),
    "every linear": ("bert", {"r": 2, "lora_alpha": 2, "target_modules": ["query", "key", "value", "dense"]}),
    "rslora": ("bert", {"r": 4, "lora_alpha": 10, "use_rslora": True, "target_modules": ["query", "value"]}),
    "literal patterns": (
        "bert",
        {
            "r": 4,
            "lora_alpha": 10,
            "target_modules": ["query", "value"],
            "rank_pattern": {"query": 2, "layer.1.attention.self.value": 3},
            "alpha_pattern": {"layer.0.attention.self.query": 32, "value": 5},
        },
    ),
    "regex patterns": (
        "bert",
        {
            "r": 4,
            "lora_alpha": 10,
            "target_modules": ["query", "value"],
            "rank_pattern": {REGEX: 3, r"^encoder\.layer\.0\..*value": 2},  # disjoint: peft saves keys sorted, not in order
            "alpha_pattern": {r"layer\.1\.attention\.self\.(query|value)": 7, "value": 5},
        },
    ),
    "rslora with patterns": (
        "bert",
        {
            "r": 4,
            "lora_alpha": 10,
            "use_rslora": True,
            "target_modules": ["query", "value"],
            "rank_pattern": {"query": 2},
            "alpha_pattern": {"value": 3},
        },
    ),
    "one over the other": ("bert", {"r": 4, "lora_alpha": 0, "target_modules": ["value"]}),
    "conv1d": ("gpt2", {"r": 4, "lora_alpha": 10, "fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj", "c_fc"]}),
}


def tiny_model(kind: str):
    import torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

    torch.manual_seed(0)
    if kind == "bert":
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        model = BertModel(BertConfig(vocab_size=40, max_position_embeddings=16, **shape))
    else:
        model = GPT2Model(GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4))
    model.name_or_path = "org/tiny"
    return model


def tune_and_save(model, folder, **config):
    """Give the model a LoRA with random A and B, and save it as peft does."""
    import torch
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(**config))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    return tuned


def read_folder(folder):
    hub = FolderHub(folder)
    (listing,) = hub.discover(Query())
    return read_adapters(listing, hub.open(listing))[0]


@pytest.mark.parametrize(("kind", "config"), CASES.values(), ids=CASES.keys())
def test_a_delta_is_what_merging_adds_to_the_weight(kind, config, tmp_path):
    model = tiny_model(kind)
    before = {name: module.weight.detach().clone() for name, module in model.named_modules() if hasattr(module, "weight")}
    tuned = tune_and_save(model, tmp_path / "adapter", **config)
    adapter = read_folder(tmp_path / "adapter")
    merged = tuned.merge_and_unload()
    assert adapter.base == "org/tiny"
    layers = "encoder.layer" if kind == "bert" else "h"
    deltas = {f"{layers}.{d.site.layer}.{d.site.module}" if d.site.layer >= 0 else d.site.module: d for d in adapter.deltas}
    for name, weight in before.items():
        change = (merged.get_submodule(name).weight - weight).detach().numpy()
        if kind == "gpt2" and ".c_" in name:
            change = change.T  # Conv1D keeps its weight as [in, out]
        if name not in deltas:
            assert not change.any(), f"{name} changed, and no delta says so"
            continue
        delta = deltas.pop(name)
        assert delta.up.dtype == delta.down.dtype == np.float32
        np.testing.assert_allclose(delta.up @ delta.down, change, atol=1e-5, rtol=0)
        if config["lora_alpha"]:
            assert np.abs(change).max() > 1e-2  # or the comparison above says nothing
    assert not deltas, "deltas of modules that the model does not have"


def test_a_model_with_a_head_has_the_sites_of_the_bare_one_and_its_head_is_not_read(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    tune_and_save(tiny_model("bert"), tmp_path / "bare", r=2, target_modules=["query"])
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **shape))
    model.name_or_path = "org/tiny"
    tune_and_save(model, tmp_path / "headed", r=2, target_modules=["query"], task_type="SEQ_CLS")
    bare, headed = read_folder(tmp_path / "bare"), read_folder(tmp_path / "headed")
    assert len(bare.deltas) == 2
    assert [delta.site for delta in bare.deltas] == [delta.site for delta in headed.deltas]

    from safetensors import safe_open

    with safe_open(tmp_path / "headed" / "adapter_model.safetensors", "numpy") as file:
        names = list(file.keys())
    assert any("classifier" in name for name in names)
    assert wanted_tensors(names) == [name for name in names if "lora_" in name]


def test_only_factors_are_wanted():
    layer = "base_model.model.encoder.layer.0.attention.self.query"
    wanted = [
        *(f"{layer}.lora_A.weight", f"{layer}.lora_B.weight", f"{layer}.lora_A.default.weight", f"{layer}.lora_B.bias"),
        *(f"{layer}.lora_magnitude_vector", "base_model.model.embeddings.lora_embedding_A"),
    ]
    others = [
        "base_model.model.classifier.weight",
        f"{layer}.base_layer.bias",
        "base_model.model.embeddings.word_embeddings.base_layer.weight",
        "lora_A.weight",
        "",
    ]
    assert wanted_tensors([*others, *wanted]) == wanted


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.", "", "base_model.model.bert.", "bert."])
@pytest.mark.parametrize("adapter", [None, "default", "my-adapter_2"])
def test_wrappers_and_the_adapter_s_name_do_not_matter(prefix, adapter):
    plain = read_lora(CONFIG, lora_tensors(), "b")
    other = read_lora(CONFIG, lora_tensors(prefix=prefix, adapter=adapter), "b")
    assert [delta.site for delta in other.deltas] == [delta.site for delta in plain.deltas]
    for mine, theirs in zip(other.deltas, plain.deltas, strict=True):
        assert np.array_equal(mine.up, theirs.up)
        assert np.array_equal(mine.down, theirs.down)


def test_defaults_are_peft_s_rank_8_and_alpha_8():
    tensors = lora_tensors(rank=8)
    adapter = read_lora({}, tensors, "b")
    assert np.array_equal(adapter.deltas[0].up, tensors[f"base_model.model.{MODULES[0]}.lora_B.weight"])


KEY_A, KEY_B = (f"base_model.model.{MODULES[0]}.lora_{part}.weight" for part in "AB")


def refused(config=CONFIG, **changes) -> str:
    """The reason for which tensors with these changes are refused; None removes one."""
    tensors = {name: tensor for name, tensor in {**lora_tensors(), **changes}.items() if tensor is not None}
    with pytest.raises(AdapterError) as caught:
        sign_adapter(read_lora(config, tensors, "b"))
    assert len(str(caught.value)) < 300
    return caught.value.reason


def test_a_missing_factor():
    assert refused(**{KEY_A: None}) == refused(**{KEY_B: None}) == "incomplete"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", [KEY_A, KEY_B])
def test_a_factor_that_is_not_finite(key, value):
    bad = lora_tensors()[key]
    bad[1, 1] = value
    assert refused(**{key: bad}) == "not finite"


def test_shapes_that_do_not_fit():
    for tensor in (np.ones((3, 16)), np.ones((2, 16, 1)), np.ones(16), np.ones((0, 16)), np.ones((2, 0))):
        assert refused(**{KEY_A: tensor.astype(np.float32)}) == "shape mismatch"


@pytest.mark.parametrize("config", [{"r": 4}, {"r": 2, "rank_pattern": {"query": 4}}, {}])
def test_a_rank_that_its_config_contradicts(config):
    assert refused(config) == "shape mismatch"


@pytest.mark.parametrize(
    "config",
    [
        {"r": "2"},
        {"r": True},
        {"r": 2, "lora_alpha": "16"},
        {"r": 2, "alpha_pattern": {"query": []}},
        {"r": 2, "rank_pattern": 5},
    ],
)
def test_a_config_of_the_wrong_types(config):
    assert refused(config) == "bad config"


@pytest.mark.parametrize("flag", ["use_qalora", "use_bdlora"])
def test_a_variant_with_another_formula(flag):
    assert refused({**CONFIG, flag: True}) == "unsupported variant"
    assert read_lora({**CONFIG, flag: False}, lora_tensors(), "b").deltas


def test_a_scale_that_overflows_is_not_finite():
    big = np.full((16, 2), 1e38, np.float32)
    assert refused({"r": 2, "lora_alpha": 1e9}, **{KEY_B: big}) == "not finite"


def test_a_product_that_overflows_is_not_finite():
    down, up = np.full((2, 16), 3e38, np.float32), np.full((16, 2), 3e38, np.float32)
    assert refused(**{KEY_A: down, KEY_B: up}) == "not finite"


def test_an_alpha_of_zero_is_no_update():
    assert refused({"r": 2, "lora_alpha": 0}) == "all zero"


def test_no_lora_at_all():
    with pytest.raises(AdapterError) as caught:
        read_lora(CONFIG, {"classifier.weight": np.ones((2, 16), np.float32)}, "b")
    assert caught.value.reason == "no LoRA tensors"


def test_two_adapters_in_one_file():
    both = lora_tensors(adapter="one") | lora_tensors(adapter="two")
    with pytest.raises(AdapterError) as caught:
        read_lora(CONFIG, both, "b")
    assert caught.value.reason == "several adapters"


def test_two_modules_that_would_be_one_site():
    both = lora_tensors(prefix="base_model.model.bert.") | lora_tensors(prefix="base_model.model.")
    with pytest.raises(AdapterError) as caught:
        read_lora(CONFIG, both, "b")
    assert caught.value.reason == "ambiguous modules"


@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_16", "PiSSA", "olora", "loftq"])
def test_an_init_that_changed_the_base_is_said(kind):
    (warning,) = read_lora({**CONFIG, "init_lora_weights": kind}, lora_tensors(), "b").warnings
    assert "base weights" in warning


@pytest.mark.parametrize("kind", [True, False, "gaussian", None, 5])
def test_another_init_is_not(kind):
    assert read_lora({**CONFIG, "init_lora_weights": kind}, lora_tensors(), "b").warnings == ()


def test_thousands_of_slow_patterns_end_within_two_seconds():
    modules = [f"encoder.layer.{i}.attention.self.query" for i in range(100)]
    tensors = lora_tensors(modules, d=2)
    started = time.thread_time()
    with pytest.raises(AdapterError) as caught:
        read_lora({**CONFIG, "rank_pattern": {f"(?:a|b)+{i}": 4 for i in range(10_000)}}, tensors, "b")
    assert caught.value.reason == "unsafe pattern"
    assert time.thread_time() - started < 2
