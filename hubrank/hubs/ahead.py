"""Do a few things before their turn, and give what came of them in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["ahead"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int) -> Iterator[tuple[_Item, _Result]]:
    """Each item with what ``work`` makes of it; while whoever asks is busy with one, so many others are worked on.

    The threads are daemons: none keeps an interrupted process alive. What ``work`` raises is raised at the item's turn.
    """
    todo: SimpleQueue[tuple[_Item, Future[_Result]] | None] = SimpleQueue()
    pending: deque[tuple[_Item, Future[_Result]]] = deque()
    crew: list[threading.Thread] = []

    try:
        for item in items:
            if len(crew) < threads:
                crew.append(threading.Thread(target=_run, args=(work, todo), name="hubrank-ahead", daemon=True))
                crew[-1].start()
            pending.append((item, Future()))
            todo.put(pending[-1])
            if len(pending) > threads:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        for _, future in pending:
            future.cancel()
        for _ in crew:
            todo.put(None)


def _run(work: Callable[[_Item], _Result], todo: SimpleQueue[tuple[_Item, Future[_Result]] | None]) -> None:
    while (task := todo.get()) is not None:
        item, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 -- raised again by the thread that waits for it
                future.set_exception(error)
        del task, item, future
