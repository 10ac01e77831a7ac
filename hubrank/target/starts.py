"""A published adapter as the start of a run: its numbers, in a shape that is ours.

This is the one place where what a stranger published comes to be run, and only its numbers do. The files are read by the same
readers as for the zoo (:mod:`hubrank.checkpoints`: no pickle is unpacked, no code is loaded); the method's library gets a
config of our own making (a :class:`Placement`, whose modules are the base model's own names) and never sees the published
``adapter_config.json``; and every number must find a parameter of its shape, and every parameter a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_modules import Grammar
from hubrank.errors import AdapterError
from hubrank.target.frameworks import import_torch
from hubrank.target.methods import Attached, Placement

if TYPE_CHECKING:
    from hubrank.checkpoints.reader import Published
    from hubrank.types import Adapter, FloatArray, Site

__all__ = ["RUNNABLE", "Start", "put", "start_of"]

RUNNABLE = ("lora", "bottleneck", "prompt", "ia3")
"""Methods whose published numbers can be put on a model: a prefix is trained through a network that is not published, and
biases are read as differences."""

_UNIONS = ("mam", "unipelt", "union")
_USUAL_SCALE = 2.0  # alpha / r, where the config does not say or says something absurd
_SCALES = (1e-3, 1e3)
_CHANGES_BASE = ("pissa", "corda", "olora", "lora_ga", "loftq", "mica")
_IA3 = Grammar.of("ia3_l")


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where and how large an adapter is, and what it holds.

    Attributes:
        placement: the shape that a fresh adapter must have to take the numbers.
        numbers: float32, by the parameter's name in the model once the placement is attached; a LoRA's may be smaller than
            the parameter, and go into its first rows and columns.
        tunable: whether it can be tuned further as what it was; an update without small factors cannot.
        warnings: what of the published adapter is not among the numbers.
    """

    placement: Placement
    numbers: Mapping[str, FloatArray]
    tunable: bool = True
    warnings: tuple[str, ...] = ()


def start_of(published: Published, model: Any) -> Start:
    """Turn what was read into a start on a base model.

    Args:
        published: by :func:`hubrank.checkpoints.reader.read_published`, with the base model's tensors beside it.
        model: the base model, which nothing has been put on yet.

    Raises:
        AdapterError: it does more than its numbers say, is of a method that cannot be run here, or does not fit the model.
    """
    if len(published.adapters) != 1 or published.adapters[0].variant in _UNIONS:
        raise AdapterError("cannot be run", "one of several methods that were trained together")
    (adapter,) = published.adapters
    match adapter.method:
        case "lora":
            return _lora(published, adapter, model)
        case "bottleneck" if published.tensors:
            from hubrank.target.starts_bottleneck import bottleneck_start

            return bottleneck_start(published, adapter, model)
        case "prompt" if "peft_type" in published.config:
            return _prompt(adapter, model)
        case "ia3" if "peft_type" in published.config:
            return _ia3(published, model)
        case _:
            raise AdapterError(
                "cannot be run", f"a {adapter.variant or adapter.method} cannot be put on a model from its numbers"
            )


def put(start: Start, attached: Attached) -> None:
    """Put a start's numbers where the fresh ones are.

    Raises:
        AdapterError: a number has no parameter, or a trained parameter no number.
    """
    torch = import_torch()
    trained = {id(parameter) for parameter in attached.trained}
    parameters = {name: p for name, p in attached.model.named_parameters() if id(p) in trained}
    if set(parameters) != set(start.numbers):
        odd = min(set(parameters) ^ set(start.numbers))
        raise AdapterError("shape mismatch", f"{odd[-120:]} is only in one of the adapter and the model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            number = start.numbers[name]
            whole = tuple(parameter.shape)
            fits = number.ndim == len(whole) and all(n <= m for n, m in zip(number.shape, whole, strict=True))
            if not fits or (start.placement.method != "lora" and number.shape != whole):
                raise AdapterError("shape mismatch", f"{name[-120:]} is {list(number.shape)}, the model has {list(whole)}")
            part = parameter[tuple(slice(n) for n in number.shape)]
            part.copy_(torch.from_numpy(np.ascontiguousarray(number)))


def _lora(published: Published, adapter: Adapter, model: Any) -> Start:
    """Every linear change of linear modules as one LoRA; factors of smaller rank leave the other directions fresh."""
    config = published.config
    kind = config.get("init_lora_weights")
    if isinstance(kind, str) and kind.lower().startswith(_CHANGES_BASE):
        raise AdapterError(
            "cannot be run", f"init_lora_weights={kind[:20]} changed the base weights, too, and those are not here"
        )
    if config.get("alora_invocation_tokens"):
        raise AdapterError("cannot be run", "its update applies only after certain tokens")
    shifted = next((delta for delta in adapter.deltas if delta.shift is not None), None)
    if shifted is not None:
        raise AdapterError("cannot be run", f"{shifted.site}: more than a low-rank update ({adapter.variant or 'a bias'})")
    names = modules_at(model, {delta.site: (delta.up.shape[0], delta.down.shape[1]) for delta in adapter.deltas})
    scale = _scale(config)
    size = max(len(delta.down) for delta in adapter.deltas)
    numbers: dict[str, FloatArray] = {}
    for delta in adapter.deltas:
        path = f"base_model.model.{names[delta.site]}"
        numbers[f"{path}.lora_A.default.weight"] = delta.down
        numbers[f"{path}.lora_B.default.weight"] = (delta.up / np.float32(scale)).astype(np.float32)
    small = all(len(delta.down) < min(delta.up.shape[0], delta.down.shape[1]) for delta in adapter.deltas)
    placement = Placement("lora", tuple(names[delta.site] for delta in adapter.deltas), size, alpha=scale * size)
    return Start(placement, numbers, tunable=small, warnings=_left_out(config))


def _scale(config: Mapping[str, Any]) -> float:
    """alpha / r as it was trained with: the function is the same under any, the speed of further tuning is not."""
    if config.get("peft_type") != "LORA":
        return _USUAL_SCALE
    rank = fields.integer(config, "r", default=8)
    alpha = fields.number(config, "lora_alpha", default=8.0)
    scale = alpha / (np.sqrt(rank) if fields.boolean(config, "use_rslora") else rank)
    return float(scale) if _SCALES[0] <= scale <= _SCALES[1] else _USUAL_SCALE


def _prompt(adapter: Adapter, model: Any) -> Start:
    if len(adapter.deltas) != 1:
        raise AdapterError("cannot be run", "prompts for two stacks")
    tokens = adapter.deltas[0].down
    if tokens.shape[1] != model.config.hidden_size:
        raise AdapterError("shape mismatch", f"tokens of {tokens.shape[1]} numbers, the model has {model.config.hidden_size}")
    longest = getattr(model.config, "max_position_embeddings", None) or len(tokens) * 2
    if len(tokens) * 2 > longest:
        raise AdapterError("cannot be run", f"{len(tokens)} tokens leave the base model no room for texts")
    return Start(Placement("prompt", size=len(tokens)), {"prompt_encoder.default.embedding.weight": tokens})


def _ia3(published: Published, model: Any) -> Start:
    found = {site_of(path): parts["ia3_l"] for path, parts in _IA3.modules(published.tensors).items()}
    names = modules_at(model, dict.fromkeys(found))
    numbers, inputs = {}, []
    for site, scales in found.items():
        numbers[f"base_model.model.{names[site]}.ia3_l.default"] = scales
        if scales.shape[0] == 1 < scales.shape[1]:
            inputs.append(names[site])
    placement = Placement("ia3", tuple(names.values()), inputs=tuple(inputs))
    return Start(placement, numbers, warnings=_left_out(published.config))


def modules_at(model: Any, sites: Mapping[Site, tuple[int, int] | None]) -> dict[Site, str]:
    """The model's own name of the linear module at each site.

    Args:
        sites: with the [d_out, d_in] that the module must have, or None for any.

    Raises:
        AdapterError: there is none, several, or one of another shape.
    """
    names: dict[Site, str] = {}
    for name, module in model.named_modules():
        site = site_of(name)
        if site not in sites or type(module).__name__ not in ("Linear", "Conv1D"):
            continue
        if site in names:
            raise AdapterError("ambiguous modules", f"the base model has more than one {site}")
        rows, columns = module.weight.shape
        there = (columns, rows) if type(module).__name__ == "Conv1D" else (rows, columns)
        if sites[site] not in (None, there):
            raise AdapterError("shape mismatch", f"{site}: an update of {sites[site]}, the base model has {there}")
        names[site] = name
    missing = sorted(site for site in sites if site not in names)
    if missing:
        raise AdapterError("cannot be run", f"the base model has no linear module {str(missing[0])[-120:]}")
    return names


def _left_out(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What peft would have loaded beside the update: copies of whole modules, which are mostly heads."""
    return ("run without its modules_to_save",) if config.get("modules_to_save") else ()
