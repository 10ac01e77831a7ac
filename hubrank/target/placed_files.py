"""Where targets were tuned, kept, so that a search again finds what it tuned without loading the base.

Which modules a target is tuned at, and how large, follows from the base model and the zoo, and is part of a tuned run's name
(:func:`hubrank.target.tuned_files.run_key`). To work it out anew takes the model and the libraries that load it: longer than
all the rest of a search whose target was tuned before. One small JSON file a target, base and method in the cache folder's
``placed``, which says of which base and zoo it is; for any other it is worked out anew. What is tuned never follows it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubrank.target.kept_files import keep, key_of, placement_of, prune, read_json

if TYPE_CHECKING:
    from hubrank.target.methods import Placement

__all__ = ["is_placed", "placed_key", "read_placed", "write_placed"]

FORMAT = 1
"""Raised whenever :func:`hubrank.ranking.placement.usual_placement` gives something else for the same base and zoo."""

FOLDER = "placed"
_MOST_BYTES = 16 * 1024 * 1024
_LARGEST = 1_000_000


def placed_key(target: str, base: str, method: str) -> str:
    """The name of a file; ``target`` is the digest of one, ``base`` a model id."""
    return key_of({"format": FORMAT, "target": target, "base": base, "method": method})


def is_placed(cache: Path, key: str, generation: int) -> bool:
    """Whether the target was probably tuned before, when the zoo was what it is now: a hint of what need not be loaded."""
    fields = _read(cache, key)
    return fields is not None and fields.get("generation") == generation


def read_placed(cache: Path, key: str, given: str) -> Placement | None:
    """What was worked out before from just that base and zoo; None where nothing was, or its file is damaged or another's.

    Args:
        given: a hash of all that the placement follows from.
    """
    fields = _read(cache, key)
    return None if fields is None or fields.get("given") != given else placement_of(fields.get("placement"))


def write_placed(cache: Path, key: str, given: str, placement: Placement, *, generation: int) -> None:
    """Keep what was worked out, if the disk allows it; ``generation`` is the zoo's."""
    fields = {"key": key, "given": given, "generation": generation, "placement": asdict(placement)}
    with contextlib.suppress(OSError):
        keep(cache / FOLDER, f"{key}.json", json.dumps(fields).encode())
        prune(cache / FOLDER, "*.json", _MOST_BYTES)


def _read(cache: Path, key: str) -> dict[str, Any] | None:
    return read_json(cache / FOLDER / f"{key}.json", key, largest=_LARGEST)
