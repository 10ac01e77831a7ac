"""Room for so many at a time, which an interrupt cannot leave locked."""

from __future__ import annotations

from queue import SimpleQueue

__all__ = ["Room"]


class Room:
    """A counting semaphore out of tokens in a queue.

    ``threading.Semaphore`` is written in Python: an interrupt that arrives in the main thread between taking its lock and
    letting go of it leaves it taken for good, and whoever comes next waits for ever. Putting into a ``SimpleQueue`` and getting
    out of it are one step each.
    """

    def __init__(self, count: int) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self.give()

    def take(self) -> None:
        """Wait until there is room, and take it."""
        self._tokens.get()

    def give(self) -> None:
        """Make room for one more."""
        self._tokens.put(None)
