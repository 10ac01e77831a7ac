"""Where targets were tuned before, kept, so that a search again finds what it tuned without loading the base.

Which modules a target is tuned at, and how large, follows from the base model and the zoo, and is part of a tuned run's name
(:func:`hubrank.target.tuned_files.run_key`). To work it out anew takes the model and the libraries that load it: longer than
all the rest of a search whose target was tuned before. One small JSON file a target, base and method in the cache folder's
``placed``, which says of which base and zoo it is; for any other it is worked out anew. What is tuned never follows it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubrank.target.kept_files import keep, key_of, prune
from hubrank.target.methods import Placement

if TYPE_CHECKING:
    from hubrank.target.task import Target

__all__ = ["is_placed", "placed_key", "read_placed", "write_placed"]

FORMAT = 1

FOLDER = "placed"
_MOST_BYTES = 16 * 1024 * 1024
_LARGEST = 1_000_000


def placed_key(target: Target, base: str, method: str) -> str:
    """The name of a file; ``base`` is a model id."""
    return key_of({"format": FORMAT, "target": target.digest(), "base": base, "method": method})


def is_placed(cache: Path, key: str) -> bool:
    """Whether the target was tuned before, on some zoo."""
    return (cache / FOLDER / f"{key}.json").is_file()


def read_placed(cache: Path, key: str, given: str) -> Placement | None:
    """What was worked out before from just that base and zoo; None where nothing was, or its file is damaged or another's.

    Args:
        given: a hash of all that the placement follows from.
    """
    file = cache / FOLDER / f"{key}.json"
    try:
        if file.stat().st_size > _LARGEST:
            return None
        fields = json.loads(file.read_bytes())
        if fields["key"] != key or fields["given"] != given:
            return None
        shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["placement"].items()}
        found = Placement(**shape)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the oldest in use are the first to go
    return found


def write_placed(cache: Path, key: str, given: str, placement: Placement) -> None:
    """Keep what was worked out, if the disk allows it."""
    with contextlib.suppress(OSError):
        folder = cache / FOLDER
        keep(folder, f"{key}.json", json.dumps({"key": key, "given": given, "placement": asdict(placement)}).encode())
        prune(folder, "*.json", _MOST_BYTES)
