"""From a whole file to its adapters: unions, fusions, a real file, and files that mean harm."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubrank.checkpoints.adapters_families import read_adapters, wanted_adapters_tensors
from hubrank.checkpoints.adapters_weights import split_key
from hubrank.errors import AdapterError
from tests.checkpoints.adapters_models import close, example, folder_contents, full, read, read_one
from tests.real_data import DATA

REAL = DATA / "adapters" / "AnHu2410__MD_crosslingual__968d4e1-adapter"
METHODS = (
    *("double_seq_bn", "scaled_par_bn", "compacter++[reduction_factor=8]", "prefix_tuning", "prefix_tuning_flat"),
    *("prompt_tuning", "lora", "dora", "ia3", "vera", "mtl_lora", "loreft", "noreft", "mam", "unipelt"),
)
REASONS = {
    *("incomplete", "shape mismatch", "not finite", "unsupported variant", "bad config", "several adapters"),
    *("ambiguous modules", "no weights"),
}


@pytest.mark.parametrize(
    ("name", "methods"), [("mam", ["prefix", "bottleneck"]), ("unipelt", ["prefix", "bottleneck", "lora"])]
)
@pytest.mark.parametrize("family", ["bert", "t5", "gpt2"])
def test_a_union_is_an_adapter_for_each_of_its_methods(family, name, methods):
    config, tensors = example(family, name)
    adapters = read(config, tensors)
    assert [(adapter.method, adapter.variant) for adapter in adapters] == [(method, name) for method in methods]
    for adapter, member in zip(adapters, config["config"]["configs"], strict=True):
        alone = read_one({**config, "config": member}, tensors)
        for delta, other in zip(adapter.deltas, alone.deltas, strict=True):
            assert delta.site == other.site
            close(full(delta), full(other), 0)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_is_needed_is_read_and_all_of_that(method):
    config, tensors = example("bert", method)
    wanted = wanted_adapters_tensors(tensors, config)
    heads = ["heads.a1.1.weight", "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"]
    assert wanted_adapters_tensors([*heads, *tensors], config) == wanted
    assert not any("gate" in key for key in wanted)
    chosen = {key: tensors[key] for key in wanted}
    with_all, with_chosen = read_adapters(config, tensors, "base"), read_adapters(config, chosen, "base")
    for adapter, other in zip(with_all, with_chosen, strict=True):
        for delta, same in zip(adapter.deltas, other.deltas, strict=True):
            close(full(delta), full(same), 0)
    if method in ("ia3", "prefix_tuning_flat"):
        return  # one tensor is all of a module, and a flat prefix can be read from its copy as well
    for key in wanted:
        # The copy of a prefix in the last layer only tells how many layers there are.
        if ".pool." not in key:
            rest = {other: value for other, value in chosen.items() if other != key}
            with pytest.raises(AdapterError):
                read_adapters(config, rest, "base")


def test_sites_come_in_order_and_base_is_kept():
    (adapter,) = read(*example("bart", "lora"))
    assert adapter.base == "base"
    assert [delta.site for delta in adapter.deltas] == sorted(delta.site for delta in adapter.deltas)


def test_a_fusion_is_skipped_with_its_reason():
    names = [f"bert.encoder.layer.0.output.adapter_fusion_layer.a1,a2.{part}.weight" for part in ("query", "key", "value")]
    config, _ = example("bert", "seq_bn")
    with pytest.raises(AdapterError, match=r"unsupported variant.*fusion"):
        wanted_adapters_tensors(names, config)


def test_a_file_without_adapter_tensors():
    config, _ = example("bert", "seq_bn")
    assert wanted_adapters_tensors(["heads.a1.1.weight"], config) == []
    with pytest.raises(AdapterError, match="no weights"):
        read_adapters(config, {}, "base")


@pytest.mark.parametrize(
    ("key", "split"),
    [
        (
            "bert.encoder.layer.0.output.adapters.a1.adapter_up.weight",
            ("bert.encoder.layer.0.output", "a1", "adapter_up.weight"),
        ),
        ("x.0.adapters.adapters.scaling", ("x.0", "adapters", "scaling")),
        ("x.0.adapters.scaling.scaling", ("x.0", "scaling", "scaling")),
        ("x.0.adapters.my.own.adapter_down.0.bias", ("x.0", "my.own", "adapter_down.0.bias")),
        ("x.0.layer_text_task_adapters.t.adapter_up.bias", ("x.0", "t", "adapter_up.bias")),
        ("x.invertible_adapters.a1.F.0.weight", None),
        ("adapters.a1", None),
        ("", None),
    ],
)
def test_keys_are_taken_apart(key, split):
    found = split_key(key, "adapters", ("adapter_down", "adapter_up", "scaling"))
    assert (found and (found.module, found.name, found.part)) == split


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data is not here")
def test_a_published_adapter():
    config, tensors = folder_contents(REAL)
    (adapter,) = read(config, tensors)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("bottleneck", "seq_bn", ())
    assert [str(delta.site) for delta in adapter.deltas] == [f"encoder.{layer}.output.adapters" for layer in sorted(range(12))]
    delta, root = adapter.deltas[3], "bert.encoder.layer.3.output.adapters.md."
    x = torch.randn(5, 768)
    state = {key.removeprefix(root): torch.tensor(value) for key, value in tensors.items() if key.startswith(root)}
    down = torch.nn.functional.linear(x, state["adapter_down.0.weight"], state["adapter_down.0.bias"])
    up = torch.nn.functional.linear(down, state["adapter_up.weight"], state["adapter_up.bias"])
    close(x.numpy() @ full(delta).T + delta.shift, up.numpy())
    assert delta.down.shape == (48, 768)


# ---- files that mean harm

HOSTILE = (
    0,
    -1,
    1,
    3,
    2**31,
    10**30,
    1e300,
    -0.5,
    0.0,
    math.nan,
    math.inf,
    "8",
    "",
    "x" * 500,
    True,
    False,
    None,
    [],
    [1],
    {},
    [None],
)


def outcome(config, tensors):
    try:
        return read(config, tensors), None
    except AdapterError as error:
        return (), error


def refused_or_finite(config, tensors):
    """Reading ends in adapters of finite numbers, or in an AdapterError of a known reason; True where it was read."""
    adapters, error = outcome(config, tensors)
    if error is not None:
        assert error.reason in REASONS
        assert len(str(error)) < 400
        return False
    for adapter in adapters:
        assert adapter.deltas
        for delta in adapter.deltas:
            assert np.isfinite(delta.up).all()
            assert np.isfinite(delta.down).all()
            assert delta.up.shape[1] == delta.down.shape[0]
            assert delta.shift is None or (np.isfinite(delta.shift).all() and len(delta.shift) == len(delta.up))
            assert delta.up.dtype == delta.down.dtype == np.float32
    return True


def places(value, path=()):
    """The paths of all leaves of a config."""
    if isinstance(value, dict):
        return [inner for key, item in value.items() for inner in [(*path, key), *places(item, (*path, key))]]
    if isinstance(value, list):
        return [inner for i, item in enumerate(value) for inner in [(*path, i), *places(item, (*path, i))]]
    return []


def replaced(config, path, value):
    copy = json.loads(json.dumps(config))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize("method", METHODS)
def test_every_field_of_a_config_may_hold_anything(method):
    config, tensors = example("bert", method)
    changes = [(path, value) for path in places(config) for value in HOSTILE]
    # A union repeats the fields of its members, so that a part of its many changes will do.
    for path, value in changes[:: 1 if "configs" not in config["config"] else 8]:
        refused_or_finite(replaced(config, path, value), tensors)


@pytest.mark.parametrize("method", ["double_seq_bn", "lora", "ia3", "prefix_tuning", "loreft", "prompt_tuning"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 10**30, 1e300, math.nan, math.inf, "8", True, []])
def test_numbers_that_count_are_refused(method, value):
    config, tensors = example("bert", method)
    names = {
        "double_seq_bn": "scaling",
        "lora": "r",
        "ia3": "r",
        "prefix_tuning": "prefix_length",
        "prompt_tuning": "prompt_length",
    }
    name = names.get(method, "r")
    if name == "scaling" and value in (0, -1):  # odd, but numbers
        assert refused_or_finite(replaced(config, ("config", name), value), tensors)
        return
    assert not refused_or_finite(replaced(config, ("config", name), value), tensors)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60)
@given(data=st.data())
def test_every_tensor_may_be_of_any_shape(method, data):
    config, tensors = example("bert", method)
    changed = dict(tensors)
    for key in data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3, unique=True)):
        shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 32, 64]), max_size=4))
        changed[key] = np.ones(shape, np.float32)
    refused_or_finite(config, changed)


@pytest.mark.parametrize("method", METHODS)
def test_nan_and_infinity_are_refused_wherever_they_are(method):
    config, tensors = example("bert", method)
    for key in wanted_adapters_tensors(tensors, config):
        if ".pool." in key:
            continue
        for value in (np.nan, np.inf, -np.inf):
            bad = tensors[key].copy()
            bad.flat[-1] = value
            with pytest.raises(AdapterError, match="not finite"):
                read(config, {**tensors, key: bad})


@given(
    st.dictionaries(
        st.text(st.sampled_from("ab.0,1_é\x1b"), max_size=12)
        | st.sampled_from(
            [f"x.{i}.{slot}.a.{part}" for i in "01" for slot, part in (("adapters", "scaling"), ("loras", "lora_A"))]
        ),
        st.sampled_from([np.ones((2, 2), np.float32), np.zeros(0, np.float32), np.float32(1) * np.ones(())]),
        max_size=6,
    ),
    st.sampled_from(["pfeiffer", "lora", "ia3", "vera", "prefix_tuning", "prompt_tuning", "loreft", "mam", None]),
)
def test_any_keys(tensors, named):
    assert not refused_or_finite({"config": named, "name": "a"}, tensors) or tensors


def test_shared_factors_of_ten_thousand_layers_stay_small():
    config, _ = example("bert", "vera")
    tensors = {}
    tensors["bert.shared_parameters.a1.lora_B"] = np.ones((1, 20_000), np.float32)
    tensors["bert.shared_parameters.a1.lora_A"] = np.ones((20_000, 1), np.float32)
    eye = np.ones((20_000, 1), np.float32)
    for layer in range(9_999):
        tensors[f"bert.encoder.layer.{layer}.attention.self.query.loras.a1.vera_B"] = np.ones((1, 1), np.float32)
        tensors[f"bert.encoder.layer.{layer}.attention.self.query.loras.a1.vera_D"] = eye
    tracemalloc.start()
    assert not refused_or_finite(config, tensors)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


def test_long_keys_take_no_long():
    config, _ = example("bert", "seq_bn")
    names = [
        ".".join(["adapters"] * 100_000),
        ".".join(["adapters", "a1"] * 50_000) + ".adapter_up.weight",
        "adapters" * 100_000,
    ]
    refused_or_finite(config, {name: np.ones((2, 2), np.float32) for name in names})
