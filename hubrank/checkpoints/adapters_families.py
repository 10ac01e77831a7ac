"""What the ``adapters`` library and adapter-transformers publish: from one file's config and tensors to its adapters.

A file holds one method, or a union of several that were trained together (MAM, UniPELT). Methods cannot be compared with
each other, so that a union becomes one adapter for each of its methods, with the union's name as their variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints.adapters_bottleneck import read_bottleneck, wanted_bottleneck
from hubrank.checkpoints.adapters_config import AdaptersConfig, parse_adapters_config
from hubrank.checkpoints.adapters_lora import read_lora_like, wanted_lora_like
from hubrank.checkpoints.adapters_prefix import read_prefix, read_prompt, wanted_prefix, wanted_prompt
from hubrank.checkpoints.adapters_reft import read_reft, wanted_reft
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.errors import AdapterError
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["adapters_methods", "read_adapters", "wanted_adapters_tensors"]

_FUSION = ".adapter_fusion_layer."


def adapters_methods(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods that :func:`read_adapters` makes of a config: one, or those of a union.

    Raises:
        AdapterError: the config is not understood.
    """
    return tuple(_method(architecture, method) for architecture, method in parse_adapters_config(config).methods)


def wanted_adapters_tensors(names: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The keys that :func:`read_adapters` needs: no heads, no embeddings, no second copies, no gates.

    Args:
        names: of all tensors in the file.
        config: adapter_config.json.

    Raises:
        AdapterError: the config is not understood, the file holds several adapters, or an adapter fusion.
    """
    parsed = parse_adapters_config(config)
    names = list(names)
    wanted: dict[str, None] = {}
    for architecture, method in parsed.methods:
        wanted.update(dict.fromkeys(_wanted(names, parsed, architecture, method)))
    if not wanted and any(_FUSION in name for name in names):
        raise AdapterError("unsupported variant", "an adapter fusion weighs other adapters and has no update of its own")
    return list(wanted)


def read_adapters(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    base_tensors: BaseTensors | None = None,
) -> tuple[Adapter, ...]:
    """Turn the tensors of one file into its adapters: one, or one for each method of a union.

    Args:
        config: adapter_config.json.
        tensors: float32 arrays by key, as :func:`wanted_adapters_tensors` selects them.
        base: id of the base model.
        base_tensors: of the base model, for the exact updates of DoRA and (IA)^3.

    Raises:
        AdapterError: the config is not understood, or a tensor is missing, of the wrong shape, or not finite.
    """
    parsed = parse_adapters_config(config)
    # What overflows is refused where finiteness is checked.
    with np.errstate(all="ignore"):
        adapters = tuple(
            _read(parsed, architecture, method, tensors, base=base, base_tensors=base_tensors)
            for architecture, method in parsed.methods
        )
    return tuple(replace(adapter, variant=parsed.union) for adapter in adapters) if parsed.union else adapters


def _method(architecture: str, method: Mapping[str, Any]) -> str:
    match architecture:
        case "bottleneck" | "reft":
            return architecture
        case "prefix_tuning":
            return "prefix"
        case "prompt_tuning":
            return "prompt"
        case _:
            return "ia3" if method.get("composition_mode") == "scale" else "lora"


def _wanted(names: list[str], config: AdaptersConfig, architecture: str, method: Mapping[str, Any]) -> list[str]:
    match architecture:
        case "bottleneck":
            return wanted_bottleneck(names, config, method)
        case "prefix_tuning":
            return wanted_prefix(names, config)
        case "prompt_tuning":
            return wanted_prompt(names)
        case "reft":
            return wanted_reft(names, config, method)
        case _:
            return wanted_lora_like(names, config, method)


def _read(
    config: AdaptersConfig,
    architecture: str,
    method: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    *,
    base: str,
    base_tensors: BaseTensors | None,
) -> Adapter:
    match architecture:
        case "bottleneck":
            return read_bottleneck(config, method, tensors, base)
        case "prefix_tuning":
            return read_prefix(config, method, tensors, base)
        case "prompt_tuning":
            return read_prompt(config, method, tensors, base)
        case "reft":
            return read_reft(config, method, tensors, base)
        case _:
            return read_lora_like(config, architecture, method, tensors, base, base_tensors=base_tensors)
