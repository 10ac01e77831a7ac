"""The one door to torch, transformers, peft and adapters, so that they are imported late, once, and quickly."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from typing import Any

from hubrank.errors import UsageError

__all__ = [
    "bfloat16_pays",
    "import_adapters",
    "import_peft",
    "import_torch",
    "import_transformers",
    "in_bfloat16",
    "pick_device",
]

# As torch.cpu.get_capabilities names them: of x86-64, of 64-bit ARM.
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def import_torch() -> Any:
    """Import torch, its threads told to sleep rather than spin while they wait for each other.

    OpenMP's default is to spin, which on a machine that does anything else at the same time costs far more than it saves:
    beside one other busy process, 75 tuning steps on two cores took 200 to 280 s spinning and 10 to 14 s asleep.
    """
    # Read once, when the library is loaded; who has set it knows better.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    return torch


def import_transformers() -> Any:
    """Import transformers without scikit-learn, which it loads for assisted generation where it is installed (1.3 s)."""
    import_torch()
    from transformers.utils import import_utils

    # Private, so read and set with care: where a later release renames it, the import is slower and nothing else changes.
    if getattr(import_utils, "_sklearn_available", None) is True:
        import_utils._sklearn_available = False  # noqa: SLF001
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def import_peft() -> Any:
    """Import peft (transformers first, for its switches)."""
    import_transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
    logging.getLogger("peft").setLevel(logging.ERROR)
    return peft


def import_adapters() -> Any:
    """Import adapters (transformers first, for its switches)."""
    import_transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import adapters
    logging.getLogger("adapters").setLevel(logging.ERROR)
    return adapters


def bfloat16_pays(device: str) -> bool:
    """Whether a device multiplies bfloat16 matrices in units of its own, and so faster than float32.

    Where it has none the products are emulated: on a CPU with AVX2 alone they took 57 times as long as in float32.
    """
    torch = import_torch()
    kind = device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        return False
    if kind == "cuda":
        return bool(torch.version.hip) or int(torch.cuda.get_device_capability(device)[0]) >= 8
    if kind != "cpu" or sys.platform == "darwin":  # whose library of matrix products has only float32 and float64
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(found.get(unit, False) for unit in _BFLOAT16_UNITS)
    # Before torch 2.10, under private names.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and bool(ask()) for ask in asked)


def in_bfloat16(model: Any, device: str) -> bool:
    """Whether a model's products are taken in bfloat16: where that pays, or its weights are kept so for want of memory."""
    torch = import_torch()
    return bfloat16_pays(device) or (
        device.startswith(("cuda", "cpu")) and any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    )


def pick_device(wanted: str) -> str:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` into a device that is there.

    ``auto`` takes CUDA, then MPS, then CPU.

    Raises:
        UsageError: the device is unknown or this machine or this torch does not have it.
    """
    torch = import_torch()
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind, _, number = wanted.partition(":")
    there = {"cpu": True, "cuda": cuda, "mps": mps}
    if not re.fullmatch(r"cpu|mps|cuda(:(0|[1-9][0-9]?))?", wanted):  # torch takes no leading zeros
        raise UsageError(f"--device {wanted}: unknown; use auto, cpu, cuda, cuda:N or mps")
    if not there[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise UsageError(f"--device {wanted}: not available to torch {torch.__version__} here; use auto or cpu")
    return wanted
