"""What ``hubrank doctor`` looks at: packages, device, cache, hub, token, base models."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hubrank._version import VERSION
from hubrank.errors import HubrankError

__all__ = ["Finding", "diagnose"]

Level: TypeAlias = Literal["ok", "warn", "fail"]

_PACKAGES = ("torch", "transformers", "peft", "adapters", "huggingface_hub", "safetensors", "numpy", "diskcache")
# What a user may do without: the package, and what it is for.
_EXTRAS = {"ray": "only `hubrank sync --ray` wants it: `pip install 'hubrank[ray]'`"}
_HUB_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level
    detail: str


def diagnose(cache_dir: str | Path | None = None, *, bases: Sequence[str] = ()) -> list[Finding]:
    """Look at everything; nothing is changed, and the Hub is asked once.

    Args:
        bases: base models to look for on this machine; empty for those of the zoo.
    """
    findings = [
        Finding("hubrank", "ok", f"{VERSION}, Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    ]
    findings += _packages()
    findings += _device()
    held: list[str] = []
    findings += _cache(cache_dir, held)
    findings += [_hub(), _token()]
    findings += _bases(bases or held)
    return findings


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "fail", f"not installed; `pip install {name}`")
    for name, use in _EXTRAS.items():
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "ok", f"not installed; {use}")


def _device() -> Iterator[Finding]:
    from hubrank.target.frameworks import import_torch, pick_device

    try:
        device = pick_device("auto")
        torch = import_torch()
    except ImportError as error:
        yield Finding("device", "fail", f"torch cannot be imported ({error})")
        return
    name = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{torch.get_num_threads()} threads"
        if device == "cpu"
        else "Metal"
    )
    yield Finding("device", "ok", f"{device} ({name})")


def _cache(cache_dir: str | Path | None, held: list[str]) -> Iterator[Finding]:
    from hubrank.zoo.lock import lock_holder
    from hubrank.zoo.store import Zoo, cache_folder

    holder = lock_holder(cache_folder(cache_dir))
    if holder is not None:
        yield Finding(
            "lock", "warn", f"{holder} is changing the zoo; searches need not wait for it, `hubrank sync --wait` does"
        )
    try:
        with Zoo(cache_dir) as zoo:
            bases = zoo.bases()
            wrong = zoo.verify()
            held += bases
            if wrong:
                yield Finding(
                    "cache", "fail", f"{zoo.folder}: {len(wrong)} damaged records; `hubrank cache clear` and sync again"
                )
            else:
                held_by = ", ".join(f"{base} ({n})" for base, n in list(bases.items())[:4]) or "empty; `hubrank sync` fills it"
                yield Finding("cache", "ok" if bases else "warn", f"{zoo.folder}: {held_by}")
    except HubrankError as error:
        yield Finding("cache", "fail", str(error))


def _hub() -> Finding:
    import requests
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "warn", f"{endpoint} is not asked: HF_HUB_OFFLINE is set")
    try:
        status = requests.get(f"{endpoint}/api/models", params={"limit": "1"}, timeout=_HUB_SECONDS).status_code
    except requests.RequestException as error:
        return Finding("hub", "warn", f"{endpoint} does not answer ({type(error).__name__}); folders still work as hubs")
    return Finding("hub", "ok" if status == requests.codes.ok else "warn", f"{endpoint} answers with status {status}")


def _token() -> Finding:
    """Whether there is one; what it is goes nowhere but to the Hub."""
    from huggingface_hub import constants, get_token

    if get_token():
        return Finding("token", "ok", f"there is one, sent to {constants.ENDPOINT} alone")
    return Finding(
        "token", "ok", "none: gated adapters are skipped, and the Hub's rate limit is the lower one; HF_TOKEN sets it"
    )


def _bases(names: Sequence[str]) -> Iterator[Finding]:
    from hubrank.target.base import find_base

    for name in names[:4]:
        try:
            base = find_base(name, offline=True)
        except HubrankError as error:
            yield Finding("base model", "warn", str(error))
        else:
            yield Finding("base model", "ok", f"{name}: {base.folder} ({base.origin})")
