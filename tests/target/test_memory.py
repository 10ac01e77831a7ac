"""What fits a device, and what a lack of memory looks like."""

from __future__ import annotations

import pytest

from hubrank.errors import BaseModelError
from hubrank.target import memory
from hubrank.target.frameworks import import_torch
from hubrank.target.memory import check_fit, free_memory, is_out_of_memory, weight_bytes

MB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(100 * MB)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def free(monkeypatch, megabytes):
    monkeypatch.setattr(memory, "free_memory", lambda device: None if megabytes is None else megabytes * MB)


def test_weights_count_as_float32(folder):
    assert weight_bytes(folder) == 100 * MB
    (folder / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    assert weight_bytes(folder) == 200 * MB


def test_it_fits_or_fits_in_half_precision_or_not(folder, monkeypatch):
    free(monkeypatch, 200)
    assert check_fit("org/a", folder, "cuda").dtype == "float32"
    free(monkeypatch, 70)
    assert check_fit("org/a", folder, "cuda").dtype == "bfloat16"
    with pytest.raises(BaseModelError, match=r"^org/a needs about 120 MB, and cpu has 70 MB left; choose a smaller --base$"):
        check_fit("org/a", folder, "cpu")
    free(monkeypatch, 50)
    said = r"needs about 60 MB, and cuda has 50 MB left; of the zoo's bases org/b would fit$"
    with pytest.raises(BaseModelError, match=said):
        check_fit("org/a", folder, "cuda", smaller={"org/b": 80 * MB, "org/c": 99 * MB})


def test_a_device_that_does_not_say_is_tried(folder, monkeypatch):
    free(monkeypatch, None)
    assert check_fit("org/a", folder, "mps").dtype == "float32"


def test_this_machine_has_some(monkeypatch):
    assert free_memory("cpu") > MB


def test_what_a_lack_of_memory_looks_like():
    torch = import_torch()
    assert is_out_of_memory(torch, torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(torch, MemoryError())
    assert is_out_of_memory(torch, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(torch, RuntimeError("shapes cannot be multiplied"))
