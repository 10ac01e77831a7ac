"""The zoo's store: one record per (hub, repo, subfolder), committed as it is made.

Keys, all in one diskcache (SQLite) database::

    source/ID        JSON of the Source
    signature/ID     the Signature, see hubrank.signatures.encoding
    skip/ID          JSON {"revision", "reader", "name", "reason", "detail"}: what was looked at and could not be read
    repo/ID          JSON {"hub", "repo", "revision", "reader"}: all of the repository, branches too, was dealt with
    generation       a counter that every change of the sources raises; packed matrices remember the one they were built at

ID is a hash of (hub, repo, subfolder, branch, part), so no text from a hub is ever a path or a query. All but the generation
are sealed, see :mod:`hubrank.zoo.sealed`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import diskcache

from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import StoreDamagedError, StoreError, StoreLockedError, UsageError
from hubrank.signatures.encoding import decode_signature, encode_signature
from hubrank.types import Signature, Source
from hubrank.zoo.codec import decode_source, encode_source
from hubrank.zoo.disk import IN_DATABASE, BytesDisk
from hubrank.zoo.place import CACHE_TAG, cache_folder, clear_store, tag_folder
from hubrank.zoo.sealed import seal, unseal

__all__ = ["CACHE_TAG", "PARTS", "Record", "Skip", "Zoo", "cache_folder", "clear_store", "identity_of", "source_id"]

_LOCK_SECONDS = 30.0

PARTS = ("lora", "bottleneck", "prefix", "prompt", "ia3", "bias", "rotation", "reft")
"""What a further part of a file may be: its method."""


@dataclass(frozen=True, slots=True)
class Skip:
    """An adapter that was looked at and could not be read."""

    name: str
    revision: str
    reason: str
    detail: str


def source_id(hub: str, repo: str, subfolder: str | None, *, branch: str | None = None, part: str | None = None) -> str:
    """The ID of a source in the store: 32 hex digits."""
    words = (hub, repo, subfolder or "", *((f"@{branch}",) if branch else ()), *((f"#{part}",) if part else ()))
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def identity_of(source: Source) -> str:
    """The ID of a source in the store."""
    return source_id(source.hub, source.repo, source.subfolder, branch=source.branch, part=source.part)


@dataclass(frozen=True, slots=True)
class Record:
    """A source and its signature as the store keeps it, see :mod:`hubrank.signatures.encoding`."""

    source: Source
    signature: bytes


class Zoo:
    """The stored zoo.

    Args:
        cache_dir: see :func:`cache_folder`.
        create: make the store where there is none; otherwise a missing one reads as empty.

    Raises:
        StoreError: the folder cannot be made, read or written.
        StoreDamagedError: what is there is not a store of hubrank's.
        StoreLockedError: another process kept the store locked for half a minute.
    """

    def __init__(self, cache_dir: str | Path | None = None, *, create: bool = False) -> None:
        self.folder = cache_folder(cache_dir)
        self._database = self.folder / "zoo"
        self._cache: diskcache.Cache | None = None
        self._listed: tuple[int, list[Source]] | None = None  # as they were at a generation
        with self._guard():
            if self.folder.exists() and not self.folder.is_dir():
                raise UsageError(f"{self.folder}: is not a folder; --cache-dir takes a folder")
            if create or (self._database / "cache.db").exists():
                self._cache = self._open()

    def __enter__(self) -> Zoo:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the database."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    @property
    def packed_folder(self) -> Path:
        """Where packed matrices live."""
        return self.folder / "packed"

    @property
    def generation(self) -> int:
        """Raised by every change."""
        data = self._get("generation")
        try:
            return int(data) if data is not None else 0
        except ValueError as error:
            raise self._damaged("its generation is not a number") from error

    def sources(self, *, base: str | None = None, method: str | None = None, gone: bool = False) -> list[Source]:
        """The stored sources, by name; those gone upstream only if asked for."""
        return [
            source
            for source in self._all_sources()
            if base in (None, source.base) and method in (None, source.method) and (gone or not source.gone)
        ]

    def bases(self) -> dict[str, int]:
        """Sources per base, most first."""
        return dict(Counter(source.base for source in self.sources()).most_common())

    def get(
        self, hub: str, repo: str, subfolder: str | None, *, branch: str | None = None, part: str | None = None
    ) -> Source | None:
        """One source, or None."""
        data = self._get(f"source/{source_id(hub, repo, subfolder, branch=branch, part=part)}")
        if data is None:
            return None
        with self._located():
            return decode_source(data)

    def signature(self, source: Source) -> Signature:
        """The signature of a stored source.

        Raises:
            StoreDamagedError: it is missing or cannot be read.
        """
        data = self._get(f"signature/{identity_of(source)}")
        if data is None:
            raise self._damaged(f"{source.name} has no signature")
        with self._located():
            return decode_signature(data)

    def put(self, source: Source, signature: Signature, *parts: tuple[Source, Signature]) -> None:
        """Store a source whole, with the other parts of its file if it has any, in one transaction."""
        self.put_records(*(Record(one, encode_signature(its)) for one, its in ((source, signature), *parts)))

    def put_records(self, first: Record, *parts: Record) -> None:
        """The same, of signatures that are encoded already."""
        with self._writing() as cache:
            # A former revision may have had parts that this one lacks.
            for part in PARTS:
                for kind in ("source", "signature"):
                    cache.delete(f"{kind}/{identity_of(replace(first.source, part=part))}")
            for record in (first, *parts):
                identity = identity_of(record.source)
                cache.set(f"source/{identity}", seal(encode_source(record.source)))
                cache.set(f"signature/{identity}", seal(record.signature))
            cache.delete(f"skip/{identity_of(first.source)}")

    def revise(self, *sources: Source) -> None:
        """Change what is said of sources that are stored, in one transaction; their signatures stay."""
        if not sources:
            return
        with self._writing() as cache:
            for source in sources:
                cache.set(f"source/{identity_of(source)}", seal(encode_source(source)))

    def mark(self, source: Source, *, gone: bool) -> None:
        """Keep a source that left its hub, marked, or take the mark off again."""
        self.revise(replace(source, gone=gone))

    def remove(self, *sources: Source) -> None:
        """Forget sources, in one transaction; of their repositories too, so that a sync can bring them back."""
        if not sources:
            return
        with self._writing() as cache:
            for source in sources:
                for kind in ("source", "signature"):
                    cache.delete(f"{kind}/{identity_of(source)}")
                cache.delete(f"repo/{source_id(source.hub, source.repo, None)}")

    def parts(self, source: Source) -> list[Source]:
        """A source and the other parts of its file."""
        found = (
            self.get(source.hub, source.repo, source.subfolder, branch=source.branch, part=part) for part in (None, *PARTS)
        )
        return [one for one in found if one is not None]

    def put_skip(self, hub: str, repo: str, subfolder: str | None, skip: Skip, *, branch: str | None = None) -> None:
        """Remember that a revision could not be read; a former, readable revision of it stays as it is."""
        data = json.dumps({**asdict(skip), "reader": READER_VERSION}).encode()
        self._set(f"skip/{source_id(hub, repo, subfolder, branch=branch)}", data)

    def get_skip(self, hub: str, repo: str, subfolder: str | None, *, branch: str | None = None) -> Skip | None:
        """What is remembered of an adapter that could not be read, if this version of hubrank can read no more than then."""
        data = self._get(f"skip/{source_id(hub, repo, subfolder, branch=branch)}")
        if data is None:
            return None
        try:
            value = json.loads(data)
            if value["reader"] != READER_VERSION:
                return None
            return Skip(str(value["name"]), str(value["revision"]), str(value["reason"]), str(value["detail"]))
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged("a skip record cannot be read") from error

    def drop_skips(self, *, older_reader: bool) -> int:
        """Forget what could not be read, so that it is tried again; of an older reader alone, or all. How many."""
        with self._located():
            found = [key for key, data in self._rows("skip/") if not older_reader or _reader_of(data) != READER_VERSION]
        for key in found:
            with self._guard():
                self._open_cache().delete(key)
        return len(found)

    def put_repo(self, hub: str, repo: str, revision: str) -> None:
        """Remember that all adapters of a repository were dealt with at a revision of its default branch."""
        value = {"hub": hub, "repo": repo, "revision": revision, "reader": READER_VERSION}
        self._set(f"repo/{source_id(hub, repo, None)}", json.dumps(value).encode())

    def repos(self, hub: str) -> dict[str, str]:
        """The revision of each repository of a hub that was dealt with whole by this version's reader."""
        found = {}
        for _, data in self._rows("repo/"):
            try:
                value = json.loads(data)
                if value["hub"] == hub and value["reader"] == READER_VERSION:
                    found[str(value["repo"])] = str(value["revision"])
            except (ValueError, KeyError, TypeError) as error:
                raise self._damaged("a repository's record cannot be read") from error
        return found

    def verify(self) -> list[str]:
        """Read every record; what is wrong, one line each, and nothing if all is well."""
        wrong: list[str] = []
        if self._cache is None:
            return wrong
        with self._guard(), self._connection() as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            return [f"the database is damaged: {result}"]
        try:
            keys = self._keys("")
        except StoreDamagedError as error:
            return [str(error)]
        known = set(keys)
        readers: dict[str, Callable[[bytes], object]] = {"skip": json.loads, "repo": json.loads, "generation": int}
        for key in keys:
            kind, _, identity = key.partition("/")
            try:
                data = self._get(key)
                if kind == "source":
                    source = decode_source(data or b"")
                    self.signature(source)
                    if identity_of(source) != identity:
                        wrong.append(f"{key} holds {source.name}, which belongs elsewhere")
                elif kind == "signature" and f"source/{identity}" not in known:
                    wrong.append(f"{key} belongs to no source")
                elif kind in readers:
                    readers[kind](data or b"")
            except (StoreDamagedError, ValueError) as error:
                wrong.append(f"{key}: {error}")
        return wrong

    def size(self) -> int:
        """Bytes on disk: database and packed matrices."""
        files = (file for folder in (self._database, self.packed_folder) for file in folder.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files)

    def _open(self) -> diskcache.Cache:
        tag_folder(self.folder)
        if not (self._database / "cache.db").exists():
            # Matrices of a store that is no more would be taken for this one's as soon as the generations agree.
            shutil.rmtree(self.packed_folder, ignore_errors=True)
        if os.path.expandvars(self._database) != str(self._database):
            raise UsageError(f"{self.folder}: diskcache would expand the variable in this path; use --cache-dir")
        self._database.mkdir(mode=0o700, exist_ok=True)
        self._database.chmod(0o700)
        return diskcache.Cache(
            str(self._database),
            timeout=_LOCK_SECONDS,
            disk=BytesDisk,
            eviction_policy="none",  # never drop anything by itself
            cull_limit=0,
            disk_min_file_size=IN_DATABASE,
        )

    def _open_cache(self) -> diskcache.Cache:
        if self._cache is None:
            raise StoreError(f"{self.folder}: the store is not open")
        return self._cache

    def _get(self, key: str) -> bytes | None:
        if self._cache is None:
            return None
        with self._guard():
            data = self._cache.get(key, retry=True)
        if data is not None and not isinstance(data, bytes):
            raise self._damaged(f"{key} holds no bytes")
        with self._located():
            return unseal(data) if data is not None else None

    def _set(self, key: str, data: bytes) -> None:
        with self._guard():
            self._open_cache().set(key, seal(data))

    def _all_sources(self) -> list[Source]:
        """By name; read whole, and again only when the generation has moved."""
        generation = self.generation
        if self._listed is None or self._listed[0] != generation:
            with self._located():
                found = [decode_source(data) for _, data in self._rows("source/")]
            self._listed = generation, sorted(found, key=lambda source: (source.name, source.hub))
        return self._listed[1]

    def _rows(self, prefix: str) -> list[tuple[str, bytes]]:
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

    def _connection(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._database / "cache.db", timeout=_LOCK_SECONDS))

    def _keys(self, prefix: str) -> list[str]:
        if self._cache is None:
            return []
        with self._guard():
            return [key for key in self._cache.iterkeys() if key.startswith(prefix)]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[diskcache.Cache]:
        """One transaction that also raises the generation."""
        cache = self._open_cache()
        with self._guard(), cache.transact(retry=False):
            yield cache
            cache.set("generation", str(self.generation + 1).encode())

    def _damaged(self, what: str) -> StoreDamagedError:
        rebuild = f"run `hubrank cache clear --cache-dir {self.folder}` and sync again"
        return StoreDamagedError(f"{self.folder}: the store is damaged ({what}); to rebuild it, {rebuild}")

    @contextlib.contextmanager
    def _located(self) -> Iterator[None]:
        """Add the folder and the way out to a complaint from further down."""
        try:
            yield
        except StoreDamagedError as error:
            if str(self.folder) in str(error):
                raise
            raise self._damaged(str(error)) from error

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn what SQLite and diskcache raise into our own errors."""
        try:
            with self._located():
                yield
        except diskcache.Timeout as error:
            # diskcache says so of any failure to begin a transaction.
            if not os.access(self._database / "cache.db", os.W_OK):
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
            raise self._damaged(message) from error
        except (sqlite3.DatabaseError, AttributeError, TypeError, ValueError, KeyError) as error:
            # diskcache trusts the settings it finds in the database, and trips over bad ones in many ways.
            raise self._damaged(str(error)[:80] or type(error).__name__) from error
        except OSError as error:
            raise StoreError(f"{self.folder}: {error.strerror or error}; use --cache-dir to name another folder") from error


def _reader_of(data: bytes) -> object:
    try:
        return json.loads(data)["reader"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError("a skip record cannot be read") from error
