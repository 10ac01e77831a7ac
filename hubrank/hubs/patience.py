"""How often one call is tried, and how long is waited in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from hubrank.errors import HubAnswerError
from hubrank.hubs.budget import LONGEST_WAIT
from hubrank.hubs.headers import origin, shown
from hubrank.hubs.outage import Outage
from hubrank.hubs.replies import Fault

__all__ = ["Patience", "Tries"]

_PROGRESS = 1 << 20  # bytes after which a connection that breaks off again has not failed again
_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call is tried.

    Attributes:
        tries: in all; a server that never answered anything and cannot be connected to gets half as many.
        first: seconds before the second try; doubled each time, and each time a random part of it is waited.
        longest: that is waited of our own accord; what a hub asks for may be more.
        together: seconds that one call waits in all, for the rate limit too: one window of it and a minute.
        connect, read: seconds until a connection stands, and between two pieces of an answer.
    """

    tries: int = 6
    first: float = 0.5
    longest: float = 20.0
    together: float = LONGEST_WAIT + 60.0
    connect: float = 5.0
    read: float = 30.0


class Tries:
    """The tries of one call.

    Args:
        pause: waits some seconds, or raises where somebody wants us to stop.
        outage: is told of a call that failed for good.
    """

    def __init__(self, url: str, patience: Patience, pause: Callable[[float], None], outage: Outage) -> None:
        self._url, self._patience, self._pause, self._outage = url, patience, pause, outage
        self._failed = 0
        self._waited = 0.0
        self._since = 0
        self.server: tuple[str, str, int] | None = None

    def again(self, fault: Fault) -> None:
        """Wait until it makes sense to try again.

        Raises:
            HubAnswerError: it does not; ``rate limited`` or ``hub fault``.
            HubStoppedError: we were told to stop.
        """
        self._failed += 1
        self._since = 0
        most = self._patience.tries
        if fault.unreachable and self.server is not None and not self._outage.met(self.server):
            most = (most + 1) // 2
        backoff = min(self._patience.first * 2 ** (self._failed - 1), self._patience.longest)
        backoff *= _RANDOM.uniform(0.5, 1.0)
        seconds = backoff + min(fault.wait or 0.0, LONGEST_WAIT)
        if self._failed >= most or self._waited + seconds > self._patience.together:
            self._give_up(fault)
        self._wait(seconds)

    def wait_for_budget(self, seconds: float) -> None:
        """Wait for the rate limit, a random moment longer, so that not all threads come back at once.

        Raises:
            HubAnswerError: this call has waited long enough.
            HubStoppedError: we were told to stop.
        """
        seconds += _RANDOM.uniform(0.0, min(1.0, seconds))
        if self._waited + seconds > self._patience.together:
            self._give_up(Fault("the rate limit is used up", status=429))
        self._wait(seconds)

    def progress(self, count: int) -> None:
        """So many bytes came in one go: after enough of them, earlier failures are forgotten."""
        self._since += count
        if self._since >= _PROGRESS:
            self._failed = 0

    def done(self) -> None:
        """The call came to its end."""
        if self.server is not None:
            self._outage.answered(self.server, well=True)

    def _wait(self, seconds: float) -> None:
        self._waited += seconds
        self._pause(seconds)

    def _give_up(self, fault: Fault) -> None:
        limited = fault.status == 429
        server = self.server or origin(self._url)
        self._outage.failed(server, unreachable=fault.unreachable or limited)
        place = f"{server[1]}{shown(self._url)}"
        if limited:
            what = f"{place}: the Hub answered with status 429; set HF_TOKEN for a higher limit, or wait a few minutes"
            raise HubAnswerError("rate limited", what, 429) from fault
        if fault.status >= 400:
            raise HubAnswerError("hub fault", f"{place}: the Hub answered with {fault.what}", fault.status) from fault
        what = f"{place}: the Hub did not answer ({fault.what}); check the network and HF_ENDPOINT"
        raise HubAnswerError("hub fault", what, fault.status) from fault
