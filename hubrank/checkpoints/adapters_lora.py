"""LoRA of ``adapters`` and what it builds on it: DoRA, (IA)^3, VeRA, DVoRA and MTL-LoRA (``methods/lora.py``).

| method   | update of the weight W [out, in] |
|----------|----------------------------------|
| LoRA     | ``s B A``, s = alpha / r; with gates s is 1, as in the library, and the gate is left out |
| VeRA     | ``s vera_B B vera_D A``, with A and B shared by all layers |
| MTL-LoRA | ``s sum_u p_u B_u diag(values) A``, p the softmax of the weights over their sharpness |
| DoRA     | ``m / norm (W + s B A) - W`` with norm the row norms of ``W + B A`` |
| (IA)^3   | ``(l - 1) W`` on the rows of W, l = alpha B |

DoRA trains and runs by the formula above; ``merge_adapter`` forgets the s in it, which shows only where alpha is not r.
Without the base model's weights a DoRA is described by its low-rank part, with the magnitudes m as shift. An (IA)^3 is
described by the shift log|l| (|l| no smaller than 1e-6), beside which the exact update stands where W is at hand; its input
size is not in the file, so that without W its empty factors are [0, 0] and [out, 0].

Where query, key and value are one layer (GPT-2, ModernBERT, DeBERTa), A has one block of r rows for each that is adapted, B
as many blocks of rows, and B A is block by block; the rest of the layer stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.adapters_config import AdaptersConfig
from hubrank.checkpoints.adapters_weights import (
    SHARED_SLOT,
    Budget,
    Module,
    base_weights,
    collect,
    dense_delta,
    finish,
    shared_module,
    split_key,
)
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_lora_like", "wanted_lora_like"]

_SLOT = "loras"
_PARTS = ("lora_A", "lora_B", "m", "vera_B", "vera_D", "task_specific", "weights", "gate")
_SHARED_PARTS = ("lora_A", "lora_B")
_FUSED = ("c_attn", "Wqkv", "in_proj", "qkv", "qkv_proj", "query_key_value")
_QKV = ("q", "k", "v")
_SMALLEST = 1e-6
_GATED = "gates that depend on the input are left out"


@dataclass(frozen=True, slots=True)
class _Low:
    """A low-rank update before its scale: ``up @ down``."""

    up: FloatArray
    down: FloatArray


def wanted_lora_like(names: Iterable[str], config: AdaptersConfig, method: Mapping[str, Any]) -> list[str]:
    """The keys of all factors, magnitudes and VeRA's shared factors; not the gates."""
    del config
    wanted = []
    for name in names:
        key = split_key(name, _SLOT, _PARTS)
        shared = _is_vera(method) and split_key(name, SHARED_SLOT, _SHARED_PARTS)
        if shared or (key and not key.part.startswith("gate")):
            wanted.append(name)
    return wanted


def read_lora_like(
    config: AdaptersConfig,
    architecture: str,
    method: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,
) -> Adapter:
    """One delta a module; of a fused layer one delta for all of it.

    Args:
        architecture: ``lora`` or ``mtl_lora``.
        base_tensors: of the base model, for the exact updates of DoRA and (IA)^3.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite, or the config is not understood.
    """
    modules, name = collect(tensors, _SLOT, _PARTS, config.name)
    mode = method.get("composition_mode", "add")
    if mode == "scale":
        return _read_ia3(method, modules, base, base_tensors)
    if mode != "add":
        raise AdapterError("bad config", "composition_mode is neither add nor scale")
    gated = fields.boolean(method, "use_gating")
    alpha, rank = fields.number(method, "alpha", default=8.0), fields.integer(method, "r", default=8)
    scale = np.float32(1.0 if gated else alpha / rank)
    multitask, vera, dora = architecture == "mtl_lora", _is_vera(method), fields.boolean(method, "use_dora")
    if multitask and (vera or dora):
        raise AdapterError("unsupported variant", "MTL-LoRA together with VeRA or DoRA")
    shared = shared_module(tensors if vera else {}, _SHARED_PARTS, name)
    budget = Budget()
    lows = {}
    for path, module in modules.items():
        if "m.weight" in module and not dora:
            raise AdapterError("bad config", f"{module.label} has DoRA's magnitudes, of which the config does not know")
        if vera:
            low = _vera(module, shared, budget)
        elif multitask:
            low = _multitask(method, module, rank)
        else:
            low = _Low(module.take("lora_B", None, rank), module.take("lora_A", None, None))
        lows[path] = low if vera else _unfused(method, module, low, rank, budget)
    warnings = [_GATED] if gated else []
    variant = "mtl-lora" if multitask else ("dvora" if dora else "vera") if vera else "dora" if dora else ""
    if dora:
        return _finish_dora(modules, lows, scale, base=base, base_tensors=base_tensors, warnings=warnings, variant=variant)
    deltas = [Delta(site_of(path), down=low.down, up=scale * low.up) for path, low in lows.items()]
    return finish(base, "lora", deltas, warnings, variant)


def _is_vera(method: Mapping[str, Any]) -> bool:
    # lora.py, LoRALayer.add_adapter: either field being a float makes it VeRA. JSON may have lost the point of 0.0.
    return any(
        isinstance(method.get(key), int | float) and not isinstance(method.get(key), bool) for key in ("vera_d", "vera_b")
    )


def _vera(module: Module, shared: Module, budget: Budget) -> _Low:
    down = shared.take("lora_A", None, None)
    up = shared.take("lora_B", None, down.shape[0])
    diagonal = module.take("vera_D", down.shape[0], down.shape[0])
    outer = module.take("vera_B", up.shape[0], up.shape[0])
    budget.spend(2 * up.size)
    return _Low(outer @ (up @ diagonal), down)


def _multitask(method: Mapping[str, Any], module: Module, rank: int) -> _Low:
    if method.get("task_specific_matrix_type") not in (None, "singular_values"):
        raise AdapterError("unsupported variant", "only MTL-LoRA with singular values can be run")
    sharpness = fields.number(method, "weights_sharpness", default=0.05)
    if sharpness <= 0:
        raise AdapterError("bad config", f"weights_sharpness is {sharpness:g}")
    ups = module.take("lora_B", None, None, rank)
    weights = module.take("weights", ups.shape[0]).astype(np.float64) / sharpness
    shares = np.exp(weights - weights.max())
    up = np.tensordot((shares / shares.sum()).astype(np.float32), ups, axes=1)
    return _Low(up * module.take("task_specific.values", rank), module.take("lora_A", None, None))


def _unfused(method: Mapping[str, Any], module: Module, low: _Low, rank: int, budget: Budget) -> _Low:
    """Spread the blocks of a fused query-key-value layer over the whole of it; other layers stay as they are."""
    rows = low.down.shape[0]
    if module.path.rpartition(".")[2] not in _FUSED:
        if rows != rank:
            raise AdapterError("shape mismatch", f"{module.label} has rank {rows}, its config says {rank}")
        return low
    adapted = _adapted(method)
    groups = len(adapted)
    if rows != rank * groups or low.up.shape[0] % groups:
        raise AdapterError("shape mismatch", f"{module.label}: {rows} rows in lora_A are no {groups} blocks of rank {rank}")
    height = low.up.shape[0] // groups
    budget.spend(len(_QKV) * height * rank * groups)
    up = np.zeros((len(_QKV) * height, rank * groups), dtype=np.float32)
    for block, place in enumerate(adapted):
        out = slice(place * height, (place + 1) * height)
        up[out, block * rank : (block + 1) * rank] = low.up[block * height : (block + 1) * height]
    return _Low(up, low.down)


def _adapted(method: Mapping[str, Any]) -> list[int]:
    """Which thirds of a fused layer are adapted, in the order of the layer whatever the order in the config."""
    matrices = method.get("attn_matrices", ["q", "v"])
    if not isinstance(matrices, list | tuple) or not all(isinstance(matrix, str) for matrix in matrices[:100]):
        raise AdapterError("bad config", "attn_matrices is not a list of names")
    adapted = [place for place, matrix in enumerate(_QKV) if matrix in matrices[:100]]
    if not adapted:
        raise AdapterError("bad config", "attn_matrices names none of q, k and v")
    return adapted


def _finish_dora(
    modules: Mapping[str, Module],
    lows: Mapping[str, _Low],
    scale: np.float32,
    *,
    base: str,
    base_tensors: BaseTensors | None,
    warnings: list[str],
    variant: str,
) -> Adapter:
    magnitudes = {}
    for path, module in modules.items():
        if path.rpartition(".")[2] in _FUSED:
            raise AdapterError("unsupported variant", f"{module.label}: DoRA of a fused layer, which the library cannot run")
        magnitudes[path] = module.take("m.weight", lows[path].up.shape[0], 1)
    weights = base_weights(base_tensors, {path: len(magnitude) for path, magnitude in magnitudes.items()})
    deltas = []
    if isinstance(weights, str):
        for path, low in lows.items():
            deltas.append(Delta(site_of(path), down=low.down, up=scale * low.up, shift=magnitudes[path][:, 0]))
        warnings.append(f"DoRA {weights}: the low-rank part, with the magnitudes as shift")
        return finish(base, "lora", deltas, warnings, variant)
    for path, low in lows.items():
        weight, added = weights[path], _added(modules[path], low, weights[path])
        factor = magnitudes[path] / np.linalg.norm(weight + added, axis=1, keepdims=True)
        deltas.append(dense_delta(path, factor * (weight + scale * added) - weight))
    return finish(base, "lora", deltas, warnings, variant)


def _added(module: Module, low: _Low, weight: FloatArray) -> FloatArray:
    if low.down.shape[1] != weight.shape[1]:
        raise AdapterError("shape mismatch", f"{module.label}: lora_A {list(low.down.shape)}, base weight {list(weight.shape)}")
    return low.up @ low.down


def _read_ia3(method: Mapping[str, Any], modules: Mapping[str, Module], base: str, base_tensors: BaseTensors | None) -> Adapter:
    gated = fields.boolean(method, "use_gating")
    alpha = 1.0 if gated else fields.number(method, "alpha", default=1.0)
    if fields.integer(method, "r", default=1) != 1:
        raise AdapterError("bad config", "(IA)^3 with r other than 1")
    scales = {}
    for path, module in modules.items():
        found = module.take("lora_B", None, 1)[:, 0]
        spread = _spread(method, module, found) if path.rpartition(".")[2] in _FUSED else found
        # LoRAMergedLinear multiplies all of a fused layer by alpha, the parts that are not adapted too.
        scales[path] = np.float32(alpha) * spread
    weights = base_weights(base_tensors, {path: len(scale) for path, scale in scales.items()})
    deltas = []
    for path, scale in scales.items():
        shift = np.log(np.maximum(np.abs(scale), np.float32(_SMALLEST)))
        if isinstance(weights, str):
            empty_down, empty_up = np.zeros((0, 0), dtype=np.float32), np.zeros((len(scale), 0), dtype=np.float32)
            deltas.append(Delta(site_of(path), down=empty_down, up=empty_up, shift=shift))
        else:
            delta = dense_delta(path, (scale - 1)[:, None] * weights[path])
            deltas.append(replace(delta, shift=shift))
    return finish(base, "ia3", deltas, [_GATED] if gated else [], "ia3")


def _spread(method: Mapping[str, Any], module: Module, scales: FloatArray) -> FloatArray:
    adapted = _adapted({"attn_matrices": ["k", "v"], **method})
    height, rest = divmod(len(scales), len(adapted))
    if rest:
        raise AdapterError("shape mismatch", f"{module.label}: {len(scales)} scales for {len(adapted)} parts")
    spread = np.ones((len(_QKV), height), dtype=np.float32)
    spread[adapted] = scales.reshape(len(adapted), height)
    return spread.ravel()
