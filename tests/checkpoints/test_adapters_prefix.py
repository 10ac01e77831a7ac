"""Prefix and prompt tuning: the truth is what reaches the library's attention layers and embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapters import PrefixTuningConfig, PromptTuningConfig
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.adapters_families import read_adapters, wanted_adapters_tensors
from hubrank.errors import AdapterError
from tests.checkpoints.adapters_models import close, example, full, inputs, model_with, read_one, saved

FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "t5", "bart", "llama")
TWO_STACKS = ("t5", "bart")


def what_attention_gets(model, family):
    """What each layer puts before its own keys and values, [P, d], by stack, layer and whether it attends to another stack."""
    from adapters.methods.prefix_tuning import PrefixTuningLayer

    found, hooks = {}, []

    def hook_for(path):
        def hook(module, arguments, keywords, output):
            bare = (*arguments, *(keywords[key] for key in ("key_states", "value_states") if key in keywords))[:2]
            stack = next((part for part in path.split(".") if part in ("encoder", "decoder")), "")
            layer = next(int(part) for part in path.split(".") if part.isdigit())
            cross = "EncDecAttention" in path or "encoder_attn" in path
            found[stack if family in TWO_STACKS else "", layer, cross] = [
                states[0, :, : states.shape[2] - own.shape[2]].transpose(0, 1).flatten(1).numpy()
                for states, own in zip(output[:2], bare, strict=True)
            ]

        return hook

    for path, module in model.base_model.named_modules():
        if isinstance(module, PrefixTuningLayer):
            hooks.append(module.register_forward_hook(hook_for(path), with_kwargs=True))
    with torch.no_grad():
        model.base_model(**inputs(family))
    return {place: states for place, states in found.items() if len(states[0])}


def by_place(adapter):
    places = {}
    for delta in adapter.deltas:
        module, _, kind = delta.site.module.rpartition(".")
        places.setdefault((delta.site.stack, delta.site.layer, module == "cross.prefix"), {})[kind] = delta
    return places


def assert_equals_what_attention_gets(model, family, folder):
    adapter = read_one(*saved(model, folder))
    expected, places = what_attention_gets(model, family), by_place(adapter)
    assert set(places) == set(expected)
    for place, (keys, values) in expected.items():
        found = places[place]
        close(found["key"].shift, keys.mean(axis=0))
        close(found["value"].shift, values.mean(axis=0))
        close(found["product"].down, keys)
        close(found["product"].up, values.T)
        assert found["product"].shift is None
        for kind in ("key", "value"):
            assert found[kind].down.shape == (0, keys.shape[1])
            assert found[kind].up.shape == (keys.shape[1], 0)
    return adapter


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_those_that_attention_gets(family, flat, tmp_path):
    model = model_with(family, PrefixTuningConfig(flat=flat, prefix_length=5, bottleneck_size=7))
    adapter = assert_equals_what_attention_gets(model, family, tmp_path)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("prefix", "prefix", ())


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"leave_out": [0]}),
        ("bert", {"leave_out": [1]}),
        ("t5", {"leave_out": [0, 3]}),
        ("bart", {"leave_out": [1, 2, 4]}),
        ("bart", {"encoder_prefix": False}),
        ("t5", {"encoder_prefix": False, "cross_prefix": False}),
        ("t5", {"encoder_prefix": False, "leave_out": [2]}),
    ],
)
def test_layers_and_places_may_be_left_out(family, settings, flat, tmp_path):
    model = model_with(family, PrefixTuningConfig(flat=flat, prefix_length=3, bottleneck_size=7, **settings))
    assert_equals_what_attention_gets(model, family, tmp_path)


@pytest.mark.parametrize("non_linearity", ["relu", "gelu", "gelu_new", "swish", "leakyrelu", "sigmoid"])
def test_non_linearities_of_the_reparametrisation(non_linearity, tmp_path):
    model = model_with("bert", PrefixTuningConfig(non_linearity=non_linearity, prefix_length=5, bottleneck_size=7))
    assert_equals_what_attention_gets(model, "bert", tmp_path)


def test_a_file_without_version_means_gelu_new_by_gelu():
    config, tensors = example("bert", "prefix_tuning[non_linearity='gelu_new']")
    old = {key: value for key, value in config.items() if key != "version"}
    old["config"] = {**config["config"], "non_linearity": "gelu"}
    for delta, other in zip(read_one(config, tensors).deltas, read_one(old, tensors).deltas, strict=True):
        close(full(delta), full(other), 0)


def test_a_base_class_saves_the_same(tmp_path):
    model = model_with("bert", PrefixTuningConfig(prefix_length=5, bottleneck_size=7), base_class=True)
    assert_equals_what_attention_gets(model, "bert", tmp_path)


@pytest.mark.parametrize(("family", "copies"), [("bert", 1), ("llama", 1), ("t5", 2)])
def test_the_copies_in_the_layers_are_not_read(family, copies):
    config, tensors = example(family, "prefix_tuning")
    wanted = wanted_adapters_tensors(tensors, config)
    pool = [key for key in wanted if ".pool." in key]
    assert len(pool) == copies
    assert all(key.endswith("control_trans.0.bias") for key in pool)
    assert len(wanted) == copies + 5 * (3 if family == "t5" else 1)


@pytest.mark.parametrize("settings", ["", "[leave_out=[0]]"])
def test_without_copies_the_width_tells_the_layers(settings):
    config, tensors = example("bert", "prefix_tuning_flat" + settings)
    alone = {key: value for key, value in tensors.items() if ".pool." not in key}
    full_file, alone_file = read_one(config, tensors), read_adapters(config, alone, "base")[0]
    assert [delta.site for delta in alone_file.deltas] == [delta.site for delta in full_file.deltas]
    with pytest.raises(AdapterError, match="incomplete"):
        read_adapters({**config, "model_type": "t5"}, alone, "base")


def test_only_copies_are_read_too():
    config, tensors = example("bert", "prefix_tuning")
    pool = {key: value for key, value in tensors.items() if ".pool." in key}
    for delta, other in zip(read_one(config, tensors).deltas, read_one(config, pool).deltas, strict=True):
        close(full(delta), full(other), 0)


def test_gates_are_left_out_with_a_warning():
    assert "gates" in read_one(*example("bert", "prefix_tuning[use_gating=True]")).warnings[0]


@given(st.integers(0, 2**31))
def test_tokens_have_no_order(seed):
    config, tensors = example("bert", "prefix_tuning[prefix_length=6]")
    order = np.random.default_rng(seed).permutation(6)
    changed = {key: value[order] if key.endswith("wte.weight") else value for key, value in tensors.items()}
    for delta, other in zip(read_one(config, tensors).deltas, read_one(config, changed).deltas, strict=True):
        close(full(delta), full(other), 1e-4)
        if delta.shift is not None:
            close(delta.shift, other.shift, 1e-4)


@pytest.mark.parametrize("change", [{"prefix_length": 7}, {"flat": True}, {"prefix_length": 0}, {"non_linearity": "warp"}])
def test_what_does_not_fit_is_refused(change):
    config, tensors = example("bert", "prefix_tuning")
    with pytest.raises(AdapterError):
        read_one({**config, "config": {**config["config"], **change}}, tensors)


def test_small_factors_that_multiply_out_to_much_are_refused():
    config, _ = example("bert", "prefix_tuning[prefix_length=6]")
    root = "bert.prefix_tuning.prefix_tunings.a1.self_prefix."
    shapes = {
        "wte.weight": (1_000_000, 1),
        "control_trans.0.weight": (1, 1),
        "control_trans.0.bias": (1,),
        "control_trans.2.weight": (1_000_000, 1),
        "control_trans.2.bias": (1_000_000,),
    }
    tensors = {root + part: np.ones(shape, np.float32) for part, shape in shapes.items()}
    config = {**config, "config": {**config["config"], "prefix_length": 1_000_000}}
    with pytest.raises(AdapterError, match="multiply out to more"):
        read_adapters(config, tensors, "base")


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_prompt_is_its_token_mean_and_gram(family, tmp_path):
    model = model_with(family, PromptTuningConfig(prompt_length=5))
    adapter = read_one(*saved(model, tmp_path))
    with torch.no_grad():
        embedded, _ = model.base_model.prompt_tuning.prompt_tunings["a1"](torch.zeros(1, 4, 32))
    tokens = embedded[0, :5].numpy()
    (delta,) = adapter.deltas
    assert (adapter.method, adapter.variant, str(delta.site)) == ("prompt", "prompt", "0.prompt")
    close(delta.shift, (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).mean(axis=0))
    close(full(delta), tokens.T @ tokens)


@given(st.integers(0, 2**31))
def test_tokens_of_a_prompt_have_no_order(seed):
    config, tensors = example("bert", "prompt_tuning")
    order = np.random.default_rng(seed).permutation(10)
    (delta,) = read_one(config, tensors).deltas
    (other,) = read_one(config, {key: value[order] for key, value in tensors.items()}).deltas
    close(full(delta), full(other), 1e-4)
    close(delta.shift, other.shift, 1e-4)


def test_a_prompt_of_another_length_is_refused():
    config, tensors = example("bert", "prompt_tuning")
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_one({**config, "config": {**config["config"], "prompt_length": 4}}, tensors)
