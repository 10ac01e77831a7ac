"""From the files of one adapter to its deltas: which library wrote it, which family it is, which module reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.card import MAX_CARD_BYTES, card_facts, front_matter, plain
from hubrank.checkpoints.peft_families import read_peft, wanted_peft_tensors
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.types import Adapter, CardFacts

__all__ = ["READER_VERSION", "read_adapter", "read_card"]

READER_VERSION = 2
"""Raised whenever more can be read, so that what was skipped is tried again."""

CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"


def read_adapter(listing: Listing, bundle: Bundle) -> Adapter:
    """Read one adapter.

    Raises:
        AdapterError: it cannot be read; the reason is a short phrase that sync counts.
        HubError: the hub does not answer.
    """
    if CONFIG not in listing.files:
        raise AdapterError("no config", f"no {CONFIG}")
    config = fields.parse_config(CONFIG, bundle.read(CONFIG, limit=fields.MAX_CONFIG_BYTES))
    base = _base(config)
    if config.get("peft_type") is None:
        raise AdapterError("unsupported format", f"{CONFIG} has no peft_type")
    wanted_peft_tensors((), config)  # an unsupported method is said before anything of the weights is read
    if PEFT_WEIGHTS not in listing.files:
        raise AdapterError("no weights", f"no {PEFT_WEIGHTS}")
    size = bundle.size(PEFT_WEIGHTS)
    file = SafetensorsFile(lambda start, stop: bundle.read_range(PEFT_WEIGHTS, start, stop), size)
    return read_peft(config, file.read(wanted_peft_tensors(file.tensors, config)), base)


def read_card(listing: Listing, bundle: Bundle) -> CardFacts:
    """The facts of the card, from the listing where the hub gives them there, else from README.md."""
    if listing.card:
        return card_facts(listing.card)
    if "README.md" not in listing.files:
        return CardFacts()
    length = min(bundle.size("README.md"), MAX_CARD_BYTES)
    return card_facts(front_matter(bundle.read_range("README.md", 0, length)))


def _base(config: Mapping[str, Any]) -> str:
    name = plain(fields.text(config, "base_model_name_or_path") or "", 200)
    if not name:
        raise AdapterError("no base model", f"{CONFIG} names no base_model_name_or_path")
    return name
