"""The files of one adapter out of its zip file: fetched when they are first asked for, checked, and never unpacked."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Listing, Traffic
from hubrank.hubs.zip_index import Version, zip_of
from hubrank.hubs.zip_members import AdapterZip

__all__ = ["MAX_ZIP_BYTES", "Download", "ZipBundle"]

MAX_ZIP_BYTES = 1024**3
"""Of a zip file: beside the adapter it may hold a language model's head over all words."""

_IN_MEMORY = 32 * 1024**2
Download = Callable[[str, IO[bytes], int, Traffic], None]
"""Writes what is at an address into a file, at most so many bytes, and counts the traffic."""


class ZipBundle:
    """Reads members by name.

    Args:
        listing: whose ``location`` is a zip file's address and hashes.
        download: raises AdapterError where the zip file cannot be had.
    """

    def __init__(self, listing: Listing, download: Download) -> None:
        self.traffic = Traffic()
        self._listing, self._download = listing, download
        self._zip: AdapterZip | None = None
        self._read: dict[str, memoryview] = {}

    @property
    def hashes(self) -> Mapping[str, str]:
        """Of the files read so far: ``zip+sha256:HEX`` or ``zip+sha1:HEX``, of the zip file that each came in."""
        return self.current_hashes(list(self._read))

    def current_hashes(self, names: Sequence[str]) -> Mapping[str, str]:
        """The same, without a request: the index has them."""
        version = zip_of(self._listing.location or "")
        kind, value = ("sha256", version.sha256) if version.sha256 else ("sha1", version.sha1)
        return {name: f"zip+{kind}:{value}" for name in names if value and name in self._listing.files}

    def size(self, name: str) -> int:
        """Size in bytes when inflated."""
        opened = self._opened()
        if name not in opened.files:
            raise AdapterError("file missing", f"the zip file has no {name}")
        return opened.files[name]

    def read(self, name: str, *, limit: int) -> bytes:
        """The whole file, if it is no longer than ``limit``."""
        size = self.size(name)
        if size > limit:
            raise AdapterError("file too large", f"{name} has {size:,} bytes; at most {limit:,} are read")
        return self.read_range(name, 0, size)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        if name not in self._read:
            self._read[name] = self._opened().read(name)
        data = self._read[name]
        if stop > len(data):
            raise AdapterError("file truncated", f"{name} ends at byte {len(data):,}, before {stop:,}")
        return bytes(data[start:stop])

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges of one file."""
        return [self.read_range(name, start, stop) for start, stop in ranges]

    def _opened(self) -> AdapterZip:
        if self._zip is None:
            self._zip = self._fetch()
        return self._zip

    def _fetch(self) -> AdapterZip:
        if self._listing.location is None:
            raise AdapterError("bad index entry", "the index names no zip file that could be fetched", lasting=False)
        version = zip_of(self._listing.location)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))
            self._fill(file, version.url or "")
            size = file.tell()
            _check(file, version)

            def read_range(start: int, stop: int) -> bytes:
                file.seek(start)
                return file.read(stop - start)

            opened = AdapterZip(read_range, size)
            weakref.finalize(self, stack.pop_all().close)  # it has no name: closed, nothing is left of it
        return opened

    def _fill(self, file: IO[bytes], url: str) -> None:
        try:
            self._download(url, file, MAX_ZIP_BYTES, self.traffic)
        except OSError as error:
            where = f"{tempfile.gettempdir()}: {error.strerror}"
            raise AdapterError("no temporary space", f"the zip file cannot be kept in {where}", lasting=False) from error


def _check(file: IO[bytes], version: Version) -> None:
    """Against the index's hashes; a page of a portal or of a moved site is told from a zip file that was changed.

    Neither is held against the adapter for good: the next answer may be the right one.
    """
    file.seek(0)
    start = file.read(4)
    if start not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise AdapterError("not a zip file", "what is at its address is no zip file, but perhaps a web page", lasting=False)
    digests = {"sha1": hashlib.sha1(start, usedforsecurity=False), "sha256": hashlib.sha256(start)}
    while block := file.read(1 << 20):
        for digest in digests.values():
            digest.update(block)
    for name, digest in digests.items():
        wanted = getattr(version, name)
        if wanted is not None and digest.hexdigest() != wanted:
            raise AdapterError("wrong hash", f"the zip file has another {name} than the index says", lasting=False)
