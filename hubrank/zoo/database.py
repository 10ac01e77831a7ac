"""The database file under the zoo: bytes under short keys, all of them sealed, and one kind of error whatever goes wrong.

diskcache keeps it (SQLite in WAL mode): a record is whole or absent whatever kills the process, and readers never wait.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import diskcache

from hubrank.errors import StoreDamagedError, StoreError, StoreLockedError, UsageError
from hubrank.zoo.disk import IN_DATABASE, BytesDisk
from hubrank.zoo.place import tag_folder
from hubrank.zoo.sealed import seal, unseal

__all__ = ["Database", "Writing"]

LOCK_SECONDS = 30.0

GENERATION = "generation"


class Writing:
    """A transaction."""

    def __init__(self, cache: diskcache.Cache) -> None:
        self._cache = cache

    def set(self, key: str, data: bytes) -> None:
        """Write a record."""
        self._cache.set(key, seal(data))

    def delete(self, key: str) -> None:
        """Remove a record, if it is there."""
        self._cache.delete(key)


class Database:
    """The database in ``FOLDER/zoo``.

    Args:
        create: make it where there is none; otherwise a missing one reads as empty.

    Raises:
        StoreError: the folder cannot be made, read or written.
        StoreDamagedError: what is there is not a store of hubrank's.
        StoreLockedError: another process kept it locked for half a minute.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self.path = folder / "zoo"
        self._cache: diskcache.Cache | None = None
        with self._guard():
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder}: is not a folder; --cache-dir takes a folder")
            if create or (self.path / "cache.db").exists():
                self._cache = self._open()

    def close(self) -> None:
        """Release it."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    @property
    def generation(self) -> int:
        """Raised by every transaction."""
        data = self.get(GENERATION)
        try:
            return int(data) if data is not None else 0
        except ValueError as error:
            raise self.damaged("its generation is not a number") from error

    def get(self, key: str) -> bytes | None:
        """One record."""
        if self._cache is None:
            return None
        with self._guard():
            data = self._cache.get(key, retry=True)
        if data is not None and not isinstance(data, bytes):
            raise self.damaged(f"{key} holds no bytes")
        with self.located():
            return unseal(data) if data is not None else None

    def set(self, key: str, data: bytes) -> None:
        """Write one record, and leave the generation as it is."""
        with self._guard():
            self._opened().set(key, seal(data))

    def delete(self, *keys: str) -> None:
        """Remove records, and leave the generation as it is."""
        with self._guard(), self._opened().transact(retry=False):
            for key in keys:
                self._opened().delete(key)

    def rows(self, prefix: str) -> list[tuple[str, bytes]]:
        """Every record of a kind, in one query: diskcache takes one each."""
        if self._cache is None:
            return []
        fetch = self._cache.disk.fetch
        with self._guard(), self._connection() as connection:
            (strange,) = connection.execute("SELECT COUNT(*) FROM Cache WHERE raw != 1 OR typeof(key) != 'text'").fetchone()
            if strange:
                raise StoreDamagedError("the store holds a key that hubrank did not write")
            rows = connection.execute(
                "SELECT key, mode, filename, value FROM Cache WHERE key >= ? AND key < ?", (prefix, prefix[:-1] + "0")
            )  # "0" follows "/"
            return [(key, unseal(fetch(mode, filename, value, False))) for key, mode, filename, value in rows]

    def keys(self) -> list[str]:
        """All there are."""
        if self._cache is None:
            return []
        with self._guard():
            return list(self._cache.iterkeys())

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writing]:
        """One transaction that also raises the generation."""
        cache = self._opened()
        with self._guard(), cache.transact(retry=False):
            yield Writing(cache)
            cache.set(GENERATION, str(self.generation + 1).encode())

    def shrink(self) -> None:
        """Give the pages of removed records back to the disk."""
        if self._cache is None:
            return
        with self._guard(), self._connection() as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def check(self) -> str | None:
        """What SQLite finds wrong with its file, if anything."""
        if self._cache is None:
            return None
        with self._guard(), self._connection() as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        return None if result == "ok" else str(result)

    def damaged(self, what: str) -> StoreDamagedError:
        """An error that says the way out."""
        rebuild = f"run `hubrank cache clear --cache-dir {self.folder}` and sync again"
        return StoreDamagedError(f"{self.folder}: the store is damaged ({what}); to rebuild it, {rebuild}")

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Add the folder and the way out to a complaint from further down."""
        try:
            yield
        except StoreDamagedError as error:
            if str(self.folder) in str(error):
                raise
            raise self.damaged(str(error)) from error

    def _open(self) -> diskcache.Cache:
        tag_folder(self.folder)
        if not (self.path / "cache.db").exists():
            # Matrices of a store that is no more would be taken for this one's as soon as the generations agree.
            shutil.rmtree(self.folder / "packed", ignore_errors=True)
        if os.path.expandvars(self.path) != str(self.path):
            raise UsageError(f"{self.folder}: diskcache would expand the variable in this path; use --cache-dir")
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.path.chmod(0o700)
        return diskcache.Cache(
            str(self.path),
            timeout=LOCK_SECONDS,
            disk=BytesDisk,
            eviction_policy="none",  # never drop anything by itself
            cull_limit=0,
            disk_min_file_size=IN_DATABASE,
        )

    def _opened(self) -> diskcache.Cache:
        if self._cache is None:
            raise StoreError(f"{self.folder}: the store is not open")
        return self._cache

    def _connection(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self.path / "cache.db", timeout=LOCK_SECONDS))

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn what SQLite and diskcache raise into our own errors."""
        try:
            with self.located():
                yield
        except diskcache.Timeout as error:
            # diskcache says so of any failure to begin a transaction.
            if not os.access(self.path / "cache.db", os.W_OK):
                raise StoreError(f"{self.folder}: cannot be written; check its permissions or use --cache-dir") from error
            raise StoreLockedError(f"{self.folder}: another process holds the store; wait for it to finish") from error
        except sqlite3.OperationalError as error:
            message = str(error)
            if "locked" in message:
                raise StoreLockedError(f"{self.folder}: another process holds the store; wait for it to finish") from error
            if "full" in message or "disk I/O" in message:
                raise StoreError(f"{self.folder}: cannot be written ({message}); free some space") from error
            if "readonly" in message or "unable to open" in message:
                raise StoreError(f"{self.folder}: cannot be opened ({message}); check its permissions") from error
            raise self.damaged(message) from error
        except (sqlite3.DatabaseError, AttributeError, TypeError, ValueError, KeyError) as error:
            # diskcache trusts the settings it finds in the database, and trips over bad ones in many ways.
            raise self.damaged(str(error)[:80] or type(error).__name__) from error
        except OSError as error:
            raise StoreError(f"{self.folder}: {error.strerror or error}; use --cache-dir to name another folder") from error
