"""One answer to one request: its checked head, and its body in pieces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING

from hubrank.errors import HubAnswerError
from hubrank.hubs.headers import content_length, content_range, shown
from hubrank.hubs.protocol import Traffic

if TYPE_CHECKING:
    from requests import Response

__all__ = ["PIECE", "Fault", "Reply", "drain", "lower", "refusal"]

PIECE = 1 << 18
"""At most this many bytes are taken from a connection at once."""
_DRAINED = 64 * 1024
_SLOW_AFTER, _SLOWEST = 30.0, 4000.0  # seconds, and bytes a second from then on

_CODES: Mapping[str, tuple[str, str]] = {
    "RepoNotFound": ("not found", "is not there, or is private"),
    "RevisionNotFound": ("not found", "has no such revision"),
    "EntryNotFound": ("file missing", "is not there"),
    "GatedRepo": ("gated", "wants its terms accepted on the Hub, and HF_TOKEN set"),
}
_STATUSES: Mapping[int, tuple[str, str]] = {
    401: ("refused", "is not open to us; check HF_TOKEN"),
    403: ("refused", "is not open to us"),
    404: ("not found", "is not there"),
    410: ("not found", "is gone"),
    416: ("file truncated", "ends before the bytes that were asked for"),
    451: ("disabled", "may not be had for legal reasons"),
}


class Fault(Exception):  # noqa: N818 -- not an error yet: the request is repeated
    """Something that may go well the next time.

    Attributes:
        wait: seconds that the server wants us to wait, or None.
        unreachable: it could not even be connected to.
    """

    def __init__(self, what: str, *, status: int = 0, wait: float | None = None, unreachable: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.status = status
        self.wait = wait
        self.unreachable = unreachable


class Reply:
    """An answer whose body has not been read.

    Attributes:
        url: where it came from, after redirects.
        headers: of the answer itself, names in lower case.
        said: by the server that was asked first, on every answer it gave on the way, and by no other.
    """

    def __init__(
        self, response: Response, said: Mapping[str, str], traffic: Traffic, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._response, self._traffic, self._clock = response, traffic, clock
        self._started = clock()
        self.url = response.url
        self.status = response.status_code
        self.headers = lower(response.headers)
        self.said = said
        self.length = content_length(self.headers)
        self.extent = content_range(self.headers) if self.status == 206 else None

    def read(self, most: int = PIECE) -> bytes:
        """Some bytes of the body, empty at its end.

        Raises:
            Fault: the connection broke off, or brings next to nothing.
        """
        from urllib3.exceptions import HTTPError

        raw = self._response.raw
        before = raw.tell()
        try:
            data: bytes = raw.read1(min(most, PIECE), decode_content=True)
        except (HTTPError, HTTPException, OSError, EOFError) as error:
            self.close()
            raise Fault(f"the answer broke off ({type(error).__name__})", status=self.status) from error
        finally:
            self._traffic.bytes_read += raw.tell() - before
        seconds = self._clock() - self._started
        if seconds > _SLOW_AFTER and raw.tell() < seconds * _SLOWEST:
            self.close()
            raise Fault("the answer comes too slowly", status=self.status)
        return data

    def whole(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            Fault: the connection broke off.
            HubAnswerError: it is longer than ``limit``; if its head says so, none of it is read.
        """
        self.bound(limit)
        body = bytearray()
        while data := self.read():
            body += data
            self.bound(limit, len(body))
        if self.length is not None and not self.packed and len(body) != self.length:
            raise Fault(f"the answer has {len(body):,} bytes, not {self.length:,}", status=self.status)
        return bytes(body)

    def bound(self, limit: int, length: int | None = None) -> None:
        """Refuse a body of ``length``, or of the length that its head states, if that is over the limit."""
        length = self.length if length is None else length
        if length is not None and length > limit:
            self.close()
            raise HubAnswerError(
                "file too large", f"{shown(self.url)} has {length:,} bytes; at most {limit:,} are read", self.status
            )

    @property
    def packed(self) -> bool:
        """Whether its bytes are compressed on the way."""
        return self.headers.get("content-encoding", "identity").lower() not in ("", "identity")

    def close(self) -> None:
        """Leave the rest unread."""
        self._response.close()


def refusal(status: int, headers: Mapping[str, str], url: str) -> HubAnswerError:
    """What a hub means by an answer that repeating would not change."""
    if headers.get("x-error-message", "").startswith("Access to this resource is disabled"):
        return HubAnswerError("disabled", f"{shown(url)} is disabled on the Hub", status)
    code = headers.get("x-error-code", "")
    reason, what = _CODES.get(code) or _STATUSES.get(status) or ("refused", f"was answered with status {status}")
    return HubAnswerError(reason, f"{shown(url)} {what}", status)


def drain(response: Response) -> None:
    """Be done with an answer whose body does not matter; a short one is taken, so that its connection can be used again."""
    from urllib3.exceptions import HTTPError

    length = content_length(lower(response.headers))
    if length is not None and length <= _DRAINED:
        with contextlib.suppress(HTTPError, HTTPException, OSError):
            response.raw.read(decode_content=False)
    response.close()


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by names in lower case."""
    return {name.lower(): value for name, value in headers.items()}
