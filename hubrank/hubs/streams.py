"""A stretch of a file as it comes in; where the connection breaks off, it is taken up again at that byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hubrank.errors import HubAnswerError
from hubrank.hubs.headers import etag, origin, shown
from hubrank.hubs.http import Call, Transport
from hubrank.hubs.replies import Fault, Reply

__all__ = ["Identity", "Stream"]

# What a redirect's target says once the signature in its address is out of date; the hub gives a new one.
_EXPIRED = (400, 401, 403, 404, 410)


@dataclass(frozen=True, slots=True)
class Identity:
    """What must stay the same from one answer to the next; servers have their own tags for the same content."""

    total: int
    etag: str | None
    server: tuple[str, str, int]

    def differs(self, other: Identity) -> bool:
        """Whether they are of two files."""
        tags = None not in (self.etag, other.etag) and self.server == other.server
        return self.total != other.total or (tags and self.etag != other.etag)


class Stream:
    """The bytes of ``call.span``, or the whole file; opened at once.

    Args:
        call: with the address at the hub.
        location: where the hub has redirected to before: asked instead, as long as it answers.
        check: called with every answer that the hub itself was asked for, before anything of it is used; raises what is wrong.
        known: what the file was when another stretch of it was read.

    Attributes:
        identity: what the file is now.
        total: size of the file in bytes.
        stop: end of the stretch; that of the file where that comes first.
        whole: the server sends the whole file, whatever was asked for.
        location: where the bytes came from.

    Raises:
        HubAnswerError: refused, or failed however often it was tried; ``changed while read`` where a later answer is about
            another file than the first.
        HubError: the server does not answer anything any more.
    """

    def __init__(
        self,
        transport: Transport,
        call: Call,
        *,
        location: str | None = None,
        check: Callable[[Reply], None] | None = None,
        known: Identity | None = None,
    ) -> None:
        self._transport, self._call, self._check = transport, call, check
        self._tries = transport.tries(call)
        self.identity = known
        self._reply: Reply | None = None
        self.location = location or call.url
        self.position = call.span[0] if call.span is not None else 0
        self.total, self.whole = 0, False
        self._connect()
        self.stop = min(call.span[1], self.total) if call.span is not None else self.total

    def read(self, count: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            HubAnswerError: ``file truncated`` where the stretch has no more.
        """
        if self.position + count > self.stop:
            raise HubAnswerError("file truncated", f"{shown(self._call.url)} ends at byte {self.stop:,}")
        out = bytearray()
        while len(out) < count:
            out += self._some(count - len(out))
        return bytes(out)

    def close(self) -> None:
        """Leave the rest."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    def _some(self, most: int) -> bytes:
        while True:
            if self._reply is None:
                self._connect()
            try:
                data = self._reply.read(most) if self._reply is not None else b""
                if not data:
                    raise Fault("the answer ends too early", status=200)
            except Fault as fault:
                self._again(fault)
                continue
            self.position += len(data)
            self._tries.progress(len(data))
            if self.position == self.stop:
                self._tries.done()
                self.close()
            return data

    def _again(self, fault: Fault) -> None:
        self.close()
        self._tries.again(fault)

    def _connect(self) -> None:
        while self._reply is None:
            try:
                self._reply = self._open()
            except Fault as fault:
                self._again(fault)
            except HubAnswerError as error:
                if self.location == self._call.url or error.status not in _EXPIRED:
                    raise
                self.location = self._call.url

    def _open(self) -> Reply:
        end = self._call.span[1] if self._call.span is not None else self.total
        span = (self.position, end) if self._call.span is not None or self.position else None
        reply = self._transport.open(replace(self._call, url=self.location, span=span), self._tries)
        try:
            self._accept(reply, span)
        except BaseException:
            reply.close()
            raise
        return reply

    def _accept(self, reply: Reply, span: tuple[int, int] | None) -> None:
        """Check the head of an answer, and come to the byte that is wanted."""
        if self._check is not None and self.location == self._call.url:
            self._check(reply)
        extent, begins = reply.extent, 0
        if extent is None:
            if reply.status != 200 or reply.length is None or reply.packed:
                what = f"{shown(self._call.url)} was answered without saying which bytes these are"
                raise HubAnswerError("bad answer", what, reply.status)
            reply.bound(self._call.limit)
        elif span is None or extent.start != span[0] or extent.stop != min(span[1], extent.total):
            raise Fault("other bytes than were asked for", status=reply.status)
        elif reply.length not in (None, extent.stop - extent.start):
            raise Fault("another length than was asked for", status=reply.status)
        else:
            begins = extent.start
        total = extent.total if extent is not None else reply.length or 0
        identity = Identity(total, etag(reply.headers), origin(reply.url))
        if self.identity is not None and identity.differs(self.identity):
            raise HubAnswerError("changed while read", f"{shown(self._call.url)} is another file than before", reply.status)
        self.identity, self.total, self.whole, self.location = identity, total, extent is None, reply.url
        while begins < self.position:
            data = reply.read(self.position - begins)
            if not data:
                raise Fault("the answer ends too early", status=reply.status)
            begins += len(data)
