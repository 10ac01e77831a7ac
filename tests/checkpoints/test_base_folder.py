"""Parameters of a base model from its folder: one file or shards, with and without a head's name in front."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.errors import AdapterError

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_names_are_found_with_and_without_the_head_s_word(tmp_path):
    save_file({"bert.encoder.layer.0.weight": WEIGHT, "cls.bias": WEIGHT[0]}, tmp_path / "model.safetensors")
    tensors = FolderTensors(tmp_path)
    for name in ("bert.encoder.layer.0.weight", "encoder.layer.0.weight"):
        found = tensors.get(name)
        assert found is not None
        assert np.array_equal(found, WEIGHT)
    assert tensors.get("bias") is None
    assert tensors.get("encoder.layer.1.weight") is None


def test_shards_are_read_where_they_are(tmp_path):
    save_file({"a.weight": WEIGHT}, tmp_path / "one.safetensors")
    save_file({"b.weight": WEIGHT + 1}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a.weight": "one.safetensors", "b.weight": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = FolderTensors(tmp_path)
    assert np.array_equal(tensors.get("b.weight"), WEIGHT + 1)


@pytest.mark.parametrize("index", [None, "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": "../../etc/passwd"}}', "{"])
def test_a_folder_without_sound_weights(tmp_path, index):
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(AdapterError):
        FolderTensors(tmp_path)
