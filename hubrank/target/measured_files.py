"""Figures that took long to measure, kept so that they are not measured again: one small JSON file each.

As for tuned targets (:mod:`hubrank.target.tuned_files`), a file is named by a hash of all that decides the figure: the rows as
understood, the base model's weights, the source at its revision, the settings, and the versions of the libraries.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.reader import READER_VERSION
from hubrank.target.kept_files import keep, key_of, library_versions, placement_of, read_json
from hubrank.target.methods import Placement

if TYPE_CHECKING:
    from hubrank.types import Source

__all__ = ["FORMAT", "Measured", "measured_key", "read_measured", "source_facts", "write_measured"]

FORMAT = 1
"""Raised whenever what is measured, or how, changes."""

FOLDER = "measured"
_LARGEST = 1_000_000
_MOST_FILES = 20_000
_SPARE = 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, the seconds it took, and the shape of the adapter it was measured with."""

    value: float
    seconds: float
    placement: Placement
    warnings: tuple[str, ...] = ()


def measured_key(what: str, *, target: str, base: str, source: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> str:
    """The name of a figure.

    Args:
        what: is measured.
        target: :meth:`hubrank.target.task.Target.digest` of it.
        base: :func:`hubrank.target.tuned_files.base_identity` of the base model, and its precision.
        source: :func:`source_facts`; None for a fresh adapter.
        settings: everything else that decides the figure, as JSON can say it.
    """
    facts = {
        "format": FORMAT,
        "what": what,
        "reader": READER_VERSION,
        "target": target,
        "base": base,
        "source": source,
        "settings": settings,
        "libraries": library_versions(),
    }
    return key_of(facts)


def source_facts(source: Source) -> dict[str, Any]:
    """What says which numbers a source has."""
    return {
        "hub": source.hub,
        "repo": source.repo,
        "revision": source.revision,
        "subfolder": source.subfolder,
        "branch": source.branch,
        "part": source.part,
        "location": source.location,
        "files": source.files,
    }


def read_measured(cache: Path, key: str) -> Measured | None:
    """A figure measured before; None where there is none, or its file is damaged or another's."""
    fields = read_json(cache / FOLDER / f"{key}.json", key, largest=_LARGEST)
    placement = None if fields is None else placement_of(fields.get("placement"))
    if fields is None or placement is None:
        return None
    try:
        warnings = tuple(str(warning) for warning in fields["warnings"])
        found = Measured(float(fields["value"]), float(fields["seconds"]), placement, warnings)
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return None
    return found if math.isfinite(found.value) and 0 <= found.seconds < 1e9 else None


def write_measured(cache: Path, key: str, measured: Measured) -> None:
    """Keep a figure, if the disk allows it."""
    with contextlib.suppress(OSError):
        folder = cache / FOLDER
        keep(folder, f"{key}.json", json.dumps({"key": key, **asdict(measured)}).encode())
        _prune(folder)


def _prune(folder: Path) -> None:
    """Remove the figures that were used longest ago, where there are very many."""
    files = list(folder.glob("*.json"))
    if len(files) > _MOST_FILES:
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[: len(files) - _MOST_FILES + _SPARE]:
            file.unlink(missing_ok=True)
