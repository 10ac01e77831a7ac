"""When a server does not answer at all: told from one bad file, so that a sync ends soon and not after ten thousand retries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hubrank.errors import HubError

__all__ = ["Outage"]

_LIMIT = 12
_UNREACHABLE = 4  # a server that cannot be connected to counts this much more than one that answers with faults
_PAUSE = 60.0
_MOST = 1000


@dataclass(slots=True)
class _Server:
    score: int = 0
    until: float = 0.0
    met: bool = False


class Outage:
    """Counts calls to each server that failed after all retries, in a row.

    Three that could not connect, or twelve that got nothing but faults, with no good answer in between: then every further
    call fails at once for a minute.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._servers: dict[tuple[str, str, int], _Server] = {}

    def check(self, server: tuple[str, str, int]) -> None:
        """Raise if it is known to be away.

        Raises:
            HubError: so many calls failed that it makes no sense to go on.
        """
        with self._lock:
            known = self._servers.get(server)
            if known is not None and self._clock() < known.until:
                raise HubError(f"{server[1]} did not answer, however often it was asked; check the network, or try again later")

    def met(self, server: tuple[str, str, int]) -> bool:
        """Whether it has ever answered."""
        with self._lock:
            return server in self._servers and self._servers[server].met

    def answered(self, server: tuple[str, str, int], *, well: bool) -> None:
        """It gave an answer: a proper one, if only a refusal, or one that says that it is not well."""
        with self._lock:
            if len(self._servers) > _MOST:  # redirects name servers: a hostile hub must not fill the memory
                self._servers.clear()
            if well:
                self._servers[server] = _Server(met=True)
            else:
                self._servers.setdefault(server, _Server()).met = True

    def failed(self, server: tuple[str, str, int], *, unreachable: bool) -> None:
        """A call to it failed for good."""
        with self._lock:
            known = self._servers.setdefault(server, _Server())
            known.score += _UNREACHABLE if unreachable else 1
            if known.score >= _LIMIT:
                known.until = self._clock() + _PAUSE

    def __getstate__(self) -> dict[str, object]:
        """For another process: it finds out for itself."""
        return {"_clock": self._clock}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._servers = {}
