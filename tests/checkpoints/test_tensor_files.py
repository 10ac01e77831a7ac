"""One way to read weights: which file is opened, and that all kinds give the same."""

from __future__ import annotations

import io

import numpy as np
import pytest
from safetensors.numpy import save

from hubrank.checkpoints.tensor_files import open_tensors
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Listing
from tests.builders import MemoryBundle
from tests.checkpoints.weights import saved


def opened(files: dict[str, bytes], *candidates: str):
    listing = Listing("org/a", "r", None, {name: len(data) for name, data in files.items()})
    return open_tensors(listing, MemoryBundle(files), candidates or tuple(files))


def every_kind() -> dict[str, bytes]:
    import torch

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer = io.BytesIO()
    np.savez(buffer, a=array)
    weights = {"a": torch.from_numpy(array)}
    return {
        "w.safetensors": save({"a": array}),
        "w.npz": buffer.getvalue(),
        "w.bin": saved(weights),
        "w.pt": saved(weights, _use_new_zipfile_serialization=False),
        "w.pth": saved(weights),
        "w.ckpt": saved({"state_dict": weights}),
    }


def test_every_kind_lists_and_reads_alike():
    for name, data in every_kind().items():
        file = opened({name: data})
        assert file.tensors["a"].shape == (2, 3), name
        assert file.tensors["a"].dtype in ("F32", "<f4")
        assert file.read(["a"])["a"].tolist() == [[0, 1, 2], [3, 4, 5]], name


def test_safetensors_is_preferred_to_pickles_whatever_the_order():
    files = every_kind()
    bundle = MemoryBundle(files)
    listing = Listing("org/a", "r", None, {name: len(data) for name, data in files.items()})
    open_tensors(listing, bundle, ["w.bin", "w.pt", "w.safetensors"])
    assert {name for name, _, _ in bundle.reads} == {"w.safetensors"}
    bundle.reads.clear()
    open_tensors(listing, bundle, ["none.safetensors", "w.pth", "w.bin"])
    assert {name for name, _, _ in bundle.reads} == {"w.bin"}


def test_no_candidate_there_says_so():
    with pytest.raises(AdapterError) as caught:
        opened({"a.txt": b""}, "a.txt", "b.bin")
    assert caught.value.reason == "no weights"
    assert "b.bin" in caught.value.detail
