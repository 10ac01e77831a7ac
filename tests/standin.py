"""A stand-in for the HF Hub over real HTTP, for the unmodified huggingface_hub client and for ours.

Two servers: the hub (lists, file addresses, small files) and a "CDN" at another origin, where large files are, behind signed
addresses. ``faults`` spoil any request; latency, bandwidth and rate limits are a setting away. The routes are in
:mod:`tests.standin_routes`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import ThreadingHTTPServer
from typing import Any

__all__ = ["Fault", "Repo", "Seen", "StandInHub", "blob_sha1", "digest", "stand_in_hub"]


@lru_cache(maxsize=50_000)
def digest(data: bytes) -> str:
    """sha256."""
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=50_000)
def blob_sha1(data: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Repo:
    """One model repository."""

    id: str
    files: dict[str, bytes]
    tags: list[str] = field(default_factory=lambda: ["peft"])
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lfs: tuple[str, ...] = (".safetensors", ".bin", ".pt", ".npy", ".npz")
    private: bool = False
    disabled: bool = False
    downloads: int = 1
    pipeline_tag: str | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return commit_of(self.files)

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch or commit."""
        names = {"main": self.files, **self.branches}
        return names.get(revision) or {commit_of(files): files for files in names.values()}.get(revision)


def commit_of(files: Mapping[str, bytes]) -> str:
    """Forty digits that change whenever a file does."""
    whole = hashlib.sha1(usedforsecurity=False)
    for name in sorted(files):
        whole.update(f"{name}\0{blob_sha1(files[name])}\n".encode())
    return whole.hexdigest()


@dataclass
class Fault:
    """What goes wrong with one request.

    With a ``status``, that is answered, with these headers and this body. Without one, the usual answer is given, but spoiled.

    Attributes:
        stall: seconds before anything is sent.
        cut: so many bytes of the body are sent, and then the connection ends.
        reset: with a reset rather than properly.
        longer: the stated length is off by this.
        flip: this byte of the body is another.
        whole: a range that was asked for is ignored.
        more: headers that are changed, or with None left out.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stall: float = 0.0
    cut: int | None = None
    reset: bool = False
    longer: int = 0
    flip: int | None = None
    whole: bool = False
    more: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def busy(cls, seconds: float | str | None = None, status: int = 429) -> Fault:
        """Come back later."""
        return cls(status, {} if seconds is None else {"Retry-After": str(seconds)})

    @classmethod
    def html(cls) -> Fault:
        """A page for a person, as proxies and captive portals answer."""
        return cls(200, {"Content-Type": "text/html"}, b"<!doctype html><html><body>Please sign in</body></html>")

    @classmethod
    def loop(cls) -> Fault:
        """A redirect in a circle."""
        return cls(302, {"Location": "/loop/1"})


@dataclass(frozen=True)
class Seen:
    """A request as a server saw it; ``headers`` by names in lower case."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


class StandInHub:
    """The state of both servers; ``url`` and ``cdn_url`` are where they listen.

    Attributes:
        requests: (method, path) of all that the hub was asked; not what the CDN was.
        seen: all of both.
        page: the most that a page lists.
        fault: called with method and path of each request, of the CDN too (``/cdn/...``).
        token: who sends it sees gated and private repositories.
        renamed: old ids and the new ones that they lead to.
        latency: seconds before each answer.
        bandwidth: bytes a second, of all connections together.
        limits: requests and seconds of a window, by ``api`` and ``resolvers``.
        expires: seconds for which the CDN's addresses are good.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.seen: list[Seen] = []
        self.connections = 0
        self.page = 1000
        self.fault: Callable[[str, str], Fault | None] = lambda method, path: None
        self.url = self.cdn_url = ""
        self.token: str | None = None
        self.renamed: dict[str, str] = {}
        self.latency = 0.0
        self.bandwidth: float | None = None
        self.limits: dict[str, tuple[int, float]] = {}
        self.expires = 3600.0
        self.lock = threading.Lock()
        self._free = 0.0
        self._windows: dict[str, tuple[float, int]] = {}

    def add(self, repo: Repo) -> Repo:
        self.repos[repo.id] = repo
        return repo

    def clear(self) -> None:
        """Forget what was asked."""
        self.requests.clear()
        self.seen.clear()

    def cdn_requests(self) -> list[str]:
        """Paths that the CDN was asked for."""
        return [seen.path for seen in self.seen if seen.server == "cdn"]

    def wait_for_line(self, count: int) -> None:
        """Wait until so many bytes have found room on the line."""
        if self.bandwidth is None:
            return
        with self.lock:
            now = time.monotonic()
            self._free = max(now, self._free) + count / self.bandwidth
            wait = self._free - now
        time.sleep(wait)

    def count(self, kind: str) -> tuple[int, float] | None:
        """(left after this one, seconds until the window ends); -1 left where it is one too many."""
        if kind not in self.limits:
            return None
        quota, window = self.limits[kind]
        with self.lock:
            now = time.monotonic()
            start, used = self._windows.get(kind, (now, 0))
            if now >= start + window:
                start, used = now, 0
            self._windows[kind] = (start, used + 1)
            return quota - used - 1, start + window - now


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def shutdown_request(self, request: Any) -> None:
        request.close()  # a reset is to be one

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients may leave whenever they like


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Run a stand-in hub and its CDN on free local ports."""
    from tests.standin_routes import CdnHandler, HubHandler

    hub = StandInHub()
    with ExitStack() as stack:
        hub.url = stack.enter_context(_running(type("Handler", (HubHandler,), {"state": hub})))
        hub.cdn_url = stack.enter_context(_running(type("Handler", (CdnHandler,), {"state": hub})))
        yield hub


@contextmanager
def _running(handler: type) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
