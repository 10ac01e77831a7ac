"""peft's IA3 and LN tuning: vectors that scale activations, and norms tuned in place.

Formulas (peft 0.21): IA3 ``W * l``, l [d_out, 1], or [1, d_in] in feed-forward modules (``tuners/ia3/layer.py``); LN tuning
keeps a full copy of each tuned norm (``ln_tuning/layer.py``), so that what was learned is the copy minus the base's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints.base_tensors import BaseTensors, base_vector, base_weight
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, matrix, vector_delta
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_ia3", "read_ln_tuning", "wanted_ia3", "wanted_ln_tuning"]

_IA3 = Grammar.of("ia3_l")
_LN = Grammar((re.compile(r"(?P<module>.+)\.ln_tuning_layers(?:\.(?!weight$|bias$)[^.]+)?\.(?P<part>weight|bias)"),))
_SMALLEST = np.float32(1e-6)  # a scale of 0 must not make the logarithm infinite


def wanted_ia3(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_ia3` needs."""
    return _IA3.wanted(names)


def wanted_ln_tuning(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_ln_tuning` needs."""
    return _LN.wanted(names)


def read_ia3(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the scales of an IA3 into deltas.

    The shift of a delta is log|l|, [d_out], and [d_in] for a module that is scaled at its input. With the base weights
    at hand up @ down is the exact change ``W * l - W``; what it does to a bias is left out.

    Args:
        config: adapter_config.json.
        tensors: l of each module by key.
        base: id of the base model.
        base_tensors: the base model's weights.

    Raises:
        AdapterError: a tensor is of the wrong shape or not finite; or the config is malformed.
    """
    budget = Budget()
    plain: list[Delta] = []
    weights: dict[str, FloatArray] = {}
    modules = _IA3.modules(tensors)
    for module, parts in modules.items():
        scale = matrix(parts, "ia3_l", module)
        if 1 not in scale.shape:
            raise AdapterError("shape mismatch", f"{module[-120:]}: ia3_l has the shape {list(scale.shape)}")
        plain.append(vector_delta(module, np.log(np.maximum(np.abs(scale.ravel()), _SMALLEST))))
        d_out, d_in = (scale.shape[0], None) if scale.shape[1] == 1 else (None, scale.shape[1])
        # All or nothing, and no weight more is fetched than what could be used.
        weight = base_weight(base_tensors, module, config, d_out=d_out, d_in=d_in) if len(weights) == len(plain) - 1 else None
        if weight is not None and budget.fits((w.shape[0], w.shape[1]) for w in (*weights.values(), weight)):
            weights[module] = weight
    if len(weights) < len(plain):
        warnings = ["IA3 without the base weights: its scales, not the change of the weights"]
        return adapter_of(base, "ia3", plain, variant="ia3", warnings=warnings)
    exact = []
    for delta, (module, weight) in zip(plain, weights.items(), strict=True):
        budget.take(weight.size, module)
        with np.errstate(over="ignore"):
            up, down = budget.factors(weight * (modules[module]["ia3_l"] - 1), module)
        exact.append(Delta(delta.site, down=down, up=up, shift=delta.shift))
    return adapter_of(base, "ia3", exact, variant="ia3")


def read_ln_tuning(
    config: Mapping[str, Any],  # noqa: ARG001
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,
) -> Adapter:
    """Turn tuned norms into shifts: tuned minus base, a site for each weight and each bias.

    Args:
        config: adapter_config.json.
        tensors: weight [d] and bias [d] of each norm by key.
        base: id of the base model.
        base_tensors: the base model's weights.

    Raises:
        AdapterError: a tensor is of the wrong shape or not finite; or the base weights are not at hand ("needs base").
    """
    deltas = []
    for module, parts in _LN.modules(tensors).items():
        for part in sorted(parts):
            name = f"{module}.{part}"
            tuned = matrix(parts, part, module, ndim=1)
            before = base_vector(base_tensors, name, len(tuned))
            if before is None:
                raise AdapterError("needs base", f"{name[-120:]}: only what was learned on top of the base says anything")
            with np.errstate(over="ignore"):
                deltas.append(vector_delta(name, tuned - before))
    return adapter_of(base, "bias", deltas, variant="ln")
