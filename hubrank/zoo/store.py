"""The zoo's store: one record per (hub, repo, subfolder), committed as it is made.

Keys, all in one diskcache (SQLite) database::

    source/ID        JSON of the Source
    signature/ID     the Signature, see hubrank.signatures.encoding
    skip/ID          JSON {"revision", "reader", "name", "reason", "detail"}: what was looked at and could not be read
    repo/ID          JSON {"hub", "repo", "revision", "bases", "methods", "reader"}: all of it, branches too, was dealt with
    generation       a counter that every change of the sources raises; packed matrices remember the one they were built at

ID is a hash of (hub, repo, subfolder, branch, part), so no text from a hub is ever a path or a query. All but the generation
are sealed, see :mod:`hubrank.zoo.sealed`.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import StoreDamagedError
from hubrank.signatures.encoding import decode_signature, encode_signature
from hubrank.types import Signature, Source
from hubrank.zoo.codec import decode_source, encode_source
from hubrank.zoo.database import Database
from hubrank.zoo.place import CACHE_TAG, cache_folder, clear_store
from hubrank.zoo.records import PARTS, DealtWith, Record, Skip, identity_of, source_id

__all__ = [
    "CACHE_TAG",
    "PARTS",
    "DealtWith",
    "Record",
    "Skip",
    "Zoo",
    "cache_folder",
    "clear_store",
    "identity_of",
    "source_id",
]


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
        self._database = Database(self.folder, create=create)
        self._listed: tuple[int, list[Source]] | None = None  # as they were at a generation

    def __enter__(self) -> Zoo:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the database."""
        self._database.close()

    @property
    def packed_folder(self) -> Path:
        """Where packed matrices live."""
        return self.folder / "packed"

    @property
    def generation(self) -> int:
        """Raised by every change."""
        return self._database.generation

    def sources(self, *, base: str | None = None, method: str | None = None, gone: bool = False) -> list[Source]:
        """The stored sources, by name; those gone upstream only if asked for."""
        return [
            source
            for source in self._all_sources()
            if base in (None, source.base) and method in (None, source.method) and (gone or not source.gone)
        ]

    def bases(self, *, gone: bool = False) -> dict[str, int]:
        """Sources per base, most first; those gone upstream are counted only if asked for."""
        return dict(Counter(source.base for source in self.sources(gone=gone)).most_common())

    def get(
        self, hub: str, repo: str, subfolder: str | None, *, branch: str | None = None, part: str | None = None
    ) -> Source | None:
        """One source, or None."""
        data = self._database.get(f"source/{source_id(hub, repo, subfolder, branch=branch, part=part)}")
        if data is None:
            return None
        with self._database.located():
            return decode_source(data)

    def record(self, source: Source) -> Record:
        """A stored source with the bytes of its signature.

        Raises:
            StoreDamagedError: it has none.
        """
        data = self._database.get(f"signature/{identity_of(source)}")
        if data is None:
            raise self._database.damaged(f"{source.name} has no signature")
        return Record(source, data)

    def signature(self, source: Source) -> Signature:
        """The signature of a stored source.

        Raises:
            StoreDamagedError: it is missing or cannot be read.
        """
        data = self.record(source).signature
        with self._database.located():
            return decode_signature(data)

    @contextlib.contextmanager
    def adding(self) -> Iterator[Callable[[Record], None]]:
        """A function that stores a record as it is, without its parts; all that it stored comes at once, or not at all."""
        with self._database.writing() as writing:

            def add(record: Record) -> None:
                identity = identity_of(record.source)
                writing.set(f"source/{identity}", encode_source(record.source))
                writing.set(f"signature/{identity}", record.signature)
                writing.delete(f"skip/{identity_of(replace(record.source, part=None))}")

            yield add

    def put(self, source: Source, signature: Signature, *parts: tuple[Source, Signature]) -> None:
        """Store a source whole, with the other parts of its file if it has any, in one transaction."""
        self.put_records(*(Record(one, encode_signature(its)) for one, its in ((source, signature), *parts)))

    def put_records(self, first: Record, *parts: Record) -> None:
        """The same, of signatures that are encoded already."""
        with self._database.writing() as writing:
            # A former revision may have had parts that this one lacks.
            for part in PARTS:
                for kind in ("source", "signature"):
                    writing.delete(f"{kind}/{identity_of(replace(first.source, part=part))}")
            for record in (first, *parts):
                identity = identity_of(record.source)
                writing.set(f"source/{identity}", encode_source(record.source))
                writing.set(f"signature/{identity}", record.signature)
            writing.delete(f"skip/{identity_of(first.source)}")

    def revise(self, *sources: Source) -> None:
        """Change what is said of sources that are stored, in one transaction; their signatures stay."""
        if not sources:
            return
        with self._database.writing() as writing:
            for source in sources:
                writing.set(f"source/{identity_of(source)}", encode_source(source))

    def mark(self, source: Source, *, gone: bool) -> None:
        """Keep a source that left its hub, marked, or take the mark off again."""
        self.revise(replace(source, gone=gone))

    def retire(self, *sources: Source, repos: Collection[str] = ()) -> None:
        """Mark sources as gone from their hub, in one transaction.

        Args:
            repos: those of them that went whole: if one comes back, its branches are to be asked for.
        """
        if not sources:
            return
        with self._database.writing() as writing:
            for source in sources:
                writing.set(f"source/{identity_of(source)}", encode_source(replace(source, gone=True)))
                if source.repo in repos:
                    writing.delete(f"repo/{source_id(source.hub, source.repo, None)}")

    def remove(self, *sources: Source) -> None:
        """Forget sources, in one transaction; of their repositories too, so that a sync can bring them back."""
        if not sources:
            return
        with self._database.writing() as writing:
            for source in sources:
                for kind in ("source", "signature"):
                    writing.delete(f"{kind}/{identity_of(source)}")
                writing.delete(f"repo/{source_id(source.hub, source.repo, None)}")

    def parts(self, source: Source) -> list[Source]:
        """A source and the other parts of its file."""
        found = (
            self.get(source.hub, source.repo, source.subfolder, branch=source.branch, part=part) for part in (None, *PARTS)
        )
        return [one for one in found if one is not None]

    def put_skip(self, hub: str, repo: str, subfolder: str | None, skip: Skip, *, branch: str | None = None) -> None:
        """Remember that a revision could not be read; a former, readable revision of it stays as it is."""
        data = json.dumps({**asdict(skip), "reader": READER_VERSION}).encode()
        self._database.set(f"skip/{source_id(hub, repo, subfolder, branch=branch)}", data)

    def get_skip(self, hub: str, repo: str, subfolder: str | None, *, branch: str | None = None) -> Skip | None:
        """What is remembered of an adapter that could not be read, if this version of hubrank can read no more than then."""
        data = self._database.get(f"skip/{source_id(hub, repo, subfolder, branch=branch)}")
        if data is None:
            return None
        try:
            value = json.loads(data)
            if value["reader"] != READER_VERSION:
                return None
            return Skip(str(value["name"]), str(value["revision"]), str(value["reason"]), str(value["detail"]))
        except (ValueError, KeyError, TypeError) as error:
            raise self._database.damaged("a skip record cannot be read") from error

    def drop_skips(self, *, older_reader: bool, dry_run: bool = False) -> int:
        """Forget what could not be read, so that it is tried again; of an older reader alone, or all. How many."""
        with self._database.located():
            readers = {key: _reader_of(data) for key, data in self._database.rows("skip/")}
        found = [key for key, reader in readers.items() if not older_reader or reader != READER_VERSION]
        if not dry_run:
            self._database.delete(*found)
        return len(found)

    def put_repo(self, hub: str, repo: str, dealt: DealtWith) -> None:
        """Remember that all adapters of a repository, on its branches too, were dealt with."""
        bases, methods = (None if names is None else sorted(names) for names in (dealt.bases, dealt.methods))
        value = {"hub": hub, "repo": repo, "revision": dealt.revision, "bases": bases, "reader": READER_VERSION}
        if methods is not None:
            value["methods"] = methods
        self._database.set(f"repo/{source_id(hub, repo, None)}", json.dumps(value).encode())

    def repos(self, hub: str) -> dict[str, DealtWith]:
        """The repositories of a hub that were dealt with whole by this version's reader."""
        found = {}
        for _, data in self._database.rows("repo/"):
            try:
                value = json.loads(data)
                if value["hub"] == hub and value["reader"] == READER_VERSION:
                    only = (value["bases"], value.get("methods"))
                    bases, methods = (None if names is None else frozenset(map(str, names)) for names in only)
                    found[str(value["repo"])] = DealtWith(str(value["revision"]), bases, methods)
            except (ValueError, KeyError, TypeError) as error:
                raise self._database.damaged("a repository's record cannot be read") from error
        return found

    def verify(self) -> list[str]:
        """Read every record; what is wrong, one line each, and nothing if all is well."""
        damage = self._database.check()
        if damage is not None:
            return [f"the database is damaged: {damage}"]
        try:
            keys = self._database.keys()
        except StoreDamagedError as error:
            return [str(error)]
        wrong: list[str] = []
        known = set(keys)
        readers: dict[str, Callable[[bytes], object]] = {"skip": json.loads, "repo": json.loads, "generation": int}
        for key in keys:
            kind, _, identity = key.partition("/")
            try:
                data = self._database.get(key)
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

    def shrink(self) -> None:
        """Give back to the disk what was removed."""
        self._database.shrink()

    def size(self) -> int:
        """Bytes on disk: database and packed matrices."""
        files = (file for folder in (self._database.path, self.packed_folder) for file in folder.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files)

    def _all_sources(self) -> list[Source]:
        """By name; read whole, and again only when the generation has moved."""
        generation = self.generation
        if self._listed is None or self._listed[0] != generation:
            with self._database.located():
                found = [decode_source(data) for _, data in self._database.rows("source/")]
            self._listed = generation, sorted(found, key=lambda source: (source.name, source.hub))
        return self._listed[1]


def _reader_of(data: bytes) -> object:
    try:
        return json.loads(data)["reader"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError("a skip record cannot be read") from error
