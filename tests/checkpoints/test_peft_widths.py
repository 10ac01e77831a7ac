"""How wide an input is, where the name of a module tells."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints.peft_widths import input_width, read_one_space, shape_of
from hubrank.errors import AdapterError


@pytest.mark.parametrize(
    ("module", "d_out", "width"),
    [
        ("encoder.layer.0.attention.self.query", 32, 32),
        ("attention.self.query", 32, 32),
        ("h.0.attn.c_attn", 96, 32),
        ("h.0.attn.c_attn", 97, None),
        ("h.0.attn.c_proj", 32, 32),
        ("h.0.mlp.c_proj", 32, None),
        ("encoder.layer.0.output.dense", 32, None),
        ("encoder.layer.0.xattention.self.query", 32, None),
        ("layers.0.self_attn.q_proj", 32, None),
    ],
)
def test_the_width_that_a_name_tells(module, d_out, width):
    assert input_width(module, d_out) == width


def test_modules_that_read_one_space():
    assert read_one_space(["layers.0.self_attn.q_proj", "layers.1.self_attn.v_proj"])
    assert read_one_space(["encoder.layer.0.intermediate.dense", "encoder.layer.1.intermediate.dense"])
    assert not read_one_space(["encoder.layer.0.intermediate.dense", "encoder.layer.0.output.dense"])


def test_what_cannot_be_read_without_the_base():
    with pytest.raises(AdapterError, match="needs base"):
        shape_of(None, "x", {})
    assert shape_of({"x.weight": np.ones((2, 3), np.float32)}, "x", {}) == (2, 3)
