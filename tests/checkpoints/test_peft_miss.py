"""MiSS against the real peft: a delta is what merging adds to the weight, where the width of the input can be known."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_miss import read_miss
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import assert_exact, tune

QUERY = "base_model.model.encoder.layer.0.attention.self.query"
CASES = {
    "defaults": {"r": 4},
    "a rank that does not divide": {"r": 5, "init_weights": False},
    "mini": {"r": 5, "mini_r": 4, "init_weights": "mini"},
    "bat": {"r": 4, "init_weights": "bat"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kind", "targets"), [("bert", ["query", "dense"]), ("llama", ["q_proj", "v_proj"])])
def test_miss_is_what_merging_adds(case, kind, targets, tmp_path):
    from peft import MissConfig

    tuned = tune(kind, MissConfig(target_modules=targets, **CASES[case]), tmp_path)
    adapter = tuned.read(base=True)
    assert_exact(tuned, adapter)
    assert (adapter.method, adapter.variant, adapter.warnings) == ("lora", "miss", ())
    with pytest.raises(AdapterError, match="needs base"):
        tuned.read()


@pytest.mark.parametrize("rank", [4, 5, 32])
def test_modules_whose_shape_follows_from_their_name_need_no_base(rank, tmp_path):
    from peft import MissConfig

    tuned = tune("bert", MissConfig(r=rank, target_modules=["query", "value"]), tmp_path)
    assert_exact(tuned, tuned.read())


def test_bat_without_the_base_is_the_part_that_does_not_depend_on_it(tmp_path):
    from peft import MissConfig

    tuned = tune("bert", MissConfig(r=4, init_weights="bat", target_modules=["query"]), tmp_path)
    adapter = tuned.read()
    assert "without the base" in adapter.warnings[0]
    zero = {name: np.zeros_like(value) for name, value in tuned.base.items()}
    tuned.base.clear()
    tuned.base.update(zero)
    for delta, exact in zip(adapter.deltas, tuned.read(base=True).deltas, strict=True):
        assert delta.site == exact.site
        np.testing.assert_allclose(delta.up @ delta.down, exact.up @ exact.down, atol=1e-6)
    assert [delta.site for delta in adapter.deltas] == [site_of(n.removesuffix(".weight")) for n in tuned.changes]


@pytest.mark.parametrize(
    ("shape", "config", "reason"),
    [
        ((4, 8), {"r": 3}, "shape mismatch"),
        ((4,), {"r": 4}, "shape mismatch"),
        ((9, 8), {"r": 9}, "shape mismatch"),  # more than the input has columns
        ((2, 4, 4), {"r": 4}, "shape mismatch"),
        ((4, 8), {"r": 4, "init_weights": "bat"}, "shape mismatch"),
        ((2, 3, 4), {"r": 4, "init_weights": "bat"}, "shape mismatch"),
        ((4, 8), {"r": 4, "init_weights": "new"}, "unsupported variant"),
        ((4, 8), {"r": 4, "init_weights": {"bat": 1}}, "unsupported variant"),
        ((4, 2), {"r": 4, "init_weights": "mini", "mini_r": 3}, "shape mismatch"),
        ((4, 2), {"r": 4, "init_weights": "mini", "mini_r": 2}, "needs base"),
        ((4, 2), {"r": 4, "init_weights": "mini", "mini_r": 0}, "bad config"),
    ],
)
def test_a_miss_that_is_wrong(shape, config, reason):
    with pytest.raises(AdapterError) as caught:
        read_miss(config, {f"{QUERY}.miss_block": np.broadcast_to(np.float32(1), shape)}, "b")
    assert caught.value.reason == reason


def test_an_input_that_is_too_wide():
    base = {"encoder.layer.0.attention.self.query.weight": np.broadcast_to(np.float32(1), (8, 1 << 17))}
    with pytest.raises(AdapterError, match="too large"):
        read_miss({"r": 1 << 12}, {f"{QUERY}.miss_block": np.ones((1 << 12, 8), np.float32)}, "b", base_tensors=base)


@pytest.mark.parametrize(
    ("shape", "config", "weight"),
    [
        ((4, 3), {"r": 4, "init_weights": "mini", "mini_r": 3}, (8, 8)),
        ((2, 4, 4), {"r": 4, "init_weights": "bat"}, (8, 6)),
        ((4, 8), {"r": 4}, (7, 7)),
        ((4, 8), {"r": 4}, (8, 3)),
    ],
)
def test_a_base_that_does_not_fit(shape, config, weight):
    base = {"encoder.layer.0.attention.self.query.weight": np.ones(weight, np.float32)}
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_miss(config, {f"{QUERY}.miss_block": np.ones(shape, np.float32)}, "b", base_tensors=base)
