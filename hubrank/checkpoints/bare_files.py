"""Weights that come without a config: a ``hubrank.json`` beside them says what they are.

Papers published soft prompts, tuned biases and IA3 vectors as bare tensor files before libraries gave them a config. The
fields of ``hubrank.json`` are described in ``docs/hubrank_json.md``; it is read only where there is no config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.bare_families import (
    NEEDS_BASE,
    read_bare_ia3,
    read_bare_prefix,
    read_bare_prompt,
    read_bare_tuned,
    tuned_names,
)
from hubrank.checkpoints.base_names import canonical_base
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.card import plain
from hubrank.checkpoints.dtypes import FLOATS
from hubrank.checkpoints.tensor_files import SUFFIXES, open_tensors
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["MANIFEST", "METHODS", "Manifest", "bare_method", "parse_manifest", "read_bare", "read_manifest"]

MANIFEST = "hubrank.json"
_MAX_MANIFEST = 64_000
_REQUIRED = ("base_model", "method", "weights")
_OPTIONAL = ("task", "tensor", "layers", "stored")
_STORED = ("tuned", "difference")
_TUNED = ("bitfit", "ln", "diff")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a ``hubrank.json`` says.

    Attributes:
        base: canonical id of the base model; ``warnings`` where the file calls it otherwise.
        method: one of :data:`METHODS`.
        weights: name of the file beside it that holds the weights.
        task: what they were trained for, or None.
        tensor: which tensor of the file is meant, where it holds several.
        layers: of the base model, for a prefix whose width does not tell.
        stored: ``tuned`` values, or their ``difference`` from the base.
    """

    base: str
    method: str
    weights: str
    task: str | None = None
    tensor: str | None = None
    layers: int | None = None
    stored: str = "tuned"
    warnings: tuple[str, ...] = ()


def bare_method(manifest: Manifest) -> str:
    """The method that :func:`read_bare` makes of it."""
    return {"p-tuning-v2": "prefix", **dict.fromkeys(_TUNED, "bias")}.get(manifest.method, manifest.method)


def parse_manifest(raw: bytes) -> Manifest:
    """Check a ``hubrank.json``.

    Raises:
        AdapterError: ``bad config``, and which field is wrong and what it may be; ``no base model``.
    """
    value = fields.parse_config(MANIFEST, raw)
    unknown = sorted(set(value) - {*_REQUIRED, *_OPTIONAL})
    if unknown:
        known = ", ".join((*_REQUIRED, *_OPTIONAL))
        raise AdapterError("bad config", f"{MANIFEST}: unknown field {plain(unknown[0], 40)!r}; the fields are {known}")
    base_model, method, weights = (_text(value, name) for name in _REQUIRED)
    if method not in METHODS:
        raise AdapterError("bad config", f"{MANIFEST}: method {plain(method, 40)!r} is none of {', '.join(METHODS)}")
    if "/" in weights or "\\" in weights or "\0" in weights or not weights.endswith(SUFFIXES):
        raise AdapterError("bad config", f"{MANIFEST}: weights must name a file beside it that ends in {' '.join(SUFFIXES)}")
    stored = _text(value, "stored") if "stored" in value else "tuned"
    if stored not in _STORED or (stored != "tuned" and method not in _TUNED):
        raise AdapterError("bad config", f"{MANIFEST}: stored is tuned, or for {', '.join(_TUNED)} difference")
    base, warnings = canonical_base(base_model, None)
    return Manifest(
        base=base,
        method=method,
        weights=weights,
        task=plain(_text(value, "task")) or None if "task" in value else None,
        tensor=_text(value, "tensor") if "tensor" in value else None,
        layers=fields.integer(value, "layers", default=1, high=1000) if "layers" in value else None,
        stored=stored,
        warnings=warnings,
    )


def read_manifest(bundle: Bundle) -> Manifest:
    """The ``hubrank.json`` of an adapter that is known to have one.

    Raises:
        AdapterError: it is longer than it can need to be, or malformed.
        HubError: the hub does not answer.
    """
    return parse_manifest(bundle.read(MANIFEST, limit=_MAX_MANIFEST))


def read_bare(listing: Listing, bundle: Bundle, *, base_tensors: BaseTensors | None = None) -> Adapter:
    """Read weights as their ``hubrank.json`` says.

    Args:
        base_tensors: parameters of the base model; ``bitfit``, ``ln`` and ``diff`` need them unless differences are stored.

    Raises:
        AdapterError: the manifest is wrong, the file is not there, or its tensors are not what the manifest says.
        HubError: the hub does not answer.
    """
    manifest = read_manifest(bundle)
    file = open_tensors(listing, bundle, [manifest.weights])
    names = [name for name, tensor in file.tensors.items() if tensor.dtype in FLOATS]
    if manifest.tensor is not None:
        if manifest.tensor not in names:
            raise AdapterError(
                "no weights", f"{plain(manifest.weights)} has no floating-point tensor {plain(manifest.tensor)!r}"
            )
        names = [manifest.tensor]
    if manifest.method in _TUNED and manifest.stored == "tuned" and base_tensors is None:
        raise AdapterError("needs base", NEEDS_BASE)  # said before the weights, which may be large, are read in vain
    wanted, read = METHODS[manifest.method]
    tensors = file.read(wanted(names, manifest))
    adapter = read(manifest, tensors, base_tensors)
    return replace(adapter, warnings=(*manifest.warnings, *adapter.warnings))


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text.strip() or len(text) > 512:
        raise AdapterError("bad config", f"{MANIFEST}: {name} must be a text")
    return text.strip()


def _prompt_names(names: Iterable[str], manifest: Manifest) -> list[str]:
    """The one tensor there is, or the only one that is called a prompt."""
    found = list(names)
    if len(found) > 1:
        called = [name for name in found if "prompt" in name.lower() or "soft" in name.lower()]
        if len(called) != 1:
            what = "several tensors may be the prompt" if called else "none of the tensors is called a prompt"
            raise AdapterError("several adapters", f"{plain(manifest.weights)}: {what}; say which in {MANIFEST} as tensor")
        found = called
    return found


def _prefix_names(names: Iterable[str], manifest: Manifest) -> list[str]:
    found = list(names)
    return found if manifest.tensor is not None else [name for name in found if "prefix_encoder." in name]


_Reader = Callable[[Manifest, "Mapping[str, FloatArray]", BaseTensors | None], Adapter]
METHODS: Mapping[str, tuple[Callable[[Iterable[str], Manifest], list[str]], _Reader]] = MappingProxyType(
    {
        "prompt": (_prompt_names, lambda m, tensors, _: read_bare_prompt(tensors, m.base)),
        "p-tuning-v2": (_prefix_names, lambda m, tensors, _: read_bare_prefix(tensors, m.base, layers=m.layers)),
        "ia3": (
            lambda names, _: [name for name in names if name.endswith((".multi_lora_a", ".multi_lora_b"))],
            lambda m, tensors, base_tensors: read_bare_ia3(tensors, m.base, base_tensors=base_tensors),
        ),
        **{
            name: (
                lambda names, m: tuned_names(names, m.method),
                lambda m, tensors, base_tensors: read_bare_tuned(
                    tensors, m.base, variant=m.method, differences=m.stored == "difference", base_tensors=base_tensors
                ),
            )
            for name in _TUNED
        },
    }
)
"""What ``method`` may be, which tensors of the file each needs, and who reads them."""
