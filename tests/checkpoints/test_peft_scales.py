"""IA3 and LN tuning against the real peft."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints import peft_modules
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_scales import read_ia3, read_ln_tuning
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import assert_exact, tune

KEY = "base_model.model.encoder.layer.0.attention.self.key"
NORM = "base_model.model.encoder.layer.0.output.LayerNorm"
IA3 = {
    "bert": ("bert", ["key", "value", "output.dense"], ["output.dense"], False),
    "conv1d": ("gpt2", ["c_attn", "mlp.c_proj"], ["mlp.c_proj"], True),
    "llama": ("llama", ["k_proj", "v_proj", "down_proj"], ["down_proj"], False),
    "t5": ("t5", ["k", "v", "wo"], ["wo"], False),
}
NORMS = {
    "bert": ("bert", ["LayerNorm"]),
    "llama": ("llama", ["input_layernorm", "post_attention_layernorm", "norm"]),
    "gpt2": ("gpt2", ["ln_1", "ln_2", "ln_f"]),
    "t5": ("t5", ["layer_norm"]),
}


def ia3(folder, case="bert"):
    from peft import IA3Config

    kind, targets, feedforward, conv1d = IA3[case]
    config = IA3Config(target_modules=targets, feedforward_modules=feedforward, fan_in_fan_out=conv1d)
    return tune(kind, config, folder)


@pytest.mark.parametrize("case", IA3)
def test_ia3_is_what_merging_changes_and_the_logarithm_of_its_scales(case, tmp_path):
    tuned = ia3(tmp_path, case)
    for adapter in (tuned.read(base=True), tuned.read()):
        assert (adapter.method, adapter.variant) == ("ia3", "ia3")
        shifts = {delta.site: delta.shift for delta in adapter.deltas}
        for name, scale in tuned.tensors.items():
            module = name.removeprefix("base_model.model.").removesuffix(".ia3_l")
            np.testing.assert_allclose(shifts.pop(site_of(module)), np.log(np.abs(scale.ravel())), atol=1e-5)
        assert not shifts
    assert_exact(tuned, tuned.read(base=True))
    assert tuned.read(base=True).warnings == ()
    assert "without the base" in adapter.warnings[0]
    assert all(delta.up.shape[1] == delta.down.shape[0] == 0 for delta in adapter.deltas)


def test_an_ia3_whose_change_is_too_large_is_its_scales(tmp_path, monkeypatch):
    monkeypatch.setattr(peft_modules, "MAX_ENTRIES", 5_000)
    assert "without the base" in ia3(tmp_path).read(base=True).warnings[0]


def test_a_scale_of_zero_has_a_logarithm():
    (delta,) = read_ia3({}, {f"{KEY}.ia3_l": np.zeros((4, 1), np.float32)}, "b").deltas
    assert np.isfinite(delta.shift).all()


@pytest.mark.parametrize("name", ["ia3_l", "ia3_l.default"])
def test_old_keys(name):
    assert len(read_ia3({}, {f"{KEY}.{name}": np.ones((4, 1), np.float32)}, "b").deltas) == 1


@pytest.mark.parametrize("shape", [(4,), (4, 2), (1, 4, 1, 1), (0, 1), ()])
def test_scales_of_other_shapes(shape):
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_ia3({}, {f"{KEY}.ia3_l": np.ones(shape, np.float32)}, "b")


@pytest.mark.parametrize("case", NORMS)
def test_tuned_norms_are_the_difference_from_the_base(case, tmp_path):
    from peft import LNTuningConfig

    kind, targets = NORMS[case]
    tuned = tune(kind, LNTuningConfig(target_modules=targets), tmp_path)
    adapter = tuned.read(base=True)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("bias", "ln", ())
    shifts = {delta.site: delta.shift for delta in adapter.deltas}
    assert set(shifts) == {site_of(name) for name in tuned.changes}
    for name, change in tuned.changes.items():
        np.testing.assert_allclose(shifts[site_of(name)], change, atol=1e-5)
    with pytest.raises(AdapterError, match="needs base"):
        tuned.read()


@pytest.mark.parametrize(
    ("tuned", "base", "reason"),
    [
        (np.ones(4), np.ones(3), "shape mismatch"),
        (np.ones((4, 4)), np.ones(4), "shape mismatch"),
        (np.ones(4), np.full(4, np.inf), "not"),
    ],
)
def test_norms_that_do_not_fit(tuned, base, reason):
    base = {"encoder.layer.0.output.LayerNorm.weight": base.astype(np.float32)}
    tensors = {f"{NORM}.ln_tuning_layers.weight": tuned.astype(np.float32)}
    with pytest.raises(AdapterError, match=reason):
        read_ln_tuning({}, tensors, "b", base_tensors=base)


@pytest.mark.parametrize("name", ["ln_tuning_layers.weight", "ln_tuning_layers.default.weight"])
def test_old_keys_of_norms(name):
    base = {"encoder.layer.0.output.LayerNorm.weight": np.ones(4, np.float32)}
    (delta,) = read_ln_tuning({}, {f"{NORM}.{name}": np.full(4, 3, np.float32)}, "b", base_tensors=base).deltas
    assert delta.site.module == "output.LayerNorm.weight"
    assert np.array_equal(delta.shift, np.full(4, 2))
