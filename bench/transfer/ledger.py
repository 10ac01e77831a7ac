"""Rows that are written once: several workers share a folder, and a run that is there is never done again."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout


class Ledger:
    """JSON rows in ``folder/rows-NAME.jsonl``, each with a ``key``.

    A claim on a run is a lock on a file below ``folder/claims``: the system drops it with the process that holds it, so a
    killed worker leaves nothing behind. A line that it left unfinished is cut off by the next one that looks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[str] = set()
        self._read: dict[Path, int] = {}
        self._held: dict[str, FileLock] = {}
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "ledger.lock")
        with self._lock:
            self._refresh()

    def claim(self, key: str) -> bool:
        """Take a run, unless it is done or another process has it."""
        if key in self.done:
            return False
        lock = FileLock(self.folder / "claims" / sha256(key.encode()).hexdigest()[:20])
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        with self._lock:
            self._refresh()
        if key in self.done:  # written by the worker that let go of it a moment ago
            lock.release()
            return False
        self._held[key] = lock
        return True

    def release(self, key: str) -> None:
        """Let go of a claimed run."""
        self._held.pop(key).release()

    def write(self, name: str, key: str, row: dict[str, object]) -> None:
        """Append the row of a claimed run and let go of it."""
        line = json.dumps({"key": key, **row}, ensure_ascii=False) + "\n"
        with self._lock:
            self._refresh()
            with (self.folder / f"rows-{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._refresh()
        self.release(key)

    def _refresh(self) -> None:
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            start = self._read.get(path, 0)
            with path.open("rb+") as file:
                file.seek(start)
                new = file.read()
                whole = new.rfind(b"\n") + 1
                if whole < len(new):
                    file.truncate(start + whole)
            self._read[path] = start + whole
            self.done.update(json.loads(line)["key"] for line in new[:whole].splitlines())
