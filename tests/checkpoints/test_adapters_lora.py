"""LoRA and its kin of the adapters library: the truth is what merge_adapter and the modules themselves compute."""

from __future__ import annotations

import adapters.context
import numpy as np
import pytest
import torch
from adapters import DoRAConfig, DvoRAConfig, IA3Config, LoRAConfig, MTLLoRAConfig, VeraConfig
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from tests.checkpoints.adapters_models import FAMILIES, Context, StateDict, close, example, full, model_with, read_one, saved

EVERYWHERE = {"intermediate_lora": True, "output_lora": True}


def merged_difference(model):
    """Merged minus base by site, [out, in] as of a Linear, and the base tensors."""

    def weights():
        state = model.base_model.state_dict()
        return {key: value.clone() for key, value in state.items() if key.endswith(".weight") and ".loras." not in key}

    before = weights()
    model.merge_adapter("a1")
    after = weights()
    conv = ("c_attn.weight", "c_fc.weight", "mlp.c_proj.weight")
    return {
        site_of(key.removesuffix(".weight")): (difference.T if key.endswith(conv) else difference).numpy()
        for key in before
        if (difference := after[key] - before[key]).any()
    }, StateDict(before)


def assert_merges(model, folder, base_free=True):
    config, tensors = saved(model, folder)
    expected, base_tensors = merged_difference(model)
    adapter = read_one(config, tensors, None if base_free else base_tensors)
    assert {delta.site for delta in adapter.deltas} == set(expected)
    for delta in adapter.deltas:
        close(full(delta), expected[delta.site])
        assert delta.down.dtype == delta.up.dtype == np.float32
    return adapter


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_equals_what_merging_adds(family, tmp_path):
    model = model_with(family, LoRAConfig(r=4, alpha=10, attn_matrices=["q", "k", "v"], **EVERYWHERE))
    adapter = assert_merges(model, tmp_path)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("lora", "", ())


@pytest.mark.parametrize("matrices", [["v"], ["k"], ["v", "q"], ["q", "v"], ["q", "k", "v"]], ids="".join)
@pytest.mark.parametrize("family", ["gpt2", "modernbert"])
def test_each_part_of_a_fused_layer(family, matrices, tmp_path):
    assert_merges(model_with(family, LoRAConfig(r=3, alpha=7, attn_matrices=matrices)), tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_ia3_with_base_weights_equals_what_merging_adds(family, tmp_path):
    adapter = assert_merges(model_with(family, IA3Config(alpha=3)), tmp_path, base_free=False)
    assert (adapter.method, adapter.variant) == ("ia3", "ia3")


@pytest.mark.parametrize("base_class", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ia3_is_described_by_the_logarithm_of_its_scales(family, base_class, tmp_path):
    model = model_with(family, IA3Config(alpha=2), base_class=base_class)
    config, tensors = saved(model, tmp_path)
    exact = read_one(config, tensors, StateDict(model.base_model.state_dict()))
    for delta, bare in zip(exact.deltas, read_one(config, tensors).deltas, strict=True):
        close(delta.shift, bare.shift, 0)
        assert bare.down.shape[0] == bare.up.shape[1] == 0
        assert full(delta).any()
        (vector,) = [value for key, value in tensors.items() if site_of(key.partition(".loras.")[0]) == delta.site]
        query = np.ones(len(delta.shift) - len(vector), np.float32)  # the part of a fused layer that (IA)^3 does not adapt
        close(delta.shift, np.log(2 * np.abs(np.concatenate([query, vector[:, 0]]))))


def test_ia3_of_zero_stays_finite():
    config, tensors = example("bert", "ia3")
    key = next(iter(tensors))
    adapter = read_one(config, {**tensors, key: np.zeros_like(tensors[key])})
    assert min(delta.shift.min() for delta in adapter.deltas) == np.log(np.float32(1e-6))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "t5", "bart"])
def test_vera_equals_what_merging_adds(family, tmp_path, monkeypatch):
    model = model_with(family, VeraConfig(r=4, alpha=12))
    monkeypatch.setattr(adapters.context.ForwardContext, "get_context", Context(model))
    assert assert_merges(model, tmp_path).variant == "vera"


@pytest.mark.parametrize("family", ["bert", "distilbert", "t5", "bart", "llama"])
def test_dora_equals_what_merging_adds_where_alpha_is_r(family, tmp_path):
    adapter = assert_merges(model_with(family, DoRAConfig(r=4, alpha=4)), tmp_path, base_free=False)
    assert (adapter.variant, adapter.warnings) == ("dora", ())


@pytest.mark.parametrize(
    "method", [DoRAConfig(r=4, alpha=9), DvoRAConfig(r=4, alpha=9), MTLLoRAConfig(r=4, alpha=9, n_up_projection=3)]
)
def test_what_cannot_be_merged_equals_what_the_layer_computes(method, tmp_path, monkeypatch):
    model = model_with("bert", method)
    monkeypatch.setattr(adapters.context.ForwardContext, "get_context", Context(model))
    adapter = read_one(*saved(model, tmp_path), StateDict(model.base_model.state_dict()))
    modules = dict(model.base_model.named_modules())
    x = torch.eye(32)[None]
    for delta in adapter.deltas:
        module = modules[f"encoder.layer.{delta.site.layer}.{delta.site.module}"]
        with torch.no_grad():
            lora = module.loras["a1"]
            hidden, _ = lora(None, x)
            if lora.use_dora:
                norm = torch.linalg.norm(module.weight + lora.delta_w, dim=1)
                hidden = lora.m.weight.view(-1) / norm * (x @ module.weight.T + hidden) - x @ module.weight.T
        close(full(delta), hidden[0].T.numpy())


def test_dora_without_base_weights_says_so():
    config, tensors = example("bert", "dora")
    adapter = read_one(config, tensors)
    plain = read_one({**config, "config": {**config["config"], "use_dora": False}}, without(tensors, ".m.weight"))
    assert "without the base weights" in adapter.warnings[0]
    for delta, low in zip(adapter.deltas, plain.deltas, strict=True):
        close(full(delta), full(low), 0)
        assert delta.shift.shape == (32,)


def without(tensors, part):
    return {key: value for key, value in tensors.items() if part not in key}


@pytest.mark.parametrize(
    ("version", "scale"),
    [
        *(("adapters.1.0.1", 1), ("adapters.0.2.2", 1), ("adapters.1.1.0.dev0", 1), ("adapters.1.1.0", 4)),
        *(("adapters.1.1.1", 4), ("3.2.1", 4), (None, 4), (7, 4), ("adapters.", 4), ("adapters.1.1.0.post1", 4)),
    ],
)
def test_alpha_is_ignored_where_the_library_trained_without_it(version, scale):
    config, tensors = example("bert", LoRAKey(r=2, alpha=8))
    new = read_one(config, tensors)
    old = read_one({**config, "version": version}, tensors)
    for delta, other in zip(new.deltas, old.deltas, strict=True):
        close(full(delta) * scale, full(other) * 4)


class LoRAKey(LoRAConfig):
    """A LoRAConfig that can be the key of a cache."""

    def __hash__(self):
        return hash(str(self.to_dict()))


def test_gated_lora_has_no_scale():
    config, tensors = example("bert", "unipelt")
    lora = config["config"]["configs"][2]
    assert lora["alpha"] / lora["r"] == 0.25
    adapter = read_one({**config, "config": lora}, tensors)
    assert "gates" in adapter.warnings[0]
    key = "bert.encoder.layer.0.attention.self.query.loras.a1.lora_"
    close(full(adapter.deltas[0]), tensors[key + "B"] @ tensors[key + "A"])


@given(st.integers(0, 2**31), st.sampled_from(["bert", "gpt2"]))
def test_a_change_of_basis_is_the_same_adapter(seed, family):
    config, tensors = example(family, "lora")
    random = np.random.default_rng(seed)
    changed = dict(tensors)
    for key in [key for key in tensors if key.endswith("lora_A")]:
        a, b = tensors[key].astype(np.float64), tensors[key[:-1] + "B"].astype(np.float64)
        blocks = a.shape[0] // b.shape[1]
        bs, as_ = np.split(b, blocks), np.split(a, blocks)
        bases = [np.linalg.qr(random.normal(size=(8, 8)))[0] * random.uniform(0.3, 3, 8) for _ in range(blocks)]
        changed[key] = np.concatenate([np.linalg.solve(m, x) for m, x in zip(bases, as_, strict=True)]).astype(np.float32)
        changed[key[:-1] + "B"] = np.concatenate([x @ m for m, x in zip(bases, bs, strict=True)]).astype(np.float32)
    for delta, other in zip(read_one(config, tensors).deltas, read_one(config, changed).deltas, strict=True):
        close(full(delta), full(other), 1e-4)


@pytest.mark.parametrize(
    ("family", "method", "change", "reason"),
    [
        ("bert", "lora", {"r": 4}, "shape mismatch"),
        ("bert", "lora", {"r": 0}, "bad config"),
        ("bert", "lora", {"composition_mode": "multiply"}, "bad config"),
        ("bert", "dora", {"use_dora": False}, "bad config"),
        ("bert", "lora", {"use_dora": True}, "incomplete"),
        ("gpt2", "lora", {"attn_matrices": ["q", "k", "v"]}, "shape mismatch"),
        ("gpt2", "lora", {"attn_matrices": []}, "bad config"),
        ("gpt2", "lora", {"use_dora": True}, "unsupported variant"),
        ("bert", "ia3", {"r": 2}, "bad config"),
        ("bert", "mtl_lora", {"task_specific_matrix_type": "linear"}, "unsupported variant"),
        ("bert", "mtl_lora", {"weights_sharpness": 0}, "bad config"),
        ("bert", "mtl_lora", {"use_dora": True}, "unsupported variant"),
        ("gpt2", "vera", {}, "shape mismatch"),  # the library writes factors that cannot be multiplied
    ],
)
def test_what_does_not_fit_is_refused(family, method, change, reason):
    config, tensors = example(family, method)
    with pytest.raises(AdapterError) as caught:
        read_one({**config, "config": {**config["config"], **change}}, tensors)
    assert caught.value.reason == reason


def test_vera_saved_from_a_base_class_lacks_its_shared_factors():
    config, tensors = example("bert", "vera", base_class=True)
    with pytest.raises(AdapterError, match="incomplete"):
        read_one(config, tensors)


def test_base_weights_of_another_model_are_refused():
    config, tensors = example("bert", "ia3")
    state = {key: value[:5] for key, value in model_with("bert", "ia3").base_model.state_dict().items() if value.ndim}
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_one(config, tensors, StateDict(state))


def test_exact_updates_of_a_large_model_are_not_made(monkeypatch):
    monkeypatch.setattr("hubrank.checkpoints.adapters_weights.MAX_EXACT", 3000)
    for method in ("dora", "ia3"):
        config, tensors = example("bert", method)
        state = StateDict(model_with("bert", method).base_model.state_dict())
        large, free = read_one(config, tensors, state), read_one(config, tensors)
        for delta, other in zip(large.deltas, free.deltas, strict=True):
            close(full(delta), full(other), 0)
            close(delta.shift, other.shift, 0)
        assert method == "ia3" or "too large" in large.warnings[0]


def test_one_missing_base_weight_makes_all_sites_descriptions():
    config, tensors = example("bert", "dora")
    state = model_with("bert", "dora").base_model.state_dict()
    state.pop("encoder.layer.1.attention.self.value.weight")
    adapter = read_one(config, tensors, StateDict(state))
    assert "without the base weights" in adapter.warnings[0]
    assert all(delta.shift is not None for delta in adapter.deltas)


def test_shared_factors_at_two_places_are_refused():
    config, tensors = example("bert", "vera")
    twice = {**tensors, **{key.replace("bert.shared", "other.shared"): value for key, value in tensors.items()}}
    with pytest.raises(AdapterError, match="ambiguous modules"):
        read_one(config, twice)
