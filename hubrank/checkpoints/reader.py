"""From the files of one adapter to its deltas: which library wrote it, which family it is, which module reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.adapters_families import adapters_methods, wanted_adapters_tensors
from hubrank.checkpoints.adapters_families import read_adapters as read_adapters_library
from hubrank.checkpoints.bare_files import MANIFEST, bare_method, read_bare, read_manifest
from hubrank.checkpoints.base_names import canonical_base
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.card import MAX_CARD_BYTES, base_on_card, card_facts, front_matter, plain
from hubrank.checkpoints.peft_families import peft_method, read_peft, wanted_peft_tensors
from hubrank.checkpoints.tensor_files import open_tensors
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.types import Adapter, CardFacts

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = [
    "ADAPTERS_WEIGHTS",
    "CONFIG",
    "METHODS",
    "PEFT_WEIGHTS",
    "READER_VERSION",
    "Published",
    "base_of",
    "card_base",
    "is_comparable",
    "methods_of",
    "read_adapters",
    "read_card",
    "read_published",
]

READER_VERSION = 3
"""Raised whenever more can be read, so that what was skipped is tried again, or when the same files become other deltas."""

_COMPARABLE_SINCE: Mapping[str, int] = MappingProxyType({"prompt": 3})  # the first reader whose deltas mean what they mean now

METHODS = ("lora", "bottleneck", "prefix", "prompt", "ia3", "bias", "rotation", "reft")
"""Every method that an adapter may be of."""

CONFIG = "adapter_config.json"
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTERS_WEIGHTS = ("adapter.safetensors", "pytorch_adapter.bin")


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """An adapter's files as they were read.

    Attributes:
        adapters: one, or one for each method of a union.
        config: adapter_config.json; empty for weights without one. Nothing in it has been checked but by the readers.
        tensors: what the readers wanted of the weights, float32 by key; empty for weights without a config.
    """

    adapters: tuple[Adapter, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, FloatArray] = field(default_factory=dict)


def read_adapters(listing: Listing, bundle: Bundle, *, base_tensors: BaseTensors | None = None) -> tuple[Adapter, ...]:
    """The adapters that :func:`read_published` reads, without the files they came from."""
    return read_published(listing, bundle, base_tensors=base_tensors).adapters


def read_published(listing: Listing, bundle: Bundle, *, base_tensors: BaseTensors | None = None) -> Published:
    """Read the adapter of a folder: one, or several where one file holds a union of methods (MAM, UniPELT).

    A config with a ``peft_type`` is peft's, any other one of the ``adapters`` library or of adapter-transformers; weights
    without a config are read as the ``hubrank.json`` beside them says.

    Args:
        base_tensors: of the base model, for what changes it multiplicatively; without them such adapters get the
            descriptor that their reader documents, or are refused with ``needs base``.

    Raises:
        AdapterError: it cannot be read; the reason is a short phrase that sync counts.
        HubError: the hub does not answer.
    """
    if CONFIG not in listing.files:
        if MANIFEST in listing.files:
            return Published((read_bare(listing, bundle, base_tensors=base_tensors),))
        raise AdapterError("no config", f"no {CONFIG} and no {MANIFEST}")
    config = fields.parse_config(CONFIG, bundle.read(CONFIG, limit=fields.MAX_CONFIG_BYTES))
    adapters: tuple[Adapter, ...]
    if config.get("peft_type") is not None:
        base, warnings = _base(config, "base_model_name_or_path", listing, bundle)
        wanted_peft_tensors((), config)  # an unsupported method is said before anything of the weights is read
        file = open_tensors(listing, bundle, PEFT_WEIGHTS)
        tensors = file.read(wanted_peft_tensors(file.tensors, config))
        adapters = (read_peft(config, tensors, base, base_tensors=base_tensors),)
    elif "config" in config or "model_type" in config:
        base, warnings = _base(config, "model_name", listing, bundle)
        file = open_tensors(listing, bundle, ADAPTERS_WEIGHTS)
        tensors = file.read(wanted_adapters_tensors(file.tensors, config))
        adapters = read_adapters_library(config, tensors, base, base_tensors)
    else:
        raise AdapterError("unsupported format", f"{CONFIG} is neither peft's nor that of adapters")
    found = tuple(replace(adapter, warnings=(*warnings, *adapter.warnings)) for adapter in adapters)
    return Published(found, config, tensors)


def is_comparable(method: str, reader: int) -> bool:
    """Whether what a version of the reader made of an adapter may be compared with what this version makes of one."""
    return reader >= _COMPARABLE_SINCE.get(method, 0)


def base_of(listing: Listing, bundle: Bundle) -> str:
    """The id of the base model that an adapter names.

    Raises:
        AdapterError: it names none, or has neither config nor manifest.
    """
    if CONFIG not in listing.files:
        return read_manifest(bundle).base
    config = fields.parse_config(CONFIG, bundle.read(CONFIG, limit=fields.MAX_CONFIG_BYTES))
    field = "base_model_name_or_path" if config.get("peft_type") is not None else "model_name"
    return _base(config, field, listing, bundle)[0]


def methods_of(listing: Listing, bundle: Bundle) -> frozenset[str]:
    """The methods that :func:`read_adapters` will find, of :data:`METHODS`: one, or those of a union; no weights are read.

    Raises:
        AdapterError: it has neither config nor manifest, or one that is not understood.
    """
    if CONFIG not in listing.files:
        return frozenset({bare_method(read_manifest(bundle))})
    config = fields.parse_config(CONFIG, bundle.read(CONFIG, limit=fields.MAX_CONFIG_BYTES))
    kind = config.get("peft_type")
    if kind is None:
        return frozenset(adapters_methods(config))
    method = peft_method(kind)
    if method is None:
        raise AdapterError("unsupported method", f"peft_type {plain(str(kind), 40)}")
    return frozenset({method})


def card_base(listing: Listing, bundle: Bundle) -> str | None:
    """What the card calls the base model, on one line and shortened; None where it names none."""
    stated = base_on_card(_front(listing, bundle))
    return plain(stated, 300) if stated else None


def read_card(listing: Listing, bundle: Bundle) -> CardFacts:
    """The facts of the card, from the listing where the hub gives them there, else README.md; a manifest says the task."""
    facts = card_facts(_front(listing, bundle))
    if CONFIG not in listing.files and MANIFEST in listing.files:
        task = read_manifest(bundle).task
        return replace(facts, task=task) if task else facts
    return facts


def _front(listing: Listing, bundle: Bundle) -> Mapping[str, Any]:
    if listing.card:
        return listing.card
    if "README.md" not in listing.files:
        return {}
    length = min(bundle.size("README.md"), MAX_CARD_BYTES)
    return front_matter(bundle.read_range("README.md", 0, length))


def _base(config: Mapping[str, Any], field: str, listing: Listing, bundle: Bundle) -> tuple[str, tuple[str, ...]]:
    """The base model's id, and what to warn of; the config's name counts, the card's helps out."""
    return canonical_base(fields.text(config, field), base_on_card(_front(listing, bundle)))
