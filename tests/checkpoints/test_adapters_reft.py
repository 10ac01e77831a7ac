"""LoReFT, NoReFT and DiReFT: the truth is what a unit of the library adds to its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapters import DiReftConfig, LoReftConfig, NoReftConfig
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.adapters_families import wanted_adapters_tensors
from hubrank.errors import AdapterError
from tests.checkpoints.adapters_models import FAMILIES, close, example, full, model_with, read_one, saved


def assert_equals_the_module(model, folder, tied=False, **change):
    config, tensors = saved(model, folder)
    adapter = read_one({**config, "config": {**config["config"], **change}}, tensors)
    modules = {path: module for path, module in model.base_model.named_modules() if path.endswith("reft_layer.refts.a1")}
    x = torch.randn(1, 5, 32)
    for delta in adapter.deltas:
        (path,) = [path for path in modules if f".{delta.site.layer}.reft_layer" in f".{path}" and delta.site.stack in path]
        unit = modules[path].units[0 if tied or delta.site.module == "reft_layer.prefix" else 1]
        with torch.no_grad():
            added = unit(x) - x
        close(x[0].numpy() @ full(delta).T + delta.shift, added[0].numpy())
    return adapter, len(modules)


@pytest.mark.parametrize("method", [LoReftConfig, NoReftConfig])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_delta_equals_what_the_unit_adds(family, method, tmp_path):
    adapter, layers = assert_equals_the_module(model_with(family, method(r=3, suffix_positions=2)), tmp_path)
    assert len(adapter.deltas) == 2 * layers
    assert (adapter.method, adapter.variant) == ("reft", "loreft" if method is LoReftConfig else "noreft")


def test_direft_where_its_config_says_so(tmp_path):
    adapter, _ = assert_equals_the_module(model_with("bert", DiReftConfig(r=3)), tmp_path, subtract_projection=False)
    assert (adapter.variant, adapter.warnings) == ("direft", ())


def test_the_library_does_not_write_what_tells_direft_from_noreft():
    adapter = read_one(*example("bert", "direft"))
    assert adapter.variant == "noreft"
    assert "DiReFT" in adapter.warnings[0]


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({"suffix_positions": 0}, {"prefix"}),
        ({"prefix_positions": 0, "suffix_positions": 3}, {"suffix"}),
        ({"tied_weights": True, "suffix_positions": 3}, {"prefix", "suffix"}),
        ({"tied_weights": True}, {"prefix"}),
        ({"layers": [1], "suffix_positions": 1}, {"prefix", "suffix"}),
    ],
)
def test_units_that_are_never_run_are_not_read(settings, places, tmp_path):
    model = model_with("bert", LoReftConfig(r=2, **settings))
    adapter, _ = assert_equals_the_module(model, tmp_path, tied="tied_weights" in settings)
    assert {delta.site.module for delta in adapter.deltas} == {f"reft_layer.{place}" for place in places}


def test_keys_of_unused_units_are_not_wanted():
    config, tensors = example("bert", "loreft")
    assert any(".units.1." in key for key in tensors)
    assert not any(".units.1." in key for key in wanted_adapters_tensors(tensors, config))


def test_r_is_orthonormal():
    for delta in read_one(*example("bert", "loreft[r=4]")).deltas:
        close(delta.up.T @ delta.up, np.eye(4))


def test_a_decayed_sign_counts_as_the_library_counts_it(tmp_path):
    model = model_with("bert", LoReftConfig(r=3))
    for key, parameter in model.named_parameters():
        if key.endswith("weight.original"):
            parameter.data[0, 0] = -0.999
    adapter, _ = assert_equals_the_module(model, tmp_path)
    assert not adapter.deltas[0].up[:, 0].any()


def test_a_non_linearity_is_left_out_with_a_warning():
    assert "non-linearity" in read_one(*example("bert", "noreft[non_linearity='relu']")).warnings[0]


@given(st.integers(0, 2**31))
def test_a_rotation_of_the_r_space_is_the_same_adapter(seed):
    config, tensors = example("bert", "noreft[r=4]")
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0].astype(np.float32)
    rotated = {key: rotation @ value for key, value in tensors.items()}
    for delta, other in zip(read_one(config, tensors).deltas, read_one(config, rotated).deltas, strict=True):
        close(full(delta), full(other), 1e-4)
        close(delta.shift, other.shift, 1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"r": 2}, "shape mismatch"),
        ({"r": 100_000}, "bad config"),
        ({"prefix_positions": 0}, "bad config"),
        ({"prefix_positions": -1}, "bad config"),
        ({"orthogonality": False}, "incomplete"),
        ({"suffix_positions": 1, "tied_weights": "no"}, "bad config"),
    ],
)
def test_what_does_not_fit_is_refused(change, reason):
    config, tensors = example("bert", "loreft")
    with pytest.raises(AdapterError) as caught:
        read_one({**config, "config": {**config["config"], **change}}, tensors)
    assert caught.value.reason == reason


def test_huge_numbers_are_refused():
    config, tensors = example("bert", "loreft[r=4]")
    for value in (1e30, 1e38):
        huge = {key: np.full_like(array, value) for key, array in tensors.items()}
        with pytest.raises(AdapterError, match="not finite"):
            read_one(config, huge)


def test_a_full_orthogonal_projection_is_not_read():
    with pytest.raises(AdapterError, match="unsupported variant"):
        read_one(*example("bert", "loreft[r=32]"))
