"""What all peft families share: keys to modules, the scale of a module, large factors, and the finished adapter.

A key is ``base_model.model.<module path>.<parameter>``, with ``.weight`` where the parameter is itself a module, and with
the adapter's name after the parameter in old files; peft 0.21, ``utils/save_and_load.py``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.dtypes import not_finite
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

    Parts: TypeAlias = dict[str, FloatArray]

__all__ = ["MAX_ENTRIES", "Budget", "Clock", "Grammar", "adapter_of", "deadline", "matrix", "scale_of", "vector_delta"]

MAX_ENTRIES = 1 << 28
"""Numbers that the factors made for one adapter may hold in all (1 GiB): some families are small files of large matrices."""

_WRAPPERS = ("base_model.model.", "base_model.")
_MATCH_SECONDS = 1.0  # of processor time for all patterns of an adapter together
_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?"

_MAX_KEPT = 200

Clock: TypeAlias = float
"""A moment on the clock of ``time.thread_time``."""


def deadline() -> Clock:
    """When matching the patterns of an adapter that is read from now on has taken too long."""
    return time.thread_time() + _MATCH_SECONDS


@dataclass(frozen=True, slots=True)
class _Key:
    """A key taken apart."""

    module: str
    part: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """The keys of one family: regular expressions with groups ``module`` and ``part``."""

    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, *parts: str) -> Grammar:
        """Keys of the named parameters; one that is a module of its own is written with its ``.weight``."""
        patterns = []
        for part in parts:
            name, dot, leaf = part.partition(".")
            tail = rf"\.{leaf}" if dot else ""
            patterns.append(re.compile(rf"(?P<module>.+)\.(?P<part>{name}){_ADAPTER}{tail}"))
        return cls(tuple(patterns))

    def wanted(self, names: Iterable[str]) -> list[str]:
        """The names that belong to the family: no heads, no embeddings, no full copies of modules."""
        return [name for name in names if self._match(name)]

    def modules(self, tensors: Mapping[str, FloatArray]) -> dict[str, Parts]:
        """The parameters of each module, by name.

        Raises:
            AdapterError: a parameter is there twice, or is not finite.
        """
        modules: dict[str, Parts] = {}
        read: list[str] = []
        for name, tensor in tensors.items():
            key = self._match(name)
            if key is None:
                continue
            parts = modules.setdefault(key.module, {})
            if key.part in parts:
                raise AdapterError("several adapters", f"{key.module[-120:]} has more than one {key.part}")
            parts[key.part] = tensor
            read.append(name)
        broken = not_finite(tensors[name] for name in read)
        if broken is not None:
            raise AdapterError("not finite", f"{read[broken][-120:]} holds NaN or infinity")
        if not modules:
            raise AdapterError("no weights", "the file holds no tensors of this method")
        return dict(sorted(modules.items(), key=lambda item: _order(site_of(item[0]))))

    def _match(self, name: str) -> _Key | None:
        # The same few hundred names are in thousands of adapters; names that no model has are not kept.
        return _known_key(self.patterns, name) if len(name) <= _MAX_KEPT else _key(self.patterns, name)


@lru_cache(maxsize=16_384)
def _known_key(patterns: tuple[re.Pattern[str], ...], name: str) -> _Key | None:
    return _key(patterns, name)


def _key(patterns: tuple[re.Pattern[str], ...], name: str) -> _Key | None:
    if ".modules_to_save." in name or ".original_module." in name:
        return None
    match = next((match for pattern in patterns if (match := pattern.fullmatch(name))), None)
    return None if match is None else _Key(_strip(match["module"]), match["part"])


def _strip(module: str) -> str:
    for wrapper in _WRAPPERS:
        if module.startswith(wrapper):
            return module.removeprefix(wrapper)
    return module


def matrix(parts: Mapping[str, FloatArray], name: str, module: str, *, ndim: int = 2) -> FloatArray:
    """One parameter of a module, of ``ndim`` dimensions, none of them empty.

    Raises:
        AdapterError: it is not there, or of another shape.
    """
    tensor = parts.get(name)
    if tensor is None:
        raise AdapterError("incomplete", f"{module[-120:]} lacks {name}")
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise AdapterError("shape mismatch", f"{module[-120:]}: {name} has the shape {list(tensor.shape)}")
    return tensor


def scale_of(config: Mapping[str, Any], module: str, rows: int | None, until: Clock, *, alpha: str = "lora_alpha") -> float:
    """alpha / r, or alpha / sqrt(r) under LoRA's rsLoRA, with what the config's patterns say of this module.

    Args:
        rows: the rank that the tensors have, where they show it.
        alpha: the field that holds alpha.

    Raises:
        AdapterError: the config is malformed, or contradicts the tensors.
    """
    ranks, alphas = fields.mapping(config, "rank_pattern"), fields.mapping(config, "alpha_pattern")
    rank = fields.match_pattern(ranks, module, until=until) if ranks else None
    own = fields.match_pattern(alphas, module, until=until) if alphas else None
    r = fields.integer({"r": rank} if rank is not None else config, "r", default=8)
    if rows not in (None, r):
        raise AdapterError("shape mismatch", f"{module[-120:]} has rank {rows}, its config says {r}")
    a = fields.number({alpha: own} if own is not None else config, alpha, default=8.0)
    return a / math.sqrt(r) if alpha == "lora_alpha" and fields.boolean(config, "use_rslora") else a / r


class Budget:
    """Counts what is made for one adapter, and shares the identities that go with dense factors."""

    def __init__(self) -> None:
        self._left = MAX_ENTRIES
        self._identities: dict[int, FloatArray] = {}

    def take(self, entries: int, module: str) -> None:
        """Raises AdapterError ("too large") where this many more numbers are too many. To be asked before making them."""
        if entries > self._left:
            raise AdapterError("too large", f"{module[-120:]}: the adapter's factors exceed {MAX_ENTRIES:,} numbers")
        self._left -= entries

    def fits(self, shapes: Iterable[tuple[int, int]]) -> bool:
        """Whether dense matrices of these shapes, with their identities, could all be had."""
        shapes = list(shapes)
        sides = {min(shape) for shape in shapes} - set(self._identities)
        return sum(out * into for out, into in shapes) + sum(side * side for side in sides) <= self._left

    def factors(self, dense: FloatArray, module: str) -> tuple[FloatArray, FloatArray]:
        """Exact (up, down) of a dense [d_out, d_in]: itself and the identity of the smaller side."""
        side = min(dense.shape)
        if side not in self._identities:
            self.take(side * side, module)
            self._identities[side] = np.eye(side, dtype=np.float32)
        dense = np.ascontiguousarray(dense, dtype=np.float32)
        identity = self._identities[side]
        return (dense, identity) if dense.shape[1] == side else (identity, dense)


def vector_delta(module: str, shift: FloatArray) -> Delta:
    """A delta that only shifts: rank 0."""
    size = len(shift)
    down, up = np.zeros((0, size), np.float32), np.zeros((size, 0), np.float32)
    return Delta(site_of(module), down=down, up=up, shift=shift.astype(np.float32))


def adapter_of(base: str, method: str, deltas: Sequence[Delta], *, variant: str = "", warnings: Sequence[str] = ()) -> Adapter:
    """The finished adapter, deltas in the order of their sites.

    Raises:
        AdapterError: there are none, a site occurs twice, or a number overflowed.
    """
    if not deltas:
        raise AdapterError("no weights", "the file holds no update of any module")
    ordered = sorted(deltas, key=lambda delta: _order(delta.site))
    for before, delta in pairwise(ordered):
        if before.site == delta.site:
            raise AdapterError("ambiguous modules", f"{str(delta.site)[-120:]} occurs more than once")
    arrays = [
        (delta.site, array)
        for delta in ordered
        for array in (delta.down, delta.up, delta.shift, delta.spectrum)
        if array is not None
    ]
    broken = not_finite(array for _, array in arrays)
    if broken is not None:
        raise AdapterError("not finite", f"{str(arrays[broken][0])[-120:]}: the update overflows")
    return Adapter(base, method, tuple(ordered), tuple(warnings), variant)


# As the sites themselves compare, without a call for each comparison.
_order = attrgetter("stack", "layer", "module")
