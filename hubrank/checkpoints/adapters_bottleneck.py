"""Bottleneck adapters of ``adapters``: Houlsby, Pfeiffer, parallel, AdapterPlus, and Compacter's hypercomplex layers.

An adapter computes ``scaling * (up(f(down(x))))`` at its slot (``methods/modeling.py``, ``Adapter.forward``). What is kept
is its linear part, ``up @ down`` with the shift ``up @ b_down + b_up``, both scaled: **the non-linearity f is left out**, so
that the delta equals the module exactly where f is the identity. Permuting the bottleneck's units, or scaling a unit of a
ReLU bottleneck by a positive factor, changes neither. Invertible parts before the first layer are no delta of a layer and
are left out, with a warning.

Compacter (``PHMLayer.forward``): ``y = x @ H + b`` with ``H = sum_i kron(rule_i, W_i)``, so the weight of the layer is H^T.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.adapters_config import AdaptersConfig
from hubrank.checkpoints.adapters_weights import SHARED_SLOT, Budget, Module, collect, finish, shared_module, split_key
from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_bottleneck", "wanted_bottleneck"]

_SLOT = "adapters"
_PARTS = ("adapter_down", "adapter_up", "scaling", "adapter_norm_before", "adapter_norm_after", "gate")
_UNUSED = ("adapter_norm_after", "gate")
_SHARED_PARTS = (
    *("phm_rule", "phm_rule_left", "phm_rule_right"),
    *(f"W_{position}{side}" for position in ("down", "up") for side in ("", "_left", "_right")),
)
_MAX_PHM_DIM = 64


def wanted_bottleneck(names: Iterable[str], config: AdaptersConfig, method: Mapping[str, Any]) -> list[str]:
    """The keys of down and up projections, their scales and norms, and what Compacter shares between layers."""
    del config
    wanted = []
    for name in names:
        key = split_key(name, _SLOT, _PARTS)
        shared = method.get("phm_layer") is True and split_key(name, SHARED_SLOT, _SHARED_PARTS)
        if shared or (key and not key.part.startswith(_UNUSED)):
            wanted.append(name)
    return wanted


def read_bottleneck(config: AdaptersConfig, method: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str) -> Adapter:
    """One delta a slot: down [b, d], up [d, b], shift [d]; the site's module is the slot, such as ``output.adapters``.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite, or the config is not understood.
    """
    warnings = _warnings(config, method, tensors)
    modules, name = collect(tensors, _SLOT, _PARTS, config.name)
    phm = fields.boolean(method, "phm_layer")
    shared = shared_module(tensors if phm else {}, _SHARED_PARTS, name)
    ln_before = fields.boolean(method, "ln_before")
    budget = Budget()
    deltas = []
    for path, module in modules.items():
        if phm:
            down, b_down, up, b_up = _phm_layers(method, module, shared, ln_before=ln_before, budget=budget)
        else:
            down, b_down, up, b_up = _linear_layers(module, ln_before=ln_before)
        if ln_before:
            down, b_down = _after_norm(module, down, b_down)
        scale = _scaling(method, module, up.shape[0])
        deltas.append(
            Delta(site_of(f"{path}.{_SLOT}" if path else _SLOT), down, scale[:, None] * up, scale * (up @ b_down + b_up))
        )
    return finish(base, "bottleneck", deltas, warnings, _variant(method, phm=phm))


def _warnings(config: AdaptersConfig, method: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> list[str]:
    warnings = []
    # In the old format a task adapter names invertible parts without having any (loading.py, _fix_legacy_config).
    named = (method.get("inv_adapter") or method.get("invertible_adapter")) and not config.old_task
    if named or any("invertible" in key for key in tensors):
        warnings.append("the invertible part before the first layer is left out")
    if fields.boolean(method, "use_gating"):
        warnings.append("gates that depend on the input are left out")
    if fields.boolean(method, "ln_before"):
        warnings.append("the layer norm before the bottleneck is kept without its division by the standard deviation")
    if fields.boolean(method, "ln_after"):
        warnings.append("the layer norm after the bottleneck is left out")
    return warnings


def _linear_layers(module: Module, *, ln_before: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    first = f"adapter_down.{int(ln_before)}"
    down = module.take(f"{first}.weight", None, None)
    up = module.take("adapter_up.weight", None, down.shape[0])
    b_down = module.take(f"{first}.bias", down.shape[0])
    return down, b_down, up, module.take("adapter_up.bias", up.shape[0])


def _phm_layers(
    method: Mapping[str, Any], module: Module, shared: Module, *, ln_before: bool, budget: Budget
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    biased = method.get("phm_bias") is None or fields.boolean(method, "phm_bias")
    layers = []
    for part, position in ((f"adapter_down.{int(ln_before)}", "down"), ("adapter_up", "up")):
        weight = _phm_weight(module, shared, part, position, budget)
        bias = module.take(f"{part}.b", weight.shape[0]) if biased else np.zeros(weight.shape[0], np.float32)
        layers.append((weight, bias))
    (down, b_down), (up, b_up) = layers
    if up.shape[1] != down.shape[0]:
        raise AdapterError("shape mismatch", f"{module.label}: down and up have {down.shape[0]} and {up.shape[1]} units")
    return down, b_down, up, b_up


def _phm_weight(module: Module, shared: Module, part: str, position: str, budget: Budget) -> FloatArray:
    """H^T [out, in] of one hypercomplex layer; the rule and W each come from the layer or from what layers share."""
    if any(f"{part}.{name}" in module for name in ("phm_rule", "phm_rule_left")):
        rule = _product(module, f"{part}.phm_rule", budget)
    else:
        rule = _product(shared, "phm_rule", budget)
    if any(f"{part}.{name}" in module for name in ("W", "W_left")):
        w = _product(module, f"{part}.W", budget)
    else:
        w = _product(shared, f"W_{position}", budget)
    n = rule.shape[0]
    if rule.shape != (n, n, n) or w.shape[0] != n or n > _MAX_PHM_DIM:
        raise AdapterError("shape mismatch", f"{module.label}: rule {list(rule.shape)} and W {list(w.shape)} do not fit")
    rows, columns = w.shape[1:]
    budget.spend(n * n * rows * columns)
    h = np.einsum("ipq,iab->qbpa", rule, w, optimize=True)
    return np.ascontiguousarray(h.reshape(n * columns, n * rows), dtype=np.float32)


def _product(module: Module, part: str, budget: Budget) -> FloatArray:
    """A stack of matrices [n, p, q], as it is or as the product of a left [n, p, k] and a right [n, k, q]."""
    if f"{part}_left" not in module:
        return module.take(part, None, None, None)
    left = module.take(f"{part}_left", None, None, None)
    right = module.take(f"{part}_right", left.shape[0], left.shape[2], None)
    budget.spend(left.shape[0] * left.shape[1] * right.shape[2])
    return np.asarray(left @ right, dtype=np.float32)


def _after_norm(module: Module, down: FloatArray, b_down: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fold in what is linear of the layer norm before: centring, gain and bias."""
    gain = module.take("adapter_norm_before.weight", down.shape[1])
    bias = module.take("adapter_norm_before.bias", down.shape[1])
    scaled = down * gain
    return scaled - scaled.mean(axis=1, keepdims=True), b_down + down @ bias


def _scaling(method: Mapping[str, Any], module: Module, size: int) -> FloatArray:
    kind = method.get("scaling", 1.0)
    if kind == "learned":
        return np.full(size, module.take("scaling", 1)[0], dtype=np.float32)
    if kind == "channel":
        return module.take("scaling", size)
    if "scaling" in module:
        raise AdapterError("bad config", f"{module.label} has a learned scaling, of which the config does not know")
    return np.full(size, fields.number(method, "scaling", default=1.0), dtype=np.float32)


def _variant(method: Mapping[str, Any], *, phm: bool) -> str:
    attention, output = fields.boolean(method, "mh_adapter"), fields.boolean(method, "output_adapter")
    if phm:
        return "compacter" if attention else "compacter++"
    if method.get("scaling") == "channel":
        return "adapterplus"
    if fields.boolean(method, "is_parallel"):
        return "scaled_par_bn" if method.get("scaling") == "learned" else "par_bn"
    if output:
        return "double_seq_bn" if attention else "seq_bn"
    return "bottleneck"
