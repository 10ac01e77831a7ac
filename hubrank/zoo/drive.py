"""One hub's part of a sync: it lists in one thread, a crew reads and signs, and this thread alone writes the store."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from hubrank.errors import HubError
from hubrank.hubs.protocol import Hub, Listing, Query, Stoppable, Traffic
from hubrank.zoo.base_models import BaseModels
from hubrank.zoo.books import Books, Settled, What
from hubrank.zoo.cluster import RayCrew
from hubrank.zoo.crew import Crew, Finished, Threads
from hubrank.zoo.room import Room
from hubrank.zoo.standing import Standing, name_of
from hubrank.zoo.store import Zoo
from hubrank.zoo.work import BaseProvider, Done, Job, Unanswered, wanted_bases

__all__ = ["Drive", "Event", "Tally"]

_AHEAD = 2000  # listings that may wait to be read: two pages of the HF Hub, so that a progress display soon knows how many
_ENOUGH = 3  # adapters in a row that a hub did not answer for: it is down


@dataclass(frozen=True, slots=True)
class Event:
    """One adapter has been dealt with: for progress displays.

    Attributes:
        detail: why it was skipped.
        bytes_read: of its files.
        listed: adapters that the hub has listed so far; ``complete`` when that is all of them.
    """

    name: str
    outcome: What
    detail: str = ""
    bytes_read: int = 0
    hub: str = ""
    listed: int = 0
    complete: bool = False


@dataclass(slots=True)
class Tally:
    """What a sync has done so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    skips: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    removed: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    bases: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True, slots=True)
class _Listed:
    listing: Listing


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


class Drive:
    """The sync of one hub.

    Args:
        jobs: adapters in work at once.
        ray: read on the Ray cluster that this process is connected to.
    """

    def __init__(
        self,
        zoo: Zoo,
        hub: Hub,
        query: Query,
        tally: Tally,
        *,
        jobs: int,
        ray: bool = False,
        base_tensors: BaseProvider | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._zoo, self._hub, self._tally, self._on_event = zoo, hub, tally, on_event
        self._standing = Standing(zoo, hub, query)
        self._query = replace(query, known=self._standing.known)
        self._bases, self._methods = wanted_bases(query.bases), frozenset(query.methods)
        self._books = Books(zoo, hub.name, self._standing, self._bases, self._methods)
        self._inbox: SimpleQueue[_Listed | _Ended | Finished] = SimpleQueue()
        self._models = BaseModels(base_tensors, hub)
        self._crew: Crew = RayCrew(hub, self._inbox, self._models) if ray else Threads(jobs, self._inbox, self._models)
        self._jobs = jobs
        self._room = Room(_AHEAD)
        self._stopped = threading.Event()
        self._waiting: deque[Listing] = deque()
        self._running: dict[int, Listing] = {}
        self._failures: list[str] = []
        self._tickets = self._listed = self._in_a_row = 0
        self._ended = self._down = self._complete = self._unanswered = False

    def run(self) -> None:
        """List, read, store, mark what is gone.

        Raises:
            StoreError: the store cannot be written.
        """
        threading.Thread(target=self._feed, name="hubrank-list", daemon=True).start()
        finished = False
        try:
            while not self._ended or self._running or self._waiting:
                self._heed(self._inbox.get())
                if self._in_a_row >= _ENOUGH:  # what is being read may still come; nothing more is begun
                    self._down = self._ended = True
                if self._down:
                    self._waiting.clear()
                while self._waiting and len(self._running) < self._jobs:
                    self._begin(self._waiting.popleft())
            finished = self._complete and not self._down
        finally:
            self._crew.close()
            self._stopped.set()
            self._room.give()
            if not finished and isinstance(self._hub, Stoppable):
                self._hub.stop()
            self._tally.bases.add(self._models.traffic)
            self._tally.traffic.add(self._models.traffic)
            self._tally.traffic.add(self._hub.traffic)
        if self._failures:
            self._tally.failed.append((self._hub.name, "; ".join(self._failures)))
        if self._complete:
            gone = self._standing.gone()
            self._zoo.retire(*gone, repos=self._standing.gone_whole())
            self._tally.removed += len(gone)

    def _feed(self) -> None:
        """List, in a thread of its own: waiting for a page must keep nothing that was read from being stored."""
        error: BaseException | None = None
        try:
            for listing in self._hub.discover(self._query):
                self._room.take()
                if self._stopped.is_set():
                    return
                self._inbox.put(_Listed(listing))
        except BaseException as broken:  # noqa: BLE001 -- raised again by the thread that waits for it
            error = broken
        self._inbox.put(_Ended(error))

    def _heed(self, message: _Listed | _Ended | Finished) -> None:
        match message:
            case _Listed(listing):
                self._see(listing)
            case _Ended(error):
                self._end(error)
            case Finished(ticket, done, error):
                self._finish(self._running.pop(ticket), done, error)

    def _end(self, error: BaseException | None) -> None:
        self._ended = True
        if error is None:
            self._complete = not self._down
            self._books.close_repo()
        elif isinstance(error, HubError):
            self._failures.append(str(error))
        else:
            raise error

    def _see(self, listing: Listing) -> None:
        if not self._standing.see(listing):
            self._room.give()
            return
        self._listed += 1
        self._books.open(listing)
        verdict, skip = self._standing.judge(listing)
        if verdict in ("new", "changed"):
            self._waiting.append(listing)
        elif skip is not None:
            self._settle(listing, self._books.skipped(listing, skip))
        else:
            self._settle(listing, self._books.unchanged(listing, back=verdict == "back"))

    def _begin(self, listing: Listing) -> None:
        self._tickets += 1
        self._running[self._tickets] = listing
        former = next(iter(self._standing.sources(listing)), None)
        self._crew.submit(self._tickets, Job(self._hub, listing, self._bases, former, self._methods))

    def _finish(self, listing: Listing, done: Done | None, error: BaseException | None) -> None:
        if done is None:
            raise error or RuntimeError("a job ended without a result")
        self._tally.traffic.add(done.traffic)
        if isinstance(done.outcome, Unanswered):
            self._in_a_row += 1
            if not self._unanswered:
                self._failures.append(f"{name_of(listing)}: {done.outcome.message}")
            self._unanswered = True
        else:
            self._in_a_row = 0
        self._settle(listing, self._books.done(listing, done.outcome), done.traffic.bytes_read)

    def _settle(self, listing: Listing, outcome: Settled, bytes_read: int = 0) -> None:
        self._room.give()
        self._tally.outcomes[outcome.what] += 1
        name = name_of(listing)
        if outcome.skip is not None:
            self._tally.reasons[outcome.skip.reason] += 1
            self._tally.skips.append((name, outcome.detail))
        if self._on_event is not None:
            self._on_event(
                Event(name, outcome.what, outcome.detail, bytes_read, self._hub.name, self._listed, complete=self._complete)
            )
