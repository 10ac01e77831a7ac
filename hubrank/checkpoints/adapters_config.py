"""The ``adapter_config.json`` of ``adapters`` and of adapter-transformers 1 to 3, brought to one form.

Keys, defaults and the corrections that the library itself makes while loading follow ``adapters`` 1.3.0:
``configuration/adapter_config.py``, ``loading.py`` (``_fix_backward_compat``, ``_fix_legacy_config``) and ``utils.py``
(``ACTIVATION_RENAME``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.card import plain
from hubrank.errors import AdapterError

__all__ = ["AdaptersConfig", "parse_adapters_config"]

_MAX_MEMBERS = 8
_VERSION = re.compile(r"adapters\.(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(\S{0,40})")
_ARCHITECTURES = ("bottleneck", "prefix_tuning", "prompt_tuning", "lora", "mtl_lora", "reft")
# Spellings from before adapter-transformers 1.0.
_RENAMED = MappingProxyType(
    {"MH_Adapter": "mh_adapter", "Output_Adapter": "output_adapter", "LN_after": "ln_after", "LN_before": "ln_before"}
)
_SEQ: Mapping[str, Any] = MappingProxyType({"mh_adapter": False, "output_adapter": True, "non_linearity": "relu"})
_DOUBLE: Mapping[str, Any] = MappingProxyType({"mh_adapter": True, "output_adapter": True, "non_linearity": "swish"})
_PAR: Mapping[str, Any] = MappingProxyType({**_SEQ, "is_parallel": True, "scaling": 4.0})
_SCALED_PAR: Mapping[str, Any] = MappingProxyType({**_PAR, "scaling": "learned"})
_SEQ_INV: Mapping[str, Any] = MappingProxyType({**_SEQ, "inv_adapter": "nice"})
_DOUBLE_INV: Mapping[str, Any] = MappingProxyType({**_DOUBLE, "inv_adapter": "nice"})
_LORA: Mapping[str, Any] = MappingProxyType({"architecture": "lora", "r": 8, "alpha": 8, "attn_matrices": ["q", "v"]})
_VERA: Mapping[str, Any] = MappingProxyType({**_LORA, "vera_d": 0.1, "vera_b": 0.0})
_PREFIX: Mapping[str, Any] = MappingProxyType({"architecture": "prefix_tuning", "prefix_length": 30, "non_linearity": "tanh"})
_REFT: Mapping[str, Any] = MappingProxyType({"architecture": "reft", "prefix_positions": 3, "suffix_positions": 0, "r": 1})
_IA3: Mapping[str, Any] = MappingProxyType({"r": 1, "alpha": 1, "composition_mode": "scale", "attn_matrices": ["k", "v"]})
# ADAPTER_CONFIG_MAP: only what a reader looks at.
_NAMED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **dict.fromkeys(("pfeiffer", "seq_bn"), _SEQ),
        **dict.fromkeys(("houlsby", "double_seq_bn", "lohfink-rossi-leaveout"), _DOUBLE),
        **dict.fromkeys(("parallel", "par_bn"), _PAR),
        **dict.fromkeys(("scaled_parallel", "scaled_par_bn"), _SCALED_PAR),
        **dict.fromkeys(("pfeiffer+inv", "seq_bn_inv"), _SEQ_INV),
        **dict.fromkeys(("houlsby+inv", "double_seq_bn_inv"), _DOUBLE_INV),
        "compacter++": {**_SEQ, "phm_layer": True, "non_linearity": "gelu"},
        "compacter": {**_DOUBLE, "phm_layer": True, "non_linearity": "gelu"},
        "prefix_tuning": _PREFIX,
        "prefix_tuning_flat": {**_PREFIX, "flat": True},
        "prompt_tuning": {"architecture": "prompt_tuning", "prompt_length": 10},
        "lora": _LORA,
        "ia3": {**_LORA, **_IA3},
        "vera": _VERA,
        "dora": {**_LORA, "use_dora": True},
        "dvora": {**_VERA, "use_dora": True},
        "mtl_lora": {**_LORA, "architecture": "mtl_lora"},
        "loreft": {**_REFT, "orthogonality": True},
        "noreft": {**_REFT, "orthogonality": False},
        "direft": {**_REFT, "orthogonality": False, "subtract_projection": False},
        "mam": {"architecture": "union", "configs": [_PREFIX, _PAR]},
        "unipelt": {
            "architecture": "union",
            "configs": [
                {**_PREFIX, "prefix_length": 10, "use_gating": True},
                {**_SEQ, "use_gating": True},
                {**_LORA, "alpha": 2, "use_gating": True},
            ],
        },
    }
)


@dataclass(frozen=True, slots=True)
class AdaptersConfig:
    """What the readers need of the file.

    Attributes:
        name: of the adapter, as it stands in the keys; None where the file does not say.
        model_type: of the base model, such as ``bert``; empty where the file does not say.
        hidden_size: of the base model, 0 where the file does not say.
        old_task: a task adapter of the old format, which names invertible adapters without having any.
        old_activations: written before versions were: ``gelu`` means what is ``gelu_new`` now.
        union: ``mam``, ``unipelt`` or ``union`` where several methods were trained together, else empty.
        methods: architecture and fields of each of them; one where ``union`` is empty.
    """

    name: str | None
    model_type: str
    hidden_size: int
    old_task: bool
    old_activations: bool
    union: str
    methods: tuple[tuple[str, Mapping[str, Any]], ...]


def parse_adapters_config(config: Mapping[str, Any]) -> AdaptersConfig:
    """Check and normalise a whole ``adapter_config.json``.

    Raises:
        AdapterError: with reason ``bad config``, ``no weights`` (of a prediction head) or ``unsupported variant`` (of an
            adapter fusion, or a method that is not known).
    """
    method = _resolve(config.get("config"))
    kind = "union" if method.get("architecture") == "union" else ""
    members = [_resolve(member) for member in _members(method)] if kind else [method]
    faulty = _before_1_1(config.get("version"))
    methods = tuple(_method(member, faulty_alpha=faulty) for member in members)
    repeated = len({architecture for architecture, _ in methods}) < len(methods)
    if repeated:
        raise AdapterError("unsupported variant", "a union of two configs of one architecture")
    return AdaptersConfig(
        name=fields.text(config, "name"),
        model_type=fields.text(config, "model_type") or "",
        hidden_size=fields.integer(config, "hidden_size", default=0, low=0),
        old_task=config.get("type") == "text_task",
        old_activations="version" not in config,
        union=kind and _union_name(methods),
        methods=methods,
    )


def _resolve(value: object) -> Mapping[str, Any]:
    """Names to what they stand for; a mapping may itself be based on a name (``using`` of the AdapterHub's entries)."""
    if value is None:
        return {}
    if isinstance(value, str):
        if value not in _NAMED:
            raise AdapterError("unsupported variant", f"the config is {plain(value, 40)!r}, not a name that is known")
        return _NAMED[value]
    if not isinstance(value, Mapping) or len(value) > 1000:
        raise AdapterError("bad config", "config is neither a name nor an object of at most 1,000 entries")
    using = value.get("using")
    renamed = {_RENAMED.get(key, key): field for key, field in value.items()}
    return {**_resolve(using), **renamed} if isinstance(using, str) else renamed


def _members(union: Mapping[str, Any]) -> list[Any]:
    members = union.get("configs")
    if not isinstance(members, list) or not 1 <= len(members) <= _MAX_MEMBERS:
        raise AdapterError("bad config", f"a union has a list of 1 to {_MAX_MEMBERS} configs")
    return members


def _method(values: Mapping[str, Any], *, faulty_alpha: bool) -> tuple[str, Mapping[str, Any]]:
    if "head_type" in values:
        raise AdapterError("no weights", "the config is one of a prediction head")
    if "value_initialized" in values or ("query_before_ln" in values and "temperature" in values):
        raise AdapterError("unsupported variant", "an adapter fusion weighs other adapters and has no update of its own")
    architecture = values.get("architecture")
    if architecture is None:
        architecture = "bottleneck"
    if not isinstance(architecture, str):
        raise AdapterError("bad config", f"architecture is {plain(str(architecture)[:40])!r}, not a name")
    if architecture not in _ARCHITECTURES:
        raise AdapterError("unsupported variant", f"architecture {plain(architecture, 40)!r}")
    if faulty_alpha and architecture == "lora":
        # adapters < 1.1.0 trained without the scale; the library mends it in the same way when it loads such a file.
        values = {**values, "alpha": values.get("r", 8)}
    return architecture, values


def _before_1_1(version: object) -> bool:
    if not isinstance(version, str):
        return False
    match = _VERSION.fullmatch(version)
    if match is None:
        return False
    # 1.1.0.dev0 and its like come before 1.1.0; 1.1.0.post1 and 1.1.0+local do not.
    early = bool(match[4]) and not match[4].startswith((".post", "+"))
    release = (int(match[1]), int(match[2]), int(match[3] or 0))
    return release < (1, 1, 0) or (release == (1, 1, 0) and early)


def _union_name(methods: tuple[tuple[str, Mapping[str, Any]], ...]) -> str:
    by_name = dict(methods)
    if set(by_name) == {"prefix_tuning", "bottleneck"} and by_name["bottleneck"].get("is_parallel") is True:
        return "mam"
    gated = all(values.get("use_gating") is True for values in by_name.values())
    return "unipelt" if gated and set(by_name) == {"prefix_tuning", "bottleneck", "lora"} else "union"
