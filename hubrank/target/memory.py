"""Does a base model fit the device; and what it looks like when it does not."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubrank.errors import BaseModelError
from hubrank.target.frameworks import import_torch

__all__ = ["Fit", "check_fit", "free_memory", "is_out_of_memory", "release", "weight_bytes"]

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_WORK = 1.2  # beside the weights: activations of one row, what is tuned, and the optimiser's state
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Fit:
    """How a base model is to be loaded, and what it will take, in bytes of ``free``."""

    dtype: str
    needed: int
    free: int | None


def is_out_of_memory(torch: Any, error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def release(torch: Any, device: str) -> None:
    """Give back what the allocator holds for tensors that are no more."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def free_memory(device: str) -> int | None:
    """Bytes that a device has left; None where it does not say."""
    if device.startswith("cuda"):
        free, _ = import_torch().cuda.mem_get_info(device)
        return int(free)
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        line = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def weight_bytes(folder: Path) -> int:
    """What a model's weights would take in float32; files of half precision are told by the config's dtype."""
    size = 0
    for pattern in _WEIGHTS:
        size = sum(file.stat().st_size for file in folder.glob(pattern))
        if size:
            break
    try:
        text = (folder / "config.json").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return size * 2 if '"bfloat16"' in text or '"float16"' in text else size


def check_fit(name: str, folder: Path, device: str, *, smaller: Mapping[str, int] | None = None) -> Fit:
    """How a base model fits a device: in float32, or else on a GPU in bfloat16.

    Args:
        smaller: bytes in float32 of other bases of the zoo, to say which of them would fit.

    Raises:
        BaseModelError: it does not fit.
    """
    full, free = weight_bytes(folder), free_memory(device)
    if free is None or full * _WORK <= free:
        return Fit("float32", int(full * _WORK), free)
    half = full // 2
    if device.startswith("cuda") and half * _WORK <= free:
        return Fit("bfloat16", int(half * _WORK), free)
    needed = half if device.startswith("cuda") else full
    parts = 2 if device.startswith("cuda") else 1
    fitting = [base for base, size in (smaller or {}).items() if size / parts * _WORK <= free]
    hint = f"of the zoo's bases {', '.join(fitting[:3])} would fit" if fitting else "choose a smaller --base"
    raise BaseModelError(
        f"{name} needs about {needed * _WORK / _MIB:,.0f} MB, and {device} has {free / _MIB:,.0f} MB left; {hint}"
    )
