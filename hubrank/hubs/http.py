"""Ask a hub over HTTP, and get the answer or a reason: retries, rate limits, redirects and the token are dealt with here.

``huggingface_hub`` says where the hub is, who we are and whether we may go online. Its client does not wait where the hub asks
for it, does not repeat every call, and cannot read ranges through a redirect, so the requests themselves are made here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from hubrank.errors import HubAnswerError, HubError, HubStoppedError
from hubrank.hubs.budget import ANONYMOUS, WITH_TOKEN, Budget, RateBudget, kind_of
from hubrank.hubs.headers import origin, retry_after, shown
from hubrank.hubs.identity import Bearer, hub_endpoint, hub_token, user_agent
from hubrank.hubs.outage import Outage
from hubrank.hubs.patience import Patience, Tries
from hubrank.hubs.protocol import Traffic
from hubrank.hubs.replies import Fault, Reply, drain, lower, refusal
from hubrank.hubs.sessions import Sessions

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Answer", "Call", "Transport"]

_HOPS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429)
_UNSIGNED = (401, 403)


@dataclass(frozen=True, slots=True)
class Call:
    """One thing to ask for.

    Attributes:
        limit: the most bytes that the body may have.
        span: ask for these bytes of a file only; a server may send all of it all the same.
        post: send this as JSON.
        packed: it may come compressed; never so for files, whose bytes are counted and hashed.
        traffic: where requests and bytes are counted.
    """

    url: str
    limit: int
    span: tuple[int, int] | None = None
    post: bytes | None = None
    packed: bool = False
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; see :class:`hubrank.hubs.replies.Reply` for ``headers`` and ``said``."""

    url: str
    status: int
    headers: Mapping[str, str]
    said: Mapping[str, str]
    body: bytes


class Transport:
    """Makes requests; used by many threads at once. A copy in another process shares nothing but what it was made of.

    Args:
        home: address of the hub; the token goes there (same scheme, host and port) and nowhere else.
        token: of the user, or None.
        budget: counts the requests; one of our own where it is None.
        permit: raises HubAnswerError where an address, be it a redirect's, must not be asked; None for any of the web.
        sleep: instead of waiting; for tests.
    """

    def __init__(
        self,
        home: str | None = None,
        *,
        token: str | None = None,
        budget: Budget | None = None,
        patience: Patience | None = None,
        permit: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        try:
            self._home = origin(home) if home is not None else None
        except ValueError:
            raise HubError("HF_ENDPOINT is not an address of the web") from None
        self._bearer = Bearer(token) if token else None
        self._budget: Budget = budget or RateBudget(WITH_TOKEN if token else ANONYMOUS, clock=clock)
        self._patience = patience or Patience()
        self._permit = permit
        self._clock, self._sleep = clock, sleep
        self._outage = Outage(clock=clock)
        self._sessions = Sessions()
        self._stopped = threading.Event()

    @classmethod
    def for_hub(
        cls, endpoint: str | None = None, *, budget: Budget | None = None, patience: Patience | None = None
    ) -> Transport:
        """One for the HF Hub, or another hub with its API: the endpoint, and the user's token, are huggingface_hub's."""
        return cls(endpoint or hub_endpoint(), token=hub_token(), budget=budget, patience=patience)

    @property
    def has_token(self) -> bool:
        """Whether the hub knows who we are."""
        return self._bearer is not None

    def fetch(self, call: Call) -> Answer:
        """The whole answer to a call, in memory.

        Raises:
            HubAnswerError: refused, or failed however often it was tried.
            HubError: the server does not answer anything any more, or we are offline.
            HubStoppedError: after :meth:`stop`.
        """
        tries = self.tries(call)
        while True:
            try:
                with self.ask(call, tries) as reply:
                    body = reply.whole(call.limit)
                tries.done()
                return Answer(reply.url, reply.status, reply.headers, reply.said, body)
            except Fault as fault:
                tries.again(fault)

    def get(self, url: str, *, limit: int, traffic: Traffic | None = None) -> Answer:
        """A whole file or page; see :meth:`fetch`."""
        return self.fetch(Call(url, limit, traffic=traffic or Traffic()))

    def json(self, call: Call) -> tuple[Any, Answer]:
        """An answer that must be JSON, and the answer itself.

        Raises:
            HubAnswerError: also ``bad answer`` where it is none.
        """
        before = call.traffic.bytes_read
        answer = self.fetch(call)
        call.traffic.bytes_whole += call.traffic.bytes_read - before  # whoever downloads whole files asks for lists as well
        try:
            return json.loads(answer.body), answer
        except (ValueError, RecursionError):
            html = answer.body.lstrip()[:1] == b"<"
            what = "with a web page" if html else "with something that is not JSON"
            raise HubAnswerError("bad answer", f"{shown(call.url)} was answered {what}", answer.status) from None

    def tries(self, call: Call) -> Tries:
        """What counts the tries of a call."""
        return Tries(call.url, self._patience, self._pause, self._outage)

    @contextmanager
    def ask(self, call: Call, tries: Tries) -> Iterator[Reply]:
        """Send a call once, follow its redirects, and close what is left of the answer afterwards.

        Raises:
            Fault: it may go well the next time.
            HubError: as :meth:`fetch` does.
        """
        reply = self.open(call, tries)
        try:
            yield reply
        finally:
            reply.close()

    def stop(self) -> None:
        """End every wait and every read of every thread within moments; whatever is asked from now on fails at once."""
        self._stopped.set()
        self._sessions.break_off()

    def close(self) -> None:
        """Close the connections of this thread."""
        self._sessions.close()

    def check(self) -> None:
        """Raise where nothing may be asked."""
        from huggingface_hub import constants

        if self._stopped.is_set():
            raise HubStoppedError("stopped")
        if constants.HF_HUB_OFFLINE:
            raise HubError("the Hub is not asked: HF_HUB_OFFLINE is set; use --hub FOLDER, or unset it")

    def open(self, call: Call, tries: Tries) -> Reply:
        """As :meth:`ask`, but the caller closes the reply."""
        url, said, seen = call.url, dict[str, str](), {call.url}
        first = _server(url, call)
        for hop in range(_HOPS + 1):
            tries.server = server = _server(url, call)
            response = self._send(call, url, server, tries, counted=hop == 0)
            headers, status = lower(response.headers), response.status_code
            said |= headers if server == first else {}
            self._budget.observe(server[1], kind_of(url), status, headers)
            if 200 <= status < 300:
                return Reply(response, said, call.traffic, self._clock)
            drain(response)
            # The signature in a redirect may be out of date; the hub gives a new one.
            again = status in _AGAIN or status >= 500 or (server != first and status in _UNSIGNED)
            self._outage.answered(server, well=not again)
            if again:
                raise Fault(f"status {status}", status=status, wait=retry_after(headers))
            if status not in _REDIRECTS or "location" not in headers:
                raise refusal(status, headers, call.url)
            url = _target(url, headers["location"], call)
            if url in seen:
                raise HubAnswerError("bad answer", f"{shown(call.url)} redirects in a circle", status)
            seen.add(url)
        raise HubAnswerError("bad answer", f"{shown(call.url)} redirects more than {_HOPS} times")

    def _send(self, call: Call, url: str, server: tuple[str, str, int], tries: Tries, *, counted: bool) -> Response:
        import requests
        from urllib3.exceptions import HTTPError

        self.check()
        if self._permit is not None:
            self._permit(url)
        self._outage.check(server)
        while (seconds := self._budget.acquire(server[1], kind_of(url))) > 0:
            tries.wait_for_budget(seconds)
        headers = {"User-Agent": user_agent(), "Accept-Encoding": "gzip" if call.packed else "identity"}
        if call.span is not None:
            headers["Range"] = f"bytes={call.span[0]}-{call.span[1] - 1}"
        if call.post is not None:
            headers["Content-Type"] = "application/json"
        call.traffic.requests += counted
        try:
            return self._sessions.get().request(
                "GET" if call.post is None else "POST",
                url,
                headers=headers,
                data=call.post,
                auth=self._bearer if server == self._home else None,
                stream=True,
                allow_redirects=False,
                timeout=(self._patience.connect, self._patience.read),
            )
        except requests.Timeout as error:
            unreachable = isinstance(error, requests.ConnectTimeout)
            raise Fault("nothing came in time", unreachable=unreachable) from error
        except requests.ConnectionError as error:
            raise _connection_fault(error) from error
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise HubAnswerError("bad answer", f"{shown(url)} could not be asked for ({type(error).__name__})") from error

    def _pause(self, seconds: float) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            self._stopped.wait(seconds)
        self.check()

    def __getstate__(self) -> dict[str, object]:
        """For another process: what it was made of; sessions, waits and what it knows of servers stay here."""
        return {name: value for name, value in self.__dict__.items() if name != "_stopped"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._stopped = threading.Event()


def _server(url: str, call: Call) -> tuple[str, str, int]:
    try:
        return origin(url)
    except ValueError:
        raise HubAnswerError("bad answer", f"{shown(call.url)} leads to what is no address of the web") from None


def _target(url: str, location: str, call: Call) -> str:
    """Where a redirect leads, if it may be followed."""
    try:
        target = urljoin(url, location)
        scheme, host, port = origin(target)
    except ValueError:
        raise HubAnswerError("bad answer", f"{shown(call.url)} leads to what is no address of the web") from None
    before = origin(url)
    if before[0] == "https" and scheme == "http":
        raise HubAnswerError("bad answer", f"{shown(call.url)} redirects from https to http")
    if call.post is not None and (scheme, host, port) != before:
        raise HubAnswerError("bad answer", f"{shown(call.url)} redirects what we send to another server")
    return target


def _connection_fault(error: Exception) -> Fault:
    from requests.exceptions import ProxyError, SSLError
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, SSLError):
        return Fault("its certificate is not accepted", unreachable=True)
    if isinstance(error, ProxyError):
        return Fault("the proxy cannot be reached", unreachable=True)
    if isinstance(reason, NewConnectionError):
        return Fault("it cannot be connected to", unreachable=True)
    return Fault("the connection broke off")
