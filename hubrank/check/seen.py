"""What the last checks have seen of the zoo, so that the next one knows what is new: ``check.json`` in the cache folder.

::

    {"format": 1, "last": "2026-11-24T02:00:00+00:00", "seen": {ID: [revision, when it was first seen]}}
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hubrank.errors import StoreDamagedError, StoreError, UsageError
from hubrank.types import Source
from hubrank.zoo.store import source_id

__all__ = ["Seen", "identity", "parse_since", "read_seen", "write_seen"]

_FILE = "check.json"
_FORMAT = 1
_AGO = re.compile(r"(\d{1,5})\s*([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


@dataclass(frozen=True, slots=True)
class Seen:
    """By ID of a source: the revision that was seen, and when it first was. ``last`` is the time of the last check."""

    last: datetime | None = None
    entries: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)

    def is_new(self, source: Source, since: datetime | None) -> bool:
        """Whether this revision of it was not there at the last check or, with ``since``, was first seen from then on."""
        revision, first = self.entries.get(identity(source), (None, None))
        if revision != source.revision or first is None:
            return True
        return since is not None and first >= since

    def after(self, sources: Iterable[Source], now: datetime) -> Seen:
        """The record once these sources have been looked at; what has left the zoo is forgotten."""
        entries = {}
        for source in sources:
            key = identity(source)
            revision, first = self.entries.get(key, (None, now))
            entries[key] = (source.revision, first if revision == source.revision else now)
        return Seen(now, entries)


def identity(source: Source) -> str:
    """The ID of a source, whatever its revision."""
    return source_id(source.hub, source.repo, source.subfolder, branch=source.branch, part=source.part)


def read_seen(folder: Path) -> Seen:
    """The record in a cache folder; an empty one where there is none.

    Raises:
        StoreDamagedError: it was not written by hubrank.
        StoreError: it cannot be read.
    """
    path = folder / _FILE
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["format"] != _FORMAT:
            raise ValueError("another format")
        entries = {str(key): (str(revision), _time(first)) for key, (revision, first) in value["seen"].items()}
        return Seen(_time(value["last"]), entries)
    except FileNotFoundError:
        return Seen()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreDamagedError(f"{path}: is damaged; delete it, and everything counts as new once") from error


def write_seen(folder: Path, seen: Seen) -> None:
    """Put a record in place by one rename.

    Raises:
        StoreError: the folder cannot be written.
    """
    rows = {key: [revision, first.isoformat()] for key, (revision, first) in seen.entries.items()}
    value = {"format": _FORMAT, "last": seen.last.isoformat() if seen.last else None, "seen": rows}
    partial = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".check-", encoding="utf-8", delete=False) as file:
            partial = Path(file.name)
            json.dump(value, file)
        partial.replace(folder / _FILE)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise StoreError(f"{folder}: {_FILE} cannot be written ({error.strerror}); check permissions and space") from error


def parse_since(text: str, now: datetime) -> datetime:
    """A day, a time, or how long ago: ``2026-11-01``, ``2026-11-01T02:00``, ``36h``, ``7d``, ``2w``. Without a zone it is UTC.

    Raises:
        UsageError: it is none of these.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now - timedelta(hours=int(ago[1]) * _HOURS[ago[2]])
    try:
        return _time(text.strip())
    except ValueError:
        raise UsageError(f"--since {text}: give a day such as 2026-11-01, or how long ago, such as 36h, 7d or 2w") from None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
