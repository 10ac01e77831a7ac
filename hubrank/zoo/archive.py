"""The zoo as one file, to be handed on: a zip that any tool opens, and that is trusted no more than anything else from outside.

::

    sources/0.json           as the store keeps a Source
    signatures/0.safetensors as the store keeps its Signature, see hubrank.signatures.encoding
    ...
    manifest.json            {"format": 1, "hubrank": VERSION, "sha256": [[of the source, of the signature], ...]}

Members are numbered; nothing in the file is ever a path, a pickle or a query.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hubrank._version import VERSION
from hubrank.errors import InputError, StoreError
from hubrank.zoo.admission import admit
from hubrank.zoo.codec import encode_source
from hubrank.zoo.lock import sync_lock
from hubrank.zoo.store import Record, Zoo, identity_of

__all__ = ["Imported", "export_zoo", "import_zoo"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_MAX_MANIFEST = 200_000_000  # some 150 bytes a source
_MAX_SOURCE = 1_000_000
_MAX_SIGNATURE = 256_000_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: sources that are new here, that were newer than ours, and that were left because ours is as new."""

    added: int
    replaced: int
    kept: int


def export_zoo(zoo: Zoo, path: str | Path) -> int:
    """Write every source, those gone too, into one file; how many. The file appears whole or not at all.

    Raises:
        StoreDamagedError: a record cannot be read.
        StoreError: the file cannot be written.
    """
    path = Path(path).expanduser().absolute()
    sources = zoo.sources(gone=True)
    digests = []
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); name another file") from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for i, source in enumerate(sources):
                    texts = encode_source(source), zoo.record(source).signature
                    for name, data in zip(_names(i), texts, strict=True):
                        archive.writestr(name, data)
                    digests.append([hashlib.sha256(data).hexdigest() for data in texts])
                manifest = {"format": _FORMAT, "hubrank": VERSION, "sha256": digests}
                archive.writestr(_MANIFEST, json.dumps(manifest))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); name another file, or free some space") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(sources)


def import_zoo(zoo: Zoo, path: str | Path, *, wait: bool = False) -> Imported:
    """Take in what another zoo exported: all of it, or nothing where anything is wrong with it.

    A source that is here already stays, unless the file's was read later, at another revision.

    Args:
        wait: for another process that is changing the zoo.

    Raises:
        InputError: the file is not an export, or holds what hubrank would not have written.
        StoreError: the store cannot be written, or another process is changing it.
    """
    path = Path(path).expanduser().absolute()
    now = int(time.time())
    with sync_lock(zoo.folder, wait=wait):
        ours = {identity_of(source): source for source in zoo.sources(gone=True)}
        added = replaced = kept = 0
        with zoo.adding() as add:
            for record in _read(path):
                source = replace(record.source, read_at=min(record.source.read_at, now))
                mine = ours.get(identity_of(source))
                if mine is None:
                    added += 1
                elif source.read_at > mine.read_at and source.revision != mine.revision:
                    replaced += 1
                else:
                    kept += 1
                    continue
                add(Record(source, record.signature))
    return Imported(added, replaced, kept)


def _read(path: Path) -> Iterator[Record]:
    """Every record of a file, checked one by one.

    Raises:
        InputError: something is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            digests = _digests(path, archive)
            seen = set()
            for i, expected in enumerate(digests):
                texts = [
                    _member(path, archive, name, limit)
                    for name, limit in zip(_names(i), (_MAX_SOURCE, _MAX_SIGNATURE), strict=True)
                ]
                if [hashlib.sha256(data).hexdigest() for data in texts] != expected:
                    _refuse(path, f"record {i} is not what the manifest says")
                record = admit(*texts, where=f"{path}: record {i}")
                identity = identity_of(record.source)
                if identity in seen:
                    _refuse(path, f"record {i} is there twice")
                seen.add(identity)
                yield record
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, KeyError) as error:
        _refuse(path, f"it cannot be read ({type(error).__name__})", error)
    except OSError as error:
        _refuse(path, error.strerror or type(error).__name__, error)


def _digests(path: Path, archive: zipfile.ZipFile) -> list[Any]:
    try:
        manifest = json.loads(_member(path, archive, _MANIFEST, _MAX_MANIFEST))
        known, digests = manifest["format"], manifest["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _refuse(path, "it has no manifest of ours", error)
    if known != _FORMAT:
        _refuse(path, f"its format is {str(known)[:20]!r}, and this hubrank reads {_FORMAT}")
    if not isinstance(digests, list):
        _refuse(path, "its manifest lists no records")
    if len(archive.infolist()) != 2 * len(digests) + 1:
        _refuse(path, "it holds more or fewer files than its manifest lists")
    return digests


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > limit:
        _refuse(path, f"{name} is packed, locked or larger than {limit:,} bytes")
    with archive.open(info) as file:
        data = file.read(limit + 1)
    if len(data) != info.file_size:
        _refuse(path, f"{name} is not as long as it says")
    return data


def _names(i: int) -> tuple[str, str]:
    return f"sources/{i}.json", f"signatures/{i}.safetensors"


def _refuse(path: Path, why: str, error: BaseException | None = None) -> NoReturn:
    raise InputError(f"{path}: not an export of a zoo: {why}; nothing was taken in") from error
