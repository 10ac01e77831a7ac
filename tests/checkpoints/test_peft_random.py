"""VeRA and FourierFT against the real peft, with what was not saved drawn again; and what needs the base model."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from hubrank.checkpoints.peft_random import read_fourierft, read_vera, wanted_vera
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import assert_exact, tune

QUERY = "base_model.model.encoder.layer.0.attention.self.query"
VERA = {
    "bert": ("bert", {"target_modules": ["query", "value"]}, True),
    "widths of two kinds": ("bert", {"target_modules": ["query", "dense"]}, False),
    "conv1d": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}, True),
    "conv1d of two kinds": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}, False),
}
GROUPED = ("llama", {"target_modules": ["q_proj", "v_proj"]})


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "drawn again"])
@pytest.mark.parametrize("case", VERA)
def test_vera_is_what_merging_adds(case, saved, tmp_path):
    from peft import VeraConfig

    kind, config, alone = VERA[case]
    with pytest.warns(UserWarning, match="not save vera_A") if not saved else nullcontext():
        settings = VeraConfig(r=4, save_projection=saved, projection_prng_key=5, **config)
    tuned = tune(kind, settings, tmp_path)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant) == ("lora", "vera")
    assert bool(adapter.warnings) is not saved
    if alone:
        assert_exact(tuned, tuned.read())
    else:
        with pytest.raises(AdapterError, match="needs base"):
            tuned.read()


def test_projections_that_were_saved_tell_the_width_where_all_read_the_hidden_state(tmp_path):
    from peft import VeraConfig

    kind, config = GROUPED
    tuned = tune(kind, VeraConfig(r=4, **config), tmp_path)
    assert_exact(tuned, tuned.read())


def test_without_projections_or_base_the_width_of_grouped_values_is_unknown(tmp_path):
    from peft import VeraConfig

    kind, config = GROUPED
    with pytest.warns(UserWarning, match="not save vera_A"):
        settings = VeraConfig(r=4, save_projection=False, **config)
    tuned = tune(kind, settings, tmp_path)
    assert_exact(tuned, tuned.read(base=True))
    with pytest.raises(AdapterError, match="needs base"):
        tuned.read()


def vera(*, b=8, d=2, **changes):
    tensors = {f"{QUERY}.vera_lambda_b": np.ones(b, np.float32), f"{QUERY}.vera_lambda_d": np.ones(d, np.float32)}
    return {name: value for name, value in {**tensors, **changes}.items() if value is not None}


def shared(a=(2, 8), b=(8, 2), value=1.0):
    return {f"base_model.vera_{n}": np.full(shape, value, np.float32) for n, shape in (("A", a), ("B", b))}


@pytest.mark.parametrize(
    ("tensors", "config", "reason"),
    [
        (vera(**{f"{QUERY}.vera_lambda_d": None}), {}, "incomplete"),
        (vera(b=0), {}, "shape mismatch"),
        (vera(d=3), {}, "shape mismatch"),
        (vera() | shared(b=(7, 2)), {}, "shape mismatch"),
        (vera() | shared(a=(3, 8)), {}, "shape mismatch"),
        (vera() | shared(a=(16,)), {}, "shape mismatch"),
        (vera() | shared(value=np.nan), {}, "not finite"),
        (vera(b=1 << 25), {}, "too large"),
        (vera(), {"projection_prng_key": -1}, "bad config"),
        (vera(), {"projection_prng_key": 1 << 70}, "bad config"),
        (vera(), {"projection_prng_key": "0"}, "bad config"),
        ({}, {}, "no weights"),
    ],
)
def test_a_vera_that_is_wrong(tensors, config, reason):
    with pytest.raises(AdapterError) as caught:
        read_vera({"r": 2, **config}, tensors, "b")
    assert caught.value.reason == reason


def test_what_is_drawn_again_is_bit_for_bit_what_training_had(tmp_path):
    from peft import VeraConfig

    tuned = tune("bert", VeraConfig(r=4, projection_prng_key=99, target_modules=["query", "dense"]), tmp_path, merge=False)
    unsaved = {name: tensor for name, tensor in tuned.tensors.items() if "lambda" in name}
    read = [read_vera(tuned.config, tensors, "b", base_tensors=tuned.base) for tensors in (tuned.tensors, unsaved)]
    for one, other in zip(read[0].deltas, read[1].deltas, strict=True):
        assert np.array_equal(one.up, other.up)
        assert np.array_equal(one.down, other.down)


@pytest.mark.parametrize("weight", [(8, 9), (7, 7), (8, 8, 1)])
def test_projections_that_the_base_contradicts(weight):
    base = {"encoder.layer.0.attention.self.query.weight": np.ones(weight, np.float32)}
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_vera({"r": 2}, vera() | shared(), "b", base_tensors=base)


def test_the_shared_projections_are_wanted():
    names = ["base_model.vera_A", "base_model.vera_B.default", f"{QUERY}.vera_lambda_b", "base_model.model.classifier.weight"]
    assert sorted(wanted_vera(names)) == sorted(names[:3])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("bert", {"target_modules": ["query", "value", "dense"], "n_frequency_pattern": {"query": 7}}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "random_loc_seed": 3, "scaling": 20}),
        ("bert", {"target_modules": ["query"], "n_frequency": 32 * 32}),
    ],
)
def test_fourierft_is_what_merging_adds(kind, config, tmp_path):
    from peft import FourierFTConfig

    tuned = tune(kind, FourierFTConfig(**{"n_frequency": 40, **config}), tmp_path)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("lora", "fourierft", ())
    with pytest.raises(AdapterError, match="needs base"):
        tuned.read()


@pytest.mark.parametrize(
    ("n", "shape", "config", "reason"),
    [
        (4, (2, 3), {"n_frequency": 5}, "shape mismatch"),
        (7, (2, 3), {"n_frequency": 7}, "shape mismatch"),
        (4, (1 << 13, 1 << 13), {}, "too large"),
        (4, (2, 3), {"n_frequency": 10**12}, "bad config"),
        (4, (2, 3), {"random_loc_seed": -1}, "bad config"),
        (4, (2, 3), {"scaling": "1"}, "bad config"),
        (4, (2, 3), {"n_frequency_pattern": []}, "bad config"),
    ],
)
def test_a_fourierft_that_is_wrong(n, shape, config, reason):
    base = {"encoder.layer.0.attention.self.query.weight": np.broadcast_to(np.float32(1), shape)}
    tensors = {f"{QUERY}.fourierft_spectrum": np.ones(n, np.float32)}
    with pytest.raises(AdapterError) as caught:
        read_fourierft({"n_frequency": 4, **config}, tensors, "b", base_tensors=base)
    assert caught.value.reason == reason
