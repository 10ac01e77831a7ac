"""The zoo's store: one record per (hub, repo, subfolder), committed as it is made.

Keys, all in one diskcache (SQLite) database::

    source/ID        JSON of the Source
    signature/ID     the Signature, see hubrank.signatures.encoding
    skip/ID          JSON {"revision", "reader", "name", "reason", "detail"}: what was looked at and could not be read
    generation       a counter that every change raises; packed matrices remember the one they were built at

ID is a hash of (hub, repo, subfolder), so no text from a hub is ever a path or a query.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import diskcache

from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import StoreDamagedError, StoreError, StoreLockedError, UsageError
from hubrank.signatures.encoding import decode_signature, encode_signature
from hubrank.types import Signature, Source
from hubrank.zoo.codec import decode_source, encode_source
from hubrank.zoo.disk import IN_DATABASE, BytesDisk

__all__ = ["CACHE_TAG", "PARTS", "Skip", "Zoo", "cache_folder", "clear_store", "source_id"]

CACHE_TAG = "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is hubrank's cache; see https://bford.info/cachedir/\n"
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


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder to use: ``given``, else HUBRANK_CACHE, else ./cache if it holds a CACHEDIR.TAG, else the user's own."""
    if given is not None:
        return Path(given).expanduser().absolute()
    if os.environ.get("HUBRANK_CACHE"):
        return Path(os.environ["HUBRANK_CACHE"]).expanduser().absolute()
    if Path("cache", CACHE_TAG).is_file():
        return Path("cache").absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("hubrank")).absolute()


def source_id(hub: str, repo: str, subfolder: str | None, *, branch: str | None = None, part: str | None = None) -> str:
    """The ID of a source in the store: 32 hex digits."""
    words = (hub, repo, subfolder or "", *((f"@{branch}",) if branch else ()), *((f"#{part}",) if part else ()))
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _identity(source: Source) -> str:
    return source_id(source.hub, source.repo, source.subfolder, branch=source.branch, part=source.part)


def clear_store(folder: Path) -> int:
    """Delete the database and the packed matrices in a cache folder, whatever state they are in; bytes freed.

    Nothing else in the folder is touched.

    Raises:
        UsageError: the folder does not carry hubrank's tag, so what lies in it may not be ours.
        StoreError: something cannot be deleted.
    """
    parts = [folder / "zoo", folder / "packed"]
    if not any(part.exists() for part in parts):
        return 0
    if not (folder / CACHE_TAG).is_file():
        raise UsageError(f"{folder}: holds no {CACHE_TAG}, so it is not taken for hubrank's cache; delete it by hand")
    freed = sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file())
    try:
        for part in parts:
            if part.is_symlink():
                part.unlink()
            elif part.exists():
                shutil.rmtree(part)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be deleted ({error.strerror})") from error
    return freed


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
        found = []
        for key in self._keys("source/"):
            data = self._get(key)
            if data is None:
                continue
            with self._located():
                source = decode_source(data)
            if base in (None, source.base) and method in (None, source.method) and (gone or not source.gone):
                found.append(source)
        return sorted(found, key=lambda source: (source.name, source.hub))

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
        data = self._get(f"signature/{_identity(source)}")
        if data is None:
            raise self._damaged(f"{source.name} has no signature")
        with self._located():
            return decode_signature(data)

    def put(self, source: Source, signature: Signature, *parts: tuple[Source, Signature]) -> None:
        """Store a source whole, with the other parts of its file if it has any, in one transaction."""
        with self._writing() as cache:
            # A former revision may have had parts that this one lacks.
            for part in PARTS:
                for kind in ("source", "signature"):
                    cache.delete(f"{kind}/{_identity(replace(source, part=part))}")
            for one, its in ((source, signature), *parts):
                cache.set(f"source/{_identity(one)}", encode_source(one))
                cache.set(f"signature/{_identity(one)}", encode_signature(its))
            cache.delete(f"skip/{_identity(source)}")

    def mark(self, source: Source, *, gone: bool) -> None:
        """Keep a source that left its hub, marked, or take the mark off again."""
        with self._writing() as cache:
            cache.set(f"source/{_identity(source)}", encode_source(replace(source, gone=gone)))

    def parts(self, source: Source) -> list[Source]:
        """A source and the other parts of its file."""
        found = (
            self.get(source.hub, source.repo, source.subfolder, branch=source.branch, part=part) for part in (None, *PARTS)
        )
        return [one for one in found if one is not None]

    def put_skip(self, hub: str, repo: str, subfolder: str | None, skip: Skip, *, branch: str | None = None) -> None:
        """Remember that a revision could not be read; a former, readable revision of it stays as it is."""
        data = json.dumps({**asdict(skip), "reader": READER_VERSION}).encode()
        with self._guard():
            self._open_cache().set(f"skip/{source_id(hub, repo, subfolder, branch=branch)}", data)

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

    def verify(self) -> list[str]:
        """Read every record; what is wrong, one line each, and nothing if all is well."""
        wrong: list[str] = []
        if self._cache is None:
            return wrong
        with self._guard(), contextlib.closing(sqlite3.connect(self._database / "cache.db")) as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            return [f"the database is damaged: {result}"]
        try:
            keys = self._keys("")
        except StoreDamagedError as error:
            return [str(error)]
        known = set(keys)
        for key in keys:
            kind, _, identity = key.partition("/")
            try:
                data = self._get(key)
                if kind == "source":
                    source = decode_source(data or b"")
                    self.signature(source)
                    if _identity(source) != identity:
                        wrong.append(f"{key} holds {source.name}, which belongs elsewhere")
                elif kind == "signature" and f"source/{identity}" not in known:
                    wrong.append(f"{key} belongs to no source")
            except StoreDamagedError as error:
                wrong.append(f"{key}: {error}")
        return wrong

    def size(self) -> int:
        """Bytes on disk: database and packed matrices."""
        files = (file for folder in (self._database, self.packed_folder) for file in folder.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files)

    def _open(self) -> diskcache.Cache:
        self.folder.mkdir(parents=True, exist_ok=True)
        tag = self.folder / CACHE_TAG
        if not tag.exists():
            tag.write_text(_TAG_TEXT, encoding="utf-8")
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
        return data

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
