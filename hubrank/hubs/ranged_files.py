"""One file of a hub at one commit: only the bytes that are wanted, and proof that they are that file's."""

from __future__ import annotations

import hashlib
import re
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import IO

from hubrank.errors import AdapterError, HubAnswerError
from hubrank.hubs.headers import etag, shown
from hubrank.hubs.http import Call, Transport
from hubrank.hubs.protocol import Traffic
from hubrank.hubs.replies import PIECE, Fault, Reply
from hubrank.hubs.streams import Identity, Stream

__all__ = ["FIRST", "GAP", "MAX_WHOLE", "RangedFile"]

FIRST = 256 * 1024
"""Bytes that are asked for at first, with no knowledge of the size: small adapters are done with that."""
GAP = 256 * 1024
"""Reading this much for nothing is cheaper than another request."""
MAX_WHOLE = 1024**3
"""The most that is fetched of a file that has to be fetched whole."""

_IN_MEMORY = 16_000_000
_MAX_HEAD = 32_000_000
_HASH_TRIES = 3
_NO_SUCH_RANGE = 416
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


class RangedFile:
    """A file behind its address at a hub. Opening it asks for its first bytes, or where it must be read whole, for all.

    What has been read whole is checked against the hash that the hub states. Of what is read by ranges, every answer must be
    about the same commit, content and size, and have the bytes asked for. Used by one thread at a time.

    Args:
        revision: the commit that the address names.
        whole: fetch all of it at once, into memory or a temporary file.
        limit: the most bytes that it may have where it is read whole.

    Attributes:
        size: in bytes.
        hash: what the hub says of its content, ``sha256:HEX`` or ``git:HEX``; None where it says nothing of the kind.

    Raises:
        AdapterError: ``wrong hash`` where it is something else each time, ``changed while read``, ``no temporary space``.
        HubAnswerError: it cannot be had, or is over the limit.
        HubError: the hub does not answer.
    """

    def __init__(
        self,
        transport: Transport,
        url: str,
        *,
        revision: str,
        traffic: Traffic,
        whole: bool = False,
        limit: int = MAX_WHOLE,
    ) -> None:
        self._transport, self._url, self._revision, self._traffic = transport, url, revision, traffic
        self._limit = limit
        self._location: str | None = None
        self._identity: Identity | None = None
        self._digest = _Digest(0)
        self._head = b""  # the file's first bytes, or all of a small one
        self._file: IO[bytes] | None = None  # all of a large one that is read whole
        self.size = 0
        self.hash: str | None = None
        for _ in range(_HASH_TRIES):
            self._location = self._identity = None
            if self._open_whole() if whole else self._open_first():
                break
        else:
            raise AdapterError("wrong hash", f"{shown(url)} is not what the hub says it is", lasting=False)
        traffic.bytes_whole += self.size

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``; what adjoins the beginning of the file is kept, as headers are read piece by piece.

        Raises:
            HubAnswerError: ``file truncated`` where the file has no such bytes.
        """
        if self._file is None and start <= len(self._head) < stop <= min(self.size, _MAX_HEAD):
            self._head += b"".join(self.read_ranges([(len(self._head), stop)]))
        return b"".join(self.read_ranges([(start, stop)]))

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Several ranges in the order asked for, each as it comes in: neighbours come by one request, however long."""
        for start, stop in ranges:
            if not 0 <= start <= stop <= self.size:
                raise HubAnswerError("file truncated", f"{shown(self._url)} ends at byte {self.size:,}, before {stop:,}")
        for run in _runs(ranges):
            yield from self._read_run(run)

    def _read_run(self, run: list[tuple[int, int]]) -> Iterator[bytes]:
        here = len(self._head)
        if self._file is not None or run[-1][1] <= max(run[0][0], here):
            yield from (self._kept(start, stop) for start, stop in run)
            return
        with closing(self._stream((max(run[0][0], here), run[-1][1]))) as stream:
            for start, stop in run:
                kept = self._head[start:stop]
                self._take(stream, max(start, here) - stream.position if stop > here else 0)
                yield kept + self._take(stream, stop - start - len(kept))

    def _take(self, stream: Stream, count: int) -> bytes:
        """The next bytes; where every byte of the file has come in its order, it has been read whole, and is checked."""
        follows = stream.position == self._digest.length
        data = stream.read(count)
        if follows and not self._matches(self._digest.add(data)):
            raise AdapterError("wrong hash", f"{shown(self._url)} is not what the hub says it is", lasting=False)
        return data

    def _stream(self, span: tuple[int, int] | None) -> Stream:
        call = Call(self._url, self._limit, span, traffic=self._traffic)
        stream = Stream(self._transport, call, location=self._location, check=self._check, known=self._identity)
        self._location, self._identity, self.size = stream.location, stream.identity, stream.total
        return stream

    def _kept(self, start: int, stop: int) -> bytes:
        if self._file is None:
            return self._head[start:stop]
        self._file.seek(start)
        return self._file.read(stop - start)

    def _open_first(self) -> bool:
        """Read the first bytes; False where they are all there is and not what the hub says."""
        try:
            stream = self._stream((0, FIRST))
        except HubAnswerError as error:
            if error.status == _NO_SUCH_RANGE:
                return True  # an empty file
            raise
        with closing(stream):
            if not (stream.whole and self.size > FIRST):
                self._head = stream.read(stream.stop)
                self._digest = _Digest(self.size)
                return self._matches(self._digest.add(self._head))
        return self._open_whole()  # the server knows no ranges

    def _open_whole(self) -> bool:
        """Read everything; False where it is not what the hub says."""
        with closing(self._stream(None)) as stream:
            digest = _Digest(self.size)
            try:
                file = tempfile.TemporaryFile() if self.size > _IN_MEMORY else None  # noqa: SIM115 -- closed by the finalizer
                if file is not None:
                    weakref.finalize(self, file.close)
                pieces = []
                while stream.position < stream.stop:
                    data = stream.read(min(PIECE, stream.stop - stream.position))
                    digest.add(data)
                    pieces.append(data) if file is None else file.write(data)
            except OSError as error:
                where = f"{tempfile.gettempdir()}: {error.strerror}"
                raise AdapterError(
                    "no temporary space", f"{shown(self._url)} cannot be kept in {where}", lasting=False
                ) from error
        self._file, self._head = file, b"".join(pieces)
        return self._matches(digest)

    def _check(self, reply: Reply) -> None:
        """Refuse an answer of the hub about another commit, or other content, than before."""
        commit, size = reply.said.get("x-repo-commit"), reply.said.get("x-linked-size", "")
        if commit != self._revision and _COMMIT.fullmatch(self._revision):
            if commit is None:  # a page of whatever stands between us and the hub
                raise HubAnswerError("bad answer", f"{shown(self._url)} was answered with no file of the hub's", reply.status)
            raise AdapterError("changed while read", f"{shown(self._url)} was answered from another commit", lasting=False)
        total = reply.extent.total if reply.extent is not None else reply.length
        if re.fullmatch(r"\d{1,18}", size) and total != int(size):
            raise Fault(f"{total} bytes of a file of {size}", status=reply.status)
        stated = _stated_hash(reply)
        if stated is not None and self.hash not in (None, stated):
            raise AdapterError("changed while read", f"{shown(self._url)} is another file than before", lasting=False)
        self.hash = self.hash or stated

    def _matches(self, digest: _Digest) -> bool:
        """Whether it may be what the hub says: true while it is not complete."""
        return digest.length < self.size or self.hash is None or self.hash in (digest.sha256, digest.git)


class _Digest:
    """The hashes of a file of ``size`` bytes as they come in: its own sha256, and the sha1 that git gives a blob."""

    def __init__(self, size: int) -> None:
        self.length = 0
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def add(self, data: bytes) -> _Digest:
        self.length += len(data)
        self._sha256.update(data)
        self._sha1.update(data)
        return self

    @property
    def sha256(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"

    @property
    def git(self) -> str:
        return f"git:{self._sha1.hexdigest()}"


def _stated_hash(reply: Reply) -> str | None:
    """A large file's sha256 is in ``X-Linked-Etag``, a small one's git blob sha1 in ``ETag``; the hub's own word counts."""
    linked, own = etag(reply.said, "x-linked-etag"), etag(reply.said)
    if linked is not None and _SHA256.fullmatch(linked):
        return f"sha256:{linked}"
    if linked is None and own is not None:
        if _SHA1.fullmatch(own):
            return f"git:{own}"
        if _SHA256.fullmatch(own):
            return f"sha256:{own}"
    return None


def _runs(ranges: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Ranges that follow one another with small gaps at most."""
    run: list[tuple[int, int]] = []
    for start, stop in ranges:
        if run and not 0 <= start - run[-1][1] <= GAP:
            yield run
            run = []
        run.append((start, stop))
    if run:
        yield run
