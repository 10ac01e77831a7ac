"""The tensors of a file of ``adapters``, grouped by module and checked as they are taken.

Key grammar (``adapters`` 1.3.0, ``loading.py``): ``[<base>.]<path in the model>.<slot>.<NAME>.<part>``, where NAME is the
adapter's own and the slot one of ``adapters``, ``loras``, ``refts``, ``prefix_tunings``, ``prompt_tunings``,
``shared_parameters``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.card import plain
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = [
    "Budget",
    "Key",
    "Module",
    "base_weights",
    "choose_name",
    "collect",
    "dense_delta",
    "finish",
    "shared_module",
    "split_key",
]

SHARED_SLOT = "shared_parameters"

MAX_ELEMENTS = 1 << 27
"""Of all arrays that one adapter's tensors are multiplied out to: 512 MB in float32; a LLaMA-size Compacter needs a third."""

MAX_EXACT = 1 << 28
"""Of the base weights whose exact updates are made: 1 GB; RoBERTa-large under (IA)^3 needs 0.6."""

# Slots of adapter-transformers 1 and 2 (loading.py, legacy_weights_mapping).
_SPELLINGS = MappingProxyType(
    {
        "adapters": (
            "adapters",
            "attention_text_task_adapters",
            "attention_text_lang_adapters",
            "layer_text_task_adapters",
            "layer_text_lang_adapters",
        )
    }
)
# GPT-2's own linear layers keep their weights as [in, out].
_CONV1D = ("c_attn", "c_fc", "c_proj", "q_attn")


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart; ``module`` ends before the slot."""

    module: str
    name: str
    part: str


def split_key(key: str, slot: str, parts: Collection[str]) -> Key | None:
    """Take a key apart.

    Args:
        slot: the component between module and adapter name; old spellings of it are understood.
        parts: components that a part may begin with.

    Returns:
        None where the key is of another kind.
    """
    components = key.split(".")
    spellings = _SPELLINGS.get(slot, (slot,))
    at = next((i for i, component in enumerate(components) if component in spellings), None)
    if at is None:
        return None
    # The name comes first and may be any word, so that a part is looked for behind it.
    begin = next((i for i in range(at + 2, len(components)) if components[i] in parts), None)
    if begin is None:
        return None
    return Key(".".join(components[:at]), ".".join(components[at + 1 : begin]), ".".join(components[begin:]))


def choose_name(found: Collection[str], wanted: str | None) -> str | None:
    """The adapter's name among those in the keys: the one that the config names, else the only one.

    Raises:
        AdapterError: with reason ``several adapters``.
    """
    if wanted in found:
        return wanted
    if len(found) > 1:
        raise AdapterError("several adapters", f"the file holds {len(found)} adapters, none of the name in its config")
    return next(iter(found), None)


class Module:
    """The tensors of an adapter at one module of the model.

    Attributes:
        path: of the module, without the slot.
        parts: its tensors, by what follows the adapter's name in their keys.
    """

    def __init__(self, path: str, parts: Mapping[str, FloatArray]) -> None:
        self.path = path
        self.parts = parts

    def __contains__(self, part: str) -> bool:
        return part in self.parts

    @property
    def label(self) -> str:
        """The path, short and fit to be shown."""
        return plain(self.path, 80) or "the adapter"

    def take(self, part: str, *shape: int | None) -> FloatArray:
        """A tensor of a shape; None stands for any size but 0.

        Raises:
            AdapterError: it is missing, of another shape, or holds NaN or infinity.
        """
        tensor = self.parts.get(part)
        if tensor is None:
            raise AdapterError("incomplete", f"{self.label} lacks {part}")
        fits = tensor.ndim == len(shape) and all(
            size > 0 and wanted in (None, size) for size, wanted in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            wanted_text = ", ".join("any" if size is None else str(size) for size in shape)
            raise AdapterError("shape mismatch", f"{self.label}: {part} is {list(tensor.shape)}, not [{wanted_text}]")
        if not np.isfinite(tensor).all():
            raise AdapterError("not finite", f"{self.label}: {part} holds NaN or infinity")
        return tensor


def collect(
    tensors: Mapping[str, FloatArray], slot: str, parts: Collection[str], name: str | None
) -> tuple[dict[str, Module], str | None]:
    """The modules of one adapter by path, in the order of their sites, and the adapter's name.

    Raises:
        AdapterError: the file holds several adapters, or a module twice.
    """
    keys = {key: split for key in tensors if (split := split_key(key, slot, parts))}
    chosen = choose_name({split.name for split in keys.values()}, name)
    grouped: dict[str, dict[str, FloatArray]] = {}
    for key, split in keys.items():
        if split.name != chosen:
            continue
        module = grouped.setdefault(split.module, {})
        if split.part in module:
            raise AdapterError("ambiguous modules", f"{plain(split.module, 80)} has two tensors for {plain(split.part, 40)}")
        module[split.part] = tensors[key]
    ordered = sorted(grouped, key=lambda path: (site_of(path), path))
    return {path: Module(path, grouped[path]) for path in ordered}, chosen


def shared_module(tensors: Mapping[str, FloatArray], parts: Collection[str], name: str | None) -> Module:
    """What all layers of an adapter share; without tensors where a file has none.

    Raises:
        AdapterError: the file holds it for several adapters, or at several places.
    """
    found, _ = collect(tensors, SHARED_SLOT, parts, name)
    if len(found) > 1:
        raise AdapterError("ambiguous modules", f"{SHARED_SLOT} at more than one module")
    return Module(SHARED_SLOT, {}) if not found else Module(SHARED_SLOT, next(iter(found.values())).parts)


class Budget:
    """Bounds what an adapter's tensors are multiplied out to, which a small hostile file could make enormous."""

    def __init__(self) -> None:
        self._left = MAX_ELEMENTS

    def spend(self, elements: int) -> None:
        """Raises AdapterError, with reason ``shape mismatch``, before an array is made that does not fit."""
        self._left -= elements
        if self._left < 0:
            raise AdapterError("shape mismatch", f"the tensors multiply out to more than {MAX_ELEMENTS:,} numbers")


def base_weights(base_tensors: BaseTensors | None, rows: Mapping[str, int]) -> dict[str, FloatArray] | str:
    """The base model's weights of all modules, [rows, d_in] as of a torch Linear, or why an exact update cannot be had.

    It is all of them or none, because exact updates and descriptions could not be compared with each other.

    Args:
        rows: of the weight, by the module's path in the adapter's keys.

    Raises:
        AdapterError: a weight is of another shape; the base model is another one.
    """
    if base_tensors is None:
        return "without the base weights"
    weights = {}
    elements = 0
    for module, count in rows.items():
        weight = _base_weight(base_tensors, module, count)
        if weight is None:
            return "without the base weights"
        weights[module] = weight
        elements += weight.size
        if elements > MAX_EXACT:
            return "of a model too large for exact updates"
    return weights


def _base_weight(base_tensors: BaseTensors, module: str, rows: int) -> FloatArray | None:
    # Keys of an adapter may start with the name of the base model inside a model with heads (bert.), or not.
    weight = base_tensors.get(f"{module}.weight")
    if weight is None and "." in module:
        weight = base_tensors.get(f"{module.partition('.')[2]}.weight")
    if weight is None:
        return None
    if module.rpartition(".")[2] in _CONV1D:
        weight = weight.T
    if weight.ndim != 2 or weight.shape[0] != rows or not weight.shape[1]:
        raise AdapterError("shape mismatch", f"{plain(module, 80)}: the base weight is {list(weight.shape)}, not {rows} rows")
    return weight


def dense_delta(module: str, update: FloatArray) -> Delta:
    """An update [d_out, d_in] that has no small factors: itself and an identity on its smaller side."""
    rows, columns = update.shape
    eye = _identity(min(rows, columns))
    dense = update.astype(np.float32, copy=False)
    return Delta(site_of(module), down=dense, up=eye) if rows <= columns else Delta(site_of(module), down=eye, up=dense)


@lru_cache(maxsize=4)
def _identity(size: int) -> FloatArray:
    # Every site of a model needs the same few.
    eye = np.eye(size, dtype=np.float32)
    eye.flags.writeable = False
    return eye


def finish(base: str, method: str, deltas: Sequence[Delta], warnings: Iterable[str] = (), variant: str = "") -> Adapter:
    """An adapter with its deltas in the order of their sites.

    Raises:
        AdapterError: there are none, two of them are of one site, or one of them overflowed.
    """
    if not deltas:
        raise AdapterError("no weights", f"the file holds no tensors of {method}")
    ordered = sorted(deltas, key=lambda delta: delta.site)
    for before, delta in pairwise(ordered):
        if before.site == delta.site:
            raise AdapterError("ambiguous modules", f"{plain(str(delta.site), 80)} occurs more than once")
    for delta in ordered:
        arrays = (delta.down, delta.up) if delta.shift is None else (delta.down, delta.up, delta.shift)
        if not all(np.isfinite(array).all() for array in arrays):
            raise AdapterError("not finite", f"{plain(str(delta.site), 80)}: the update overflows")
    return Adapter(base, method, tuple(ordered), tuple(warnings), variant)
