"""Bottleneck adapters: the truth is the library's own module with its non-linearity taken out."""

from __future__ import annotations

import types

import adapters.context
import numpy as np
import pytest
import torch
from adapters import (
    AdapterPlusConfig,
    BnConfig,
    CompacterConfig,
    CompacterPlusPlusConfig,
    DoubleSeqBnConfig,
    ParBnConfig,
    SeqBnConfig,
    SeqBnInvConfig,
)
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from tests.checkpoints.adapters_models import FAMILIES, Context, close, example, full, model_with, read_one, saved

CONFIGS = {
    "seq_bn": SeqBnConfig(reduction_factor=8),
    "double_seq_bn": DoubleSeqBnConfig(reduction_factor={"1": 4, "default": 8}),
    "par_bn": ParBnConfig(reduction_factor=4),
    "scaled_par_bn": ParBnConfig(reduction_factor=4, scaling="learned"),
    "adapterplus": AdapterPlusConfig(reduction_factor=8, stochastic_depth=0.0, original_ln_after=True),
    "compacter": CompacterConfig(reduction_factor=4),
    "compacter++": CompacterPlusPlusConfig(reduction_factor=4, phm_rank=2),
}
COMPACTERS = {
    "own rule": {"shared_phm_rule": False},
    "own factorized rule": {"shared_phm_rule": False, "factorized_phm_rule": True},
    "shared factorized rule": {"factorized_phm_rule": True},
    "shared W": {"shared_W_phm": True, "shared_phm_rule": False},
    "all shared": {"shared_W_phm": True},
    "full W": {"factorized_phm_W": False},
    "no bias": {"phm_bias": False},
    "two": {"phm_dim": 2},
}


def modules_of(model):
    from adapters.methods.modeling import Adapter

    return {site_of(name.removesuffix(".a1")): module for name, module in model.named_modules() if isinstance(module, Adapter)}


def assert_equals_the_module(model, folder, monkeypatch):
    """up @ down x + shift is what the library computes once its non-linearity is the identity."""
    monkeypatch.setattr(adapters.context.ForwardContext, "get_context", Context(model))
    adapter = read_one(*saved(model, folder))
    modules = modules_of(model)
    assert {delta.site for delta in adapter.deltas} == set(modules)
    x = torch.randn(1, 5, 32)
    for delta in adapter.deltas:
        module = modules[delta.site]
        module.non_linearity.f = torch.nn.Identity()
        with torch.no_grad():
            output = module(x, torch.zeros_like(x))[0]
        close(x[0].numpy() @ full(delta).T + delta.shift, output[0].numpy())
        assert {array.dtype for array in (delta.down, delta.up, delta.shift)} == {np.dtype(np.float32)}
    return adapter


@pytest.mark.parametrize("variant", CONFIGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_delta_equals_the_module_without_its_non_linearity(family, variant, tmp_path, monkeypatch):
    if family == "modernbert" and "compacter" in variant:
        pytest.skip("the library saves it without its shared parameters: test_a_compacter_of_a_base_class_is_incomplete")
    adapter = assert_equals_the_module(model_with(family, CONFIGS[variant]), tmp_path, monkeypatch)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("bottleneck", variant, ())


@pytest.mark.parametrize("settings", COMPACTERS)
def test_every_kind_of_compacter(settings, tmp_path, monkeypatch):
    config = CompacterPlusPlusConfig(reduction_factor=4, **COMPACTERS[settings])
    assert_equals_the_module(model_with("bert", config), tmp_path, monkeypatch)


def test_slots_are_named_without_the_adapter():
    adapter = read_one(*example("bert", "double_seq_bn"))
    assert {delta.site.module for delta in adapter.deltas} == {"attention.output.adapters", "output.adapters"}


def test_layers_may_be_left_out(tmp_path, monkeypatch):
    adapter = assert_equals_the_module(model_with("bert", SeqBnConfig(leave_out=[0])), tmp_path, monkeypatch)
    assert [delta.site.layer for delta in adapter.deltas] == [1]


def test_invertible_parts_are_left_out_with_a_warning(tmp_path, monkeypatch):
    adapter = assert_equals_the_module(model_with("bert", SeqBnInvConfig()), tmp_path, monkeypatch)
    assert adapter.warnings == ("the invertible part before the first layer is left out",)


def test_cross_attention_has_a_slot_of_its_own(tmp_path, monkeypatch):
    config = BnConfig(mh_adapter=True, output_adapter=True, cross_adapter=True, reduction_factor=8, non_linearity="relu")
    adapter = assert_equals_the_module(model_with("t5", config), tmp_path, monkeypatch)
    assert "layer.1.adapters" in {delta.site.module for delta in adapter.deltas if delta.site.stack == "decoder"}


def test_a_norm_before_is_folded_in_but_for_its_division(tmp_path):
    model = model_with("bert", SeqBnConfig(ln_before=True))
    adapter = read_one(*saved(model, tmp_path))
    assert "layer norm before" in adapter.warnings[0]
    x = torch.randn(1, 5, 32)
    for delta in adapter.deltas:
        module = modules_of(model)[delta.site]
        module.non_linearity.f = torch.nn.Identity()
        with torch.no_grad():
            output = module(x, torch.zeros_like(x))[0]
        scaled = x / torch.sqrt(x.var(dim=-1, correction=0, keepdim=True) + 1e-5)
        close(scaled[0].numpy() @ full(delta).T + delta.shift, output[0].numpy())


def test_what_is_left_out_is_said():
    adapter = read_one(*example("bert", "seq_bn[ln_after=True,use_gating=True]"))
    assert [warning.split()[0:2] for warning in adapter.warnings] == [["gates", "that"], ["the", "layer"]]


LEGACY = {
    "text_task": ("attention.output.attention_text_task_adapters", "output.layer_text_task_adapters"),
    "text_lang": ("attention.output.attention_text_lang_adapters", "output.layer_text_lang_adapters"),
}


@pytest.mark.parametrize("kind", LEGACY)
def test_keys_and_configs_of_adapter_transformers_1_and_2(kind):
    config, tensors = example("bert", "double_seq_bn_inv")
    attention, output = LEGACY[kind]
    old_tensors = {
        key.replace("attention.output.adapters", attention)
        .replace("output.adapters", output)
        .replace("invertible_adapters", "invertible_lang_adapters"): value
        for key, value in tensors.items()
    }
    old = {
        "config": {
            "MH_Adapter": True,
            "Output_Adapter": True,
            "LN_before": False,
            "LN_after": False,
            "leave_out": [],
            "invertible_adapter": {"block_type": "nice", "reduction_factor": 2},
            "reduction_factor": 16,
        },
        "config_id": "9076f36a74755ac4",
        "hidden_size": 32,
        "model_type": "bert",
        "name": "a1",
        "type": kind,
    }
    adapter, new = read_one(old, old_tensors), read_one(config, tensors)
    assert adapter.variant == "double_seq_bn"
    # A task adapter of that time names invertible parts without using them.
    assert bool(adapter.warnings) == (kind == "text_lang")
    for delta, other in zip(adapter.deltas, new.deltas, strict=True):
        assert delta.site == other.site
        close(full(delta), full(other), 0)


@pytest.mark.parametrize(
    ("named", "variant"),
    [
        ("pfeiffer", "seq_bn"),
        ({"using": "pfeiffer", "reduction_factor": 2, "non_linearity": "gelu"}, "seq_bn"),
        ({"using": "pfeiffer", "mh_adapter": True}, "double_seq_bn"),
    ],
)
def test_configs_by_name(named, variant):
    config, tensors = example("bert", "seq_bn")
    assert read_one({**config, "config": named}, tensors).variant == variant


def test_parallel_by_name_has_its_scaling():
    config, tensors = example("bert", "par_bn")
    delta, named = read_one(config, tensors).deltas[0], read_one({**config, "config": "parallel"}, tensors).deltas[0]
    close(full(delta), full(named), 0)
    assert not np.allclose(full(delta), full(read_one({**config, "config": "pfeiffer"}, tensors).deltas[0]))


@given(st.integers(0, 2**31))
def test_units_have_no_order_and_no_size(seed):
    config, tensors = example("bert", "seq_bn[reduction_factor=4]")
    random = np.random.default_rng(seed)
    changed = dict(tensors)
    for key in [key for key in tensors if key.endswith("adapter_down.0.weight")]:
        root = key.removesuffix("adapter_down.0.weight")
        order, sizes = random.permutation(8), np.exp(random.uniform(-2, 2, 8)).astype(np.float32)
        changed[key] = (tensors[key] * sizes[:, None])[order]
        changed[root + "adapter_down.0.bias"] = (tensors[root + "adapter_down.0.bias"] * sizes)[order]
        changed[root + "adapter_up.weight"] = (tensors[root + "adapter_up.weight"] / sizes)[:, order]
    for delta, other in zip(read_one(config, tensors).deltas, read_one(config, changed).deltas, strict=True):
        close(full(delta), full(other), 1e-4)
        close(delta.shift, other.shift, 1e-4)


def test_a_compacter_of_a_base_class_is_incomplete():
    with pytest.raises(AdapterError, match="incomplete: shared_parameters lacks phm_rule"):
        read_one(*example("bert", "compacter++[reduction_factor=8]", base_class=True))


def test_small_factors_that_multiply_out_to_much_are_refused():
    config, tensors = example("bert", "compacter++[reduction_factor=8]")
    key = "bert.encoder.layer.0.output.adapters.a1.adapter_down.0.W_"
    wide = {key + "left": np.ones((4, 1_000_000, 1), np.float32), key + "right": np.ones((4, 1, 1_000_000), np.float32)}
    with pytest.raises(AdapterError, match="multiply out to more"):
        read_one(config, {**tensors, **wide})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scaling": "learned"}, "incomplete"),
        ({"scaling": "channel"}, "incomplete"),
        ({"scaling": "much"}, "bad config"),
        ({"phm_layer": True}, "incomplete"),
        ({"phm_layer": 1}, "bad config"),
        ({"ln_before": True}, "incomplete"),
        ({"is_parallel": "yes"}, "bad config"),
        ({"architecture": "hypernetwork"}, "unsupported variant"),
        ({"architecture": 3}, "bad config"),
    ],
)
def test_what_does_not_fit_is_refused(change, reason):
    config, tensors = example("bert", "seq_bn")
    with pytest.raises(AdapterError) as caught:
        read_one({**config, "config": {**config["config"], **change}}, tensors)
    assert caught.value.reason == reason


def test_a_learned_scaling_that_the_config_does_not_know():
    config, tensors = example("bert", "scaled_par_bn")
    with pytest.raises(AdapterError, match="bad config"):
        read_one({**config, "config": "parallel"}, tensors)


def test_the_name_in_the_config_chooses_among_several():
    config, tensors = example("bert", "seq_bn")
    both = {**tensors, **{key.replace(".a1.", ".a2."): 2 * value for key, value in tensors.items()}}
    close(full(read_one(config, both).deltas[0]), full(read_one(config, tensors).deltas[0]), 0)
    with pytest.raises(AdapterError, match="several adapters"):
        read_one({**config, "name": "a3"}, both)
    assert read_one({**config, "name": "a3"}, tensors).deltas


def test_float16_weights_overflow_into_a_refusal():
    config, tensors = example("bert", "seq_bn")
    huge = {key: np.full_like(value, 1e38) for key, value in tensors.items()}
    with pytest.raises(AdapterError, match="not finite"):
        read_one(config, huge)


def test_a_module_twice_under_old_and_new_names():
    config, tensors = example("bert", "seq_bn")
    twice = {**tensors, **{key.replace(".adapters.", ".layer_text_task_adapters."): value for key, value in tensors.items()}}
    with pytest.raises(AdapterError, match="ambiguous modules"):
        read_one(types.MappingProxyType(config), twice)
