"""The door to torch and transformers: which device, and how little is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from hubrank.errors import UsageError
from hubrank.target.frameworks import bfloat16_pays, import_torch, in_bfloat16, pick_device


@pytest.fixture
def machine(monkeypatch):
    """Makes torch say what the machine has."""
    torch = import_torch()

    def has(*, cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    has()
    return has


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (2, True, "cuda")]
)
def test_auto_takes_the_fastest(machine, cuda, mps, device):
    machine(cuda=cuda, mps=mps)
    assert pick_device("auto") == device


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_what_is_there_is_taken_by_name(machine, device):
    machine(cuda=2, mps=True)
    assert pick_device(device) == device
    import_torch().device(pick_device(device))


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
def test_what_is_not_there(machine, device):
    with pytest.raises(UsageError, match=f"--device {device}: not available to torch .*; use auto or cpu"):
        pick_device(device)


def test_a_cuda_device_beyond_the_last(machine):
    machine(cuda=2)
    with pytest.raises(UsageError, match="--device cuda:2: not available"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    "device",
    [
        "",
        "gpu",
        "CPU",
        "cpu ",
        "cpu:",
        "cpu:0",
        "auto:0",
        "mps:0",
        "cuda:",
        "cuda:x",
        "cuda:-1",
        "cuda:01",
        "cuda:\u0661",
        "cuda:0:0",
        "meta",
    ],
)
def test_unknown(machine, device):
    """Whatever passes here is given to torch, which takes none of these."""
    machine(cuda=2, mps=True)
    with pytest.raises(UsageError, match=r"unknown; use auto, cpu, cuda, cuda:N or mps$"):
        pick_device(device)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_transformers_and_peft_come_without_scikit_learn():
    code = (
        "import sys\n"
        "from hubrank.target.frameworks import import_peft, import_transformers\n"
        "import_transformers().BertModel, import_peft().LoraConfig\n"
        "assert 'transformers.generation.utils' in sys.modules\n"  # where it would be imported
        "sys.exit('sklearn' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")


AVX2 = {"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False, "architecture": "x86_64"}


@pytest.mark.parametrize(
    ("platform", "capabilities", "pays"),
    [
        ("linux", AVX2, False),
        ("linux", AVX2 | {"avx512_f": True}, False),
        ("linux", AVX2 | {"avx512_f": True, "avx512_bf16": True}, True),
        ("win32", AVX2 | {"amx_bf16": True}, True),
        ("linux", {"neon": True, "bf16": True, "architecture": "arm64"}, True),
        ("linux", {"neon": True, "architecture": "arm64"}, False),
        ("darwin", {"neon": True, "bf16": True, "architecture": "arm64"}, False),
    ],
)
def test_bfloat16_pays_on_a_processor_that_has_units_for_it(platform, capabilities, pays, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bfloat16_pays("cpu") is pays


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_an_older_torch_tells_it_too(avx512, amx, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert bfloat16_pays("cpu") is (avx512 or amx)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert bfloat16_pays("cpu") is amx


@pytest.mark.parametrize(("capability", "pays"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_pays_from_ampere_on_and_not_on_mps(capability, pays, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bfloat16_pays("cuda:0") is False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert bfloat16_pays("cuda:0") is pays
    assert bfloat16_pays("mps") is False


def test_weights_kept_in_bfloat16_are_multiplied_in_it_whatever_it_costs(monkeypatch):
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: False)
    model = torch.nn.Linear(2, 2)
    assert in_bfloat16(model, "cuda") is False
    model.to(torch.bfloat16)
    assert in_bfloat16(model, "cuda") is True
    assert in_bfloat16(model, "mps") is False
