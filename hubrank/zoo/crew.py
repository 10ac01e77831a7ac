"""Who does the work of a sync: threads of this process here, tasks of a Ray cluster in :mod:`hubrank.zoo.cluster`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from hubrank.zoo.held import Gate
from hubrank.zoo.work import BaseProvider, Done, Job, work_on

__all__ = ["Crew", "Finished", "Threads"]


@dataclass(frozen=True, slots=True)
class Finished:
    """A job has been done, or broke on something that is nobody's fault but ours."""

    ticket: int
    done: Done | None
    error: BaseException | None = None


class Crew(Protocol):
    """Does jobs, in any order."""

    def submit(self, ticket: int, job: Job) -> None:
        """Have a job done; a :class:`Finished` with the ticket will be in the inbox."""

    def close(self) -> None:
        """Begin nothing more."""


class Threads:
    """Threads of this process. They are daemons: none keeps an interrupted process alive."""

    def __init__(self, count: int, inbox: SimpleQueue[Any], base_tensors: BaseProvider | None) -> None:
        self._todo: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._inbox, self._count = inbox, count
        self._work: Callable[[Job], Done] = partial(work_on, base_tensors=base_tensors, gate=Gate())
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, ticket: int, job: Job) -> None:
        """Have a job done."""
        if len(self._threads) < self._count:
            self._threads.append(threading.Thread(target=self._run, name="hubrank-sync", daemon=True))
            self._threads[-1].start()
        self._todo.put((ticket, job))

    def close(self) -> None:
        """Begin nothing more; what is being done is finished for nobody."""
        self._closed = True
        for _ in self._threads:
            self._todo.put(None)

    def _run(self) -> None:
        while (task := self._todo.get()) is not None and not self._closed:
            ticket, job = task
            try:
                finished = Finished(ticket, self._work(job))
            except BaseException as error:  # noqa: BLE001 -- raised again by the thread that waits for it
                finished = Finished(ticket, None, error)
            self._inbox.put(finished)
            del task, job, finished  # a large adapter must not stay in memory until the next one comes
