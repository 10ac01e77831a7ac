"""What keeps a sync's memory flat while many adapters are read at once, and each of their small files read once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from hubrank.hubs.protocol import Bundle, Traffic

__all__ = ["Gate", "HeldBundle"]

_SMALL = 1_000_000
_SMALL_FILES = (".json", ".md")


class Gate:
    """Lets large adapters into memory only while there is room; small ones pass.

    Args:
        room: bytes of files that may be held at once. Their numbers take about three times that in float32, and one
            adapter that is larger alone is let in when nothing else is.
        small: an adapter of no more bytes than this never waits.
    """

    def __init__(self, room: int = 128_000_000, small: int = 8_000_000) -> None:
        self.small = small
        self._room = room
        self._held = 0
        self._changed = threading.Condition()

    def enter(self, size: int) -> None:
        """Wait until so many bytes have room."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + size <= self._room)
            self._held += size

    def add(self, size: int) -> None:
        """So many more for one that is inside. It does not wait: two that waited for each other would wait for ever."""
        with self._changed:
            self._held += size

    def leave(self, size: int) -> None:
        """Make room again."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()


class HeldBundle:
    """A bundle whose bytes are counted at a gate until it is released, and that reads configs and cards once."""

    def __init__(self, bundle: Bundle, gate: Gate) -> None:
        self._bundle, self._gate = bundle, gate
        self._small: dict[tuple[str, int | None, int | None], bytes] = {}
        self._held, self._inside = 0, False
        self.touched: set[str] = set()

    @property
    def traffic(self) -> Traffic:
        """What reading it has cost so far."""
        return self._bundle.traffic

    @property
    def hashes(self) -> Mapping[str, str]:
        """Of the files read so far."""
        return self._bundle.hashes

    def current_hashes(self, names: Sequence[str]) -> Mapping[str, str]:
        """Of the named files as they are listed."""
        return self._bundle.current_hashes(names)

    def size(self, name: str) -> int:
        """Size in bytes."""
        return self._bundle.size(name)

    def read(self, name: str, *, limit: int) -> bytes:
        """The whole file, if it is no longer than ``limit``."""
        kept = self._small.get((name, None, None))
        if kept is not None and len(kept) <= limit:
            return kept
        data = self._bundle.read(name, limit=limit)
        self._hold(name, len(data))
        return self._keep((name, None, None), data)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        kept = self._small.get((name, start, stop))
        if kept is not None:
            return kept
        self._hold(name, stop - start)
        return self._keep((name, start, stop), self._bundle.read_range(name, start, stop))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes]:
        """Several ranges of one file."""
        self._hold(name, sum(stop - start for start, stop in ranges))
        return self._bundle.read_ranges(name, ranges)

    def release(self) -> None:
        """Its bytes are no longer in memory."""
        if self._inside:
            self._gate.leave(self._held)
        self._held, self._inside = 0, False

    def _hold(self, name: str, size: int) -> None:
        self.touched.add(name)
        self._held += size
        if self._inside:
            self._gate.add(size)
        elif self._held > self._gate.small:
            self._gate.enter(self._held)
            self._inside = True

    def _keep(self, what: tuple[str, int | None, int | None], data: bytes) -> bytes:
        if what[0].endswith(_SMALL_FILES) and len(data) <= _SMALL:
            self._small[what] = data
        return data
