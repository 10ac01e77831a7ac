"""Sessions of ``requests``, one a thread, whose connections can all be broken off at once from another thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import PreparedRequest, Session

__all__ = ["Sessions"]


class Sessions:
    """Hands each thread its own session; a copy in another process starts without any."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._broken = False

    def get(self) -> Session:
        """The session of this thread: no cookies, no netrc, proxies and certificates as the environment says."""
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _session(self._register)
        return session

    def break_off(self) -> None:
        """Make every read that waits for a server fail now, and every later one."""
        with self._lock:
            self._broken = True
            sockets = list(self._sockets)
        for one in sockets:
            _shut(one)

    def close(self) -> None:
        """Close the connections of this thread."""
        session: Session | None = getattr(self._local, "session", None)
        if session is not None:
            session.close()
            del self._local.session

    def _register(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            broken = self._broken
        if broken:
            _shut(sock)

    def __getstate__(self) -> dict[str, object]:
        """Nothing of a connection can leave the process."""
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]


def _shut(sock: socket.socket) -> None:
    # Of the plain socket, also under TLS: another thread may be inside the TLS layer.
    with contextlib.suppress(OSError):  # closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _session(register: Callable[[socket.socket], None]) -> Session:
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            register(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            register(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    session = Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.auth = _no_netrc
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter())
    return session


def _no_netrc(request: PreparedRequest) -> PreparedRequest:
    """Where no authentication is set, ``requests`` looks for one in ~/.netrc; we know what to send, and to whom."""
    return request
