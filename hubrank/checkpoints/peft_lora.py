"""peft's LoRA (and rsLoRA), DoRA and AdaLoRA: one low-rank delta a module.

Formulas (peft 0.21): LoRA ``s * B @ A``, s = alpha / r, or alpha / sqrt(r) under rsLoRA (``tuners/lora/layer.py``); DoRA
``m / |W + d| * (W + d) - W`` with d as in LoRA and norms over rows (``lora/variants.py``); AdaLoRA
``alpha / (init_r + 1e-5) * B @ (E * A)`` (``adalora/layer.py``). An embedding counts as a linear map
[d, V] of one-hot tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors, base_weight
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, deadline, matrix, scale_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.checkpoints.peft_modules import Parts
    from hubrank.types import FloatArray

__all__ = ["read_adalora", "read_lora", "wanted_adalora", "wanted_tensors"]

_BIAS = re.compile(r"(?P<module>.+)\.lora_B(?:\.[^.]+)?\.(?P<part>bias)")
_LORA = Grammar(
    (
        *Grammar.of(
            "lora_[AB].weight", "lora_embedding_[AB]", "lora_magnitude_vector", "lora_magnitude_vector.weight"
        ).patterns,
        _BIAS,
    )
)
_ADALORA = Grammar.of("lora_[ABE]")
# These kinds also change the base weights when training starts, so that B @ A alone is not what was learned.
_CHANGES_BASE = ("pissa", "corda", "olora", "lora_ga", "loftq", "mica")
MAX_RANK = 2048
"""What factors beyond this rank hold is a full matrix, and takes as long."""
_UNREAD = (
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "monteclora_config",
    "kasa_config",
    "layer_replication",
    "target_parameters",
)


def wanted_tensors(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_lora` needs: no heads, no embedding matrices, no full copies of modules."""
    return _LORA.wanted(names)


def read_lora(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the LoRA or DoRA tensors of one adapter into deltas.

    The bias of B, where it has one, is the shift. DoRA with the base weights at hand is the exact change; without them
    it is its LoRA part, and the magnitude vector m [d_out] as the shift. A warning says which.

    Args:
        config: adapter_config.json.
        tensors: A [r, d_in] and B [d_out, r] by key, as :func:`wanted_tensors` selects them.
        base: id of the base model.
        base_tensors: the base model's weights, which only DoRA needs.

    Raises:
        AdapterError: a factor is missing, of the wrong shape, or not finite; or the config changes the formula in a way
            that is not read.
    """
    for flag in _UNREAD:
        if config.get(flag):
            raise AdapterError("unsupported variant", f"{flag} is set")
    dora = fields.boolean(config, "use_dora")
    if not any(_LORA.wanted((name,)) for name in tensors):
        raise AdapterError("no LoRA tensors", "no lora_A and lora_B weights in the file")
    modules = _LORA.modules(tensors)
    until = deadline()
    patterns = bool(config.get("rank_pattern") or config.get("alpha_pattern"))
    scales: dict[object, np.float32] = {}  # of each module; without patterns of each rank
    deltas = []
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused where finiteness is checked
        for module, parts in modules.items():
            down, up = _factors(module, parts)
            which = module if patterns else len(down)
            if which not in scales:
                scales[which] = np.float32(scale_of(config, module, len(down), until))
            scale = scales[which]
            deltas.append(Delta(site_of(module), down=down, up=up * scale, shift=_bias(module, parts, up, scale)))
        warnings = _warnings(config)
        if dora or any("lora_magnitude_vector" in parts for parts in modules.values()):
            deltas, warning = _dora(config, modules, deltas, base_tensors)
            warnings.append(warning)
    return adapter_of(base, "lora", deltas, variant="dora" if dora else "", warnings=warnings)


def _warnings(config: Mapping[str, Any]) -> list[str]:
    warnings = []
    kind = config.get("init_lora_weights")
    if isinstance(kind, str) and kind.lower().startswith(_CHANGES_BASE):
        warnings.append(f"init_lora_weights={kind[:20]}: the update also changed the base weights, which are not here")
    if config.get("alora_invocation_tokens"):
        warnings.append("alora_invocation_tokens: the update applies only after those tokens")
    return warnings


def _factors(module: str, parts: Parts) -> tuple[FloatArray, FloatArray]:
    kinds = [kind for kind in ("lora_", "lora_embedding_") if kind + "A" in parts or kind + "B" in parts]
    if len(kinds) > 1:
        raise AdapterError("several adapters", f"{module[-120:]} is an embedding and a linear module at once")
    kind = kinds[0] if kinds else "lora_"
    a, b = matrix(parts, kind + "A", module), matrix(parts, kind + "B", module)
    if a.shape[0] > MAX_RANK:
        raise AdapterError("rank too large", f"{module[-120:]}: rank {a.shape[0]:,}; at most {MAX_RANK} are read")
    if a.shape[0] != b.shape[1]:
        raise AdapterError("shape mismatch", f"{module[-120:]}: A {list(a.shape)} and B {list(b.shape)} do not fit")
    return a, b


def _bias(module: str, parts: Parts, up: FloatArray, scale: np.float32) -> FloatArray | None:
    if "bias" not in parts:
        return None
    bias = matrix(parts, "bias", module, ndim=1)
    if len(bias) != len(up):
        raise AdapterError("shape mismatch", f"{module[-120:]}: B has {len(up)} rows, its bias {len(bias)} entries")
    shift: FloatArray = bias * scale
    return shift


def _dora(
    config: Mapping[str, Any], modules: Mapping[str, Parts], deltas: list[Delta], base_tensors: BaseTensors | None
) -> tuple[list[Delta], str]:
    if not fields.boolean(config, "use_dora"):
        raise AdapterError("bad config", "there are magnitude vectors, but use_dora is not set")
    budget = Budget()
    room = budget.fits((delta.up.shape[0], delta.down.shape[1]) for delta in deltas)
    exact: list[Delta] = []
    plain: list[Delta] = []
    for (module, parts), delta in zip(modules.items(), deltas, strict=True):
        d_out, d_in = delta.up.shape[0], delta.down.shape[1]
        size = matrix(parts, "lora_magnitude_vector", module, ndim=parts.get("lora_magnitude_vector", delta.up).ndim).size
        if delta.shift is not None:
            raise AdapterError("unsupported variant", "use_dora together with lora_bias")
        if size != d_out:
            raise AdapterError("shape mismatch", f"{module[-120:]}: {size} magnitudes for {d_out} rows")
        magnitude = parts["lora_magnitude_vector"].reshape(d_out)
        plain.append(Delta(delta.site, down=delta.down, up=delta.up, shift=magnitude))
        embedding = "lora_embedding_A" in parts
        # All or nothing, and no weight more is fetched than what could be used.
        wanted = base_tensors if room and len(exact) == len(plain) - 1 else None
        weight = base_weight(wanted, module, config, d_out=d_out, d_in=d_in, transposed=embedding)
        if weight is not None:
            budget.take(weight.size, module)
            moved = weight + delta.up @ delta.down
            factor = magnitude / np.linalg.norm(moved, axis=1)
            up, down = budget.factors(factor[:, None] * moved - weight, module)
            exact.append(Delta(delta.site, down=down, up=up))
    if len(exact) == len(plain):
        return exact, "DoRA: the exact change of the base weights"
    return plain, "DoRA without the base weights: its low-rank part, and its magnitudes as the shift"


def wanted_adalora(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_adalora` needs."""
    return _ADALORA.wanted(names)


def read_adalora(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn the tensors of an AdaLoRA into deltas; modules whose rank fell to 0 have none.

    Args:
        config: adapter_config.json; its ``r`` means nothing here.
        tensors: A [r, d_in], B [d_out, r] and E [r, 1] by key; r is what training left of init_r.
        base: id of the base model.
        base_tensors: not needed.

    Raises:
        AdapterError: a factor is missing, of the wrong shape, or not finite; or the config is malformed.
    """
    started = fields.integer(config, "init_r", default=12)
    pruned = bool(fields.mapping(config, "rank_pattern"))
    alpha = fields.number(config, "lora_alpha", default=8.0)
    # peft divides by the rank that training started with, also where some of it was pruned.
    scale = np.float32((alpha if alpha > 0 else started) / (started + 1e-5))
    deltas = []
    for module, parts in _ADALORA.modules(tensors).items():
        if pruned and {"lora_A", "lora_B", "lora_E"} <= set(parts) and parts["lora_E"].shape == (0, 1):
            continue
        a, b, e = (matrix(parts, f"lora_{part}", module) for part in "ABE")
        if not a.shape[0] == b.shape[1] == e.shape[0] or e.shape[1] != 1:
            raise AdapterError("shape mismatch", f"{module[-120:]}: A {list(a.shape)}, B {list(b.shape)}, E {list(e.shape)}")
        if len(a) > started or (len(a) < started and not pruned):
            raise AdapterError("shape mismatch", f"{module[-120:]} has rank {len(a)}, its config says init_r {started}")
        with np.errstate(over="ignore"):
            deltas.append(Delta(site_of(module), down=a * e, up=b * scale))
    return adapter_of(base, "lora", deltas, variant="adalora")
