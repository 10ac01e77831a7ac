"""From the files of one adapter to its deltas: which library wrote it, which family it is, which module reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.bare_files import MANIFEST, read_bare, read_manifest
from hubrank.checkpoints.base_names import canonical_base
from hubrank.checkpoints.card import MAX_CARD_BYTES, base_on_card, card_facts, front_matter, plain
from hubrank.checkpoints.peft_lora import read_lora, wanted_tensors
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.types import Adapter, CardFacts

__all__ = ["READER_VERSION", "read_adapter", "read_card"]

READER_VERSION = 1
"""Raised whenever more can be read, so that what was skipped is tried again."""

CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"


def read_adapter(listing: Listing, bundle: Bundle) -> Adapter:
    """Read one adapter.

    Raises:
        AdapterError: it cannot be read; the reason is a short phrase that sync counts.
        HubError: the hub does not answer.
    """
    if CONFIG not in listing.files and MANIFEST in listing.files:
        return read_bare(listing, bundle)
    if CONFIG not in listing.files:
        raise AdapterError("no config", f"no {CONFIG}")
    config = fields.parse_config(CONFIG, bundle.read(CONFIG, limit=fields.MAX_CONFIG_BYTES))
    base, warnings = _base(config, listing, bundle)
    peft_type = config.get("peft_type")
    if peft_type is None:
        raise AdapterError("unsupported format", f"{CONFIG} has no peft_type")
    if peft_type != "LORA":
        raise AdapterError("unsupported method", f"peft_type {plain(str(peft_type), 40)}")
    if PEFT_WEIGHTS not in listing.files:
        raise AdapterError("no weights", f"no {PEFT_WEIGHTS}")
    size = bundle.size(PEFT_WEIGHTS)
    file = SafetensorsFile(lambda start, stop: bundle.read_range(PEFT_WEIGHTS, start, stop), size)
    adapter = read_lora(config, file.read(wanted_tensors(file.tensors)), base)
    return replace(adapter, warnings=(*warnings, *adapter.warnings))


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


def _base(config: Mapping[str, Any], listing: Listing, bundle: Bundle) -> tuple[str, tuple[str, ...]]:
    """The base model's id, and what to warn of; the config's name counts, the card's helps out."""
    return canonical_base(fields.text(config, "base_model_name_or_path"), base_on_card(_front(listing, bundle)))
