"""One sync a cache at a time.

The lock is the operating system's, on ``sync.lock`` in the cache folder: it ends with the process that holds it, whatever ends
that. Who holds it stands beside it in ``sync.json``, for people; what is left there of a dead process means nothing. Reading
the zoo needs no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hubrank.errors import StoreError, StoreLockedError
from hubrank.zoo.place import tag_folder

__all__ = ["lock_holder", "sync_lock"]

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def sync_lock(folder: Path, *, wait: bool = False, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Inside, no other process changes the zoo in this folder by a sync, an import or a prune.

    Args:
        wait: until the lock is free, however long that takes.
        on_wait: told once who is waited for.

    Raises:
        StoreLockedError: somebody holds it, and ``wait`` is false; the message says who, and since when.
        StoreError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    holder = folder / "sync.json"
    try:
        tag_folder(folder)
        lock = FileLock(folder / "sync.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = _who(holder)
            if not wait:
                way_out = "wait for it to end, or let this one wait with --wait"
                raise StoreLockedError(f"{folder}: {who} is changing the zoo; {way_out}") from None
            if on_wait is not None:
                on_wait(f"waiting for {who}, which is changing the zoo")
            lock.acquire(poll_interval=_POLL_SECONDS)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{folder}: cannot be locked ({reason}); use --cache-dir to name another folder") from error
    try:
        with contextlib.suppress(OSError):  # only people miss it
            holder.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()}), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


def lock_holder(folder: Path) -> str | None:
    """Who is changing the zoo in this folder right now, in words; None where nobody is."""
    from filelock import FileLock, Timeout

    if not (folder / "sync.lock").is_file():
        return None
    try:
        with FileLock(folder / "sync.lock", timeout=0, thread_local=False):
            return None
    except Timeout:
        return _who(folder / "sync.json")
    except (OSError, NotImplementedError):  # a folder that cannot be written has no one who writes it
        return None


def _who(holder: Path) -> str:
    """The holder in words. The note is written a moment after the lock is taken, and may be anything."""
    try:
        note = json.loads(holder.read_text("utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(note["since"])))
        return f"process {int(note['pid'])} on {str(note['host'])[:80]} (since {since})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"
