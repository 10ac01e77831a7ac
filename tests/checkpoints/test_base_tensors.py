"""The base model's own weights: found by the adapter's names, and turned the way adapters count."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints.base_tensors import base_vector, base_weight
from hubrank.errors import AdapterError

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BASE = {
    "layer.0.query.weight": WEIGHT,
    "square.weight": np.arange(4, dtype=np.float32).reshape(2, 2),
    "layer.0.norm.bias": WEIGHT[0],
}


@pytest.mark.parametrize("module", ["layer.0.query", "bert.layer.0.query", "model.bert.layer.0.query"])
def test_names_of_a_headed_model_are_left_out(module):
    assert np.array_equal(base_weight(BASE, module, {}), WEIGHT)


@pytest.mark.parametrize("module", ["layer.1.query", "0.query", "query", "a.b.c.layer.0.query", "", "."])
def test_what_is_not_there(module):
    assert base_weight(BASE, module, {}) is None
    assert base_weight(None, module, {}) is None
    assert base_vector(BASE, module, 3) is None


@pytest.mark.parametrize(
    ("config", "known", "turned"),
    [
        ({}, {}, False),
        ({}, {"d_out": 2}, False),
        ({}, {"d_out": 3}, True),
        ({}, {"d_in": 2}, True),
        ({"fan_in_fan_out": True}, {}, True),
        ({"fan_in_fan_out": True}, {"d_out": 3, "d_in": 2}, True),
        ({"fan_in_fan_out": True}, {"d_out": 2}, False),  # one flag for a model that has both kinds
        ({}, {"transposed": True}, True),
    ],
)
def test_the_way_it_is_kept(config, known, turned):
    expected = WEIGHT.T if turned else WEIGHT
    assert np.array_equal(base_weight(BASE, "layer.0.query", config, **known), expected)


def test_a_square_one_is_as_the_config_says():
    assert np.array_equal(base_weight(BASE, "square", {"fan_in_fan_out": True}), BASE["square.weight"].T)


def test_what_does_not_fit():
    for known in ({"d_out": 4}, {"d_out": 2, "d_in": 2}):
        with pytest.raises(AdapterError, match="shape mismatch"):
            base_weight(BASE, "layer.0.query", {}, **known)
    with pytest.raises(AdapterError, match="shape mismatch"):
        base_vector(BASE, "layer.0.norm.bias", 4)
    assert np.array_equal(base_vector(BASE, "bert.layer.0.norm.bias", 3), WEIGHT[0])
