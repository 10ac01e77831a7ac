"""Every peft family that is read: the peft_type of a config, the tensors it wants, and the function that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.card import plain
from hubrank.checkpoints.peft_lora import read_adalora, read_lora, wanted_adalora, wanted_tensors
from hubrank.checkpoints.peft_miss import read_miss, wanted_miss
from hubrank.checkpoints.peft_products import read_loha, read_lokr, wanted_loha, wanted_lokr
from hubrank.checkpoints.peft_prompts import (
    read_multitask,
    read_p_tuning,
    read_prefix,
    read_prompt,
    wanted_multitask,
    wanted_prompt,
)
from hubrank.checkpoints.peft_random import read_fourierft, read_vera, wanted_fourierft, wanted_vera
from hubrank.checkpoints.peft_reflections import read_hra, wanted_hra
from hubrank.checkpoints.peft_rotations import read_boft, read_oft, wanted_boft, wanted_oft
from hubrank.checkpoints.peft_scales import read_ia3, read_ln_tuning, wanted_ia3, wanted_ln_tuning
from hubrank.errors import AdapterError
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["PEFT_FAMILIES", "Family", "peft_method", "read_peft", "wanted_peft_tensors"]


class _Wanted(Protocol):
    def __call__(self, names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]: ...


class _Read(Protocol):
    def __call__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, FloatArray],
        base: str,
        *,
        base_tensors: BaseTensors | None = None,
    ) -> Adapter: ...


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is read, and the method that it is compared under."""

    method: str
    wanted: _Wanted
    read: _Read


PEFT_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "ADALORA": Family("lora", wanted_adalora, read_adalora),
        "BOFT": Family("rotation", wanted_boft, read_boft),
        "FOURIERFT": Family("lora", wanted_fourierft, read_fourierft),
        "HRA": Family("rotation", wanted_hra, read_hra),
        "IA3": Family("ia3", wanted_ia3, read_ia3),
        "LN_TUNING": Family("bias", wanted_ln_tuning, read_ln_tuning),
        "LOHA": Family("lora", wanted_loha, read_loha),
        "LOKR": Family("lora", wanted_lokr, read_lokr),
        "LORA": Family("lora", wanted_tensors, read_lora),
        "MISS": Family("lora", wanted_miss, read_miss),
        "MULTITASK_PROMPT_TUNING": Family("prompt", wanted_multitask, read_multitask),
        "OFT": Family("rotation", wanted_oft, read_oft),
        "PREFIX_TUNING": Family("prefix", wanted_prompt, read_prefix),
        "PROMPT_TUNING": Family("prompt", wanted_prompt, read_prompt),
        "P_TUNING": Family("prompt", wanted_prompt, read_p_tuning),
        "VERA": Family("lora", wanted_vera, read_vera),
    }
)
"""By peft_type."""


def peft_method(peft_type: object) -> str | None:
    """The method that adapters of a peft_type become, such as ``lora``; None where it is not read."""
    family = PEFT_FAMILIES.get(peft_type) if isinstance(peft_type, str) else None
    return family.method if family is not None else None


def wanted_peft_tensors(names: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The tensors of a file that :func:`read_peft` needs.

    Raises:
        AdapterError: with reason ``unsupported method``.
    """
    return _family(config).wanted(names, config)


def read_peft(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the tensors of one adapter of any family into deltas.

    Args:
        config: adapter_config.json.
        tensors: by key, as :func:`wanted_peft_tensors` selects them.
        base: id of the base model.
        base_tensors: the base model's weights, where they are at hand.

    Raises:
        AdapterError: the family is not read ("unsupported method"), or the adapter is not what its config says.
    """
    adapter = _family(config).read(config, tensors, base, base_tensors=base_tensors)
    warnings = []
    bias = config.get("bias")
    if bias not in (None, False, "none"):
        warnings.append(f"bias={str(bias)[:20]}: the biases were tuned too, and are left out")
    if config.get("trainable_token_indices"):
        warnings.append("trainable_token_indices: single embeddings were tuned too, and are left out")
    return replace(adapter, warnings=(*adapter.warnings, *warnings)) if warnings else adapter


def _family(config: Mapping[str, Any]) -> Family:
    kind = config.get("peft_type")
    family = PEFT_FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise AdapterError("unsupported method", f"peft_type {plain(str(kind), 40)}")
    return family
