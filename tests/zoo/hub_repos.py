"""Repositories for the stand-in hub, and what a zoo holds of them, to be compared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from hubrank.hubs.http import Transport
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.patience import Patience
from hubrank.hubs.protocol import Query
from hubrank.types import Source, SyncReport
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.builders import BASE, lora_tensors
from tests.standin import Repo, StandInHub

QUICK = Patience(tries=3, first=0.001, longest=0.002, connect=2.0, read=2.0)


def lora(seed: int, base: str = BASE, **config: Any) -> dict[str, bytes]:
    """The files of a small LoRA."""
    fields = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 4, **config}
    return {
        "adapter_config.json": json.dumps(fields).encode(),
        "adapter_model.safetensors": save(lora_tensors(seed=seed), metadata={"format": "pt"}),
    }


def repo(name: str, seed: int, *, base: str = BASE, tags: tuple[str, ...] = ("peft",), **fields: Any) -> Repo:
    """A repository that is tagged with its base, as the Hub does it."""
    return Repo(name, lora(seed, base), tags=[*tags, f"base_model:adapter:{base}"], **fields)


def quick_hub(hub: StandInHub) -> HuggingFaceHub:
    """Our side of a stand-in hub, without the patience that the real one takes."""
    return HuggingFaceHub(hub.url, transport=Transport(hub.url, patience=QUICK))


def sync(zoo: Zoo, hub: StandInHub, query: Query | None = None, **how: Any) -> SyncReport:
    """Sync with a stand-in hub."""
    return sync_hubs(zoo, [quick_hub(hub)], query or Query(), **how)


def contents(zoo: Zoo) -> dict[str, tuple[Source, bytes]]:
    """Every source and signature, by name."""
    return {source.name: (source, zoo.record(source).signature) for source in zoo.sources(gone=True)}


def fresh(folder: Path, hub: StandInHub) -> dict[str, tuple[Source, bytes]]:
    """What an undisturbed sync into an empty zoo holds in the end."""
    with Zoo(folder / f"fresh-{os.urandom(4).hex()}", create=True) as zoo:
        sync(zoo, hub)
        return contents(zoo)
