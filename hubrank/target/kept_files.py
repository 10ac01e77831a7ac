"""What the files of a cache folder that keep results about targets have in common: how they are named, and put there."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["keep", "key_of", "library_versions", "prune"]

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


def prune(folder: Path, pattern: str, most: int) -> None:
    """Remove the files that were used longest ago, beyond so many bytes in all."""
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > most:
            file.unlink(missing_ok=True)
