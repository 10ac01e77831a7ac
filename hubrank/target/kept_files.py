"""What the files of a cache folder that keep results about targets have in common: how they are named, and put there."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields as fields_of
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubrank.target.methods import Placement

__all__ = ["keep", "key_of", "library_versions", "placement_of", "prune", "read_json"]

_LIBRARIES = ("torch", "transformers", "peft", "adapters")


def key_of(facts: Mapping[str, Any]) -> str:
    """The name of a file: a hash of all that decides what is in it, as JSON can say it."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that numbers about a target depend on."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def keep(folder: Path, name: str, body: bytes) -> None:
    """Put a file into a folder of the user's own, whole or not at all.

    Raises:
        OSError: the disk does not allow it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder, ignore_cleanup_errors=True) as scratch:
        partial = Path(scratch) / "new"
        partial.write_bytes(body)
        partial.replace(folder / name)


def read_json(file: Path, key: str, *, largest: int) -> dict[str, Any] | None:
    """The fields of a file that is what its name says; None where there is none, or it is damaged or another's."""
    try:
        if file.stat().st_size > largest:
            return None
        fields = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("key") != key:
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the oldest in use are the first to go
    return fields


_KINDS: Mapping[str, type] = MappingProxyType(
    {field.name: type(getattr(Placement("lora"), field.name)) for field in fields_of(Placement)}
)


def placement_of(shape: object) -> Placement | None:
    """A placement as JSON has it; None of what is none."""
    if not isinstance(shape, dict) or shape.keys() != _KINDS.keys():
        return None
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in shape.items()}
    return Placement(**values) if all(_is(value, _KINDS[name]) for name, value in values.items()) else None


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a field's kind, and a tuple of nothing but names and numbers."""
    if kind is float and type(value) is int:
        return True
    return type(value) is kind and (not isinstance(value, tuple) or all(type(one) in (str, int) for one in value))


def prune(folder: Path, pattern: str, most: int) -> None:
    """Remove the files that were used longest ago, beyond so many bytes in all."""
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > most:
            file.unlink(missing_ok=True)
