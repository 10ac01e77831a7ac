"""peft's LoRA (and rsLoRA): one low-rank delta a module.

Formula: ``scale * B @ A``, scale = alpha / r, or alpha / sqrt(r) under rsLoRA; peft 0.21, ``tuners/lora/layer.py``.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_lora", "wanted_tensors"]

_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
_WRAPPERS = ("base_model.model.", "base_model.")
# These kinds also change the base weights when training starts, so that B @ A alone is not what was learned.
_CHANGES_BASE = ("pissa", "corda", "olora", "lora_ga", "loftq", "mica")
_MATCH_SECONDS = 1.0  # of processor time for all patterns of an adapter together
_MAX_RANK = 2048  # what factors beyond this hold is a full matrix, and takes as long
_UNREAD = ("use_dora", "use_qalora", "use_bdlora")


def wanted_tensors(names: Iterable[str]) -> list[str]:
    """The tensors of a file that :func:`read_lora` needs: no heads, no embeddings, no full copies of modules."""
    return [name for name in names if _KEY.fullmatch(name)]


def read_lora(config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str) -> Adapter:
    """Turn the LoRA tensors of one adapter into deltas.

    Args:
        config: adapter_config.json.
        tensors: A [r, d_in] and B [d_out, r] by key, as :func:`wanted_tensors` selects them.
        base: id of the base model.

    Raises:
        AdapterError: a factor is missing, of the wrong shape, or not finite; or the config changes the formula in a way
            that is not read.
    """
    for flag in _UNREAD:
        if fields.boolean(config, flag):
            raise AdapterError("unsupported variant", f"{flag} is set")
    warnings = []
    kind = config.get("init_lora_weights")
    if isinstance(kind, str) and kind.lower().startswith(_CHANGES_BASE):
        warnings.append(f"init_lora_weights={kind[:20]}: the update also changed the base weights, which are not here")
    modules = _factors(tensors)
    if not modules:
        raise AdapterError("no LoRA tensors", "no lora_A and lora_B weights in the file")
    deltas = []
    until = time.thread_time() + _MATCH_SECONDS
    for module, (down, up) in sorted(modules.items(), key=lambda item: site_of(item[0])):
        scale = _scale(config, module, down.shape[0], until)
        with np.errstate(over="ignore"):  # what overflows is refused where finiteness is checked
            deltas.append(Delta(site_of(module), down=down, up=up * np.float32(scale)))
    repeated = [str(site) for site, n in Counter(delta.site for delta in deltas).items() if n > 1]
    if repeated:
        raise AdapterError("ambiguous modules", f"{repeated[0]} occurs more than once")
    return Adapter(base, "lora", tuple(deltas), tuple(warnings))


def _factors(tensors: Mapping[str, FloatArray]) -> dict[str, tuple[FloatArray, FloatArray]]:
    parts: dict[str, dict[str, FloatArray]] = {}
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        if match is None:
            continue
        module = _strip(match["module"])
        if match["part"] in parts.setdefault(module, {}):
            raise AdapterError("several adapters", f"{module} has more than one lora_{match['part']}")
        if not np.isfinite(tensor).all():
            raise AdapterError("not finite", f"{name} holds NaN or infinity")
        parts[module][match["part"]] = tensor
    for module, found in parts.items():
        if set(found) != {"A", "B"}:
            raise AdapterError("incomplete", f"{module} lacks lora_{'B' if 'A' in found else 'A'}")
        a, b = found["A"], found["B"]
        if a.shape[:1] > (_MAX_RANK,):
            raise AdapterError("rank too large", f"{module}: rank {a.shape[0]:,}; at most {_MAX_RANK} are read")
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or 0 in (*a.shape, *b.shape):
            raise AdapterError("shape mismatch", f"{module}: lora_A {list(a.shape)} and lora_B {list(b.shape)} do not fit")
    return {module: (found["A"], found["B"]) for module, found in parts.items()}


def _strip(module: str) -> str:
    for wrapper in _WRAPPERS:
        if module.startswith(wrapper):
            return module.removeprefix(wrapper)
    return module


def _scale(config: Mapping[str, Any], module: str, rows: int, until: float) -> float:
    # A config may give a module a rank or an alpha of its own; peft then computes the scale from those.
    rank = fields.match_pattern(fields.mapping(config, "rank_pattern"), module, until=until)
    alpha = fields.match_pattern(fields.mapping(config, "alpha_pattern"), module, until=until)
    r = fields.integer({"r": rank} if rank is not None else config, "r", default=8)
    if r != rows:
        raise AdapterError("shape mismatch", f"{module} has rank {rows}, its config says {r}")
    a = fields.number({"lora_alpha": alpha} if alpha is not None else config, "lora_alpha", default=8.0)
    return a / math.sqrt(r) if fields.boolean(config, "use_rslora") else a / r
