"""How many requests a hub grants us: counted before each one, and corrected by what the hub says of it.

The HF Hub allows an address without an account 500 API calls and 3,000 file look-ups in five minutes, and one with an account
more (https://huggingface.co/docs/hub/rate-limits). Every thread asks the same budget. It never blocks, so that it may as well
live in another process and be asked from many machines: it says how long to wait, and the caller waits and asks again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from hubrank.hubs.headers import RateLimit, rate_limit, retry_after

__all__ = ["ANONYMOUS", "LONGEST_WAIT", "WINDOW", "WITH_TOKEN", "Budget", "RateBudget", "kind_of"]

WINDOW = 300.0
"""Seconds in which requests are counted, where a hub does not say."""
LONGEST_WAIT = 300.0
"""No answer makes us wait longer than this many seconds at once, whatever it says."""
ANONYMOUS: Mapping[str, int] = {"api": 500, "resolvers": 3000}
"""Requests per window without a token, by kind."""
WITH_TOKEN: Mapping[str, int] = {"api": 1000, "resolvers": 5000}
"""With one, of a free account; the hub's own headers say so where it is more."""


class Budget(Protocol):
    """Where requests are counted; one for all threads, and where there are several machines, for all of them."""

    def acquire(self, host: str, kind: str) -> float:
        """Take one request: 0 where it may go now; else nothing is taken, and this many seconds later to ask again."""

    def observe(self, host: str, kind: str, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer; header names are in lower case."""


def kind_of(url: str) -> str:
    """The class of requests that the HF Hub counts an address under."""
    path = urlsplit(url).path
    if "/resolve/" in path:
        return "resolvers"
    return "api" if "/api/" in path else "other"


@dataclass(slots=True)
class _Window:
    """Requests of one kind to one host."""

    quota: int | None
    window: float = WINDOW
    sent: deque[float] = field(default_factory=deque)
    remaining: int | None = None  # as the hub says, less what has been sent since
    reset: float = 0.0  # when that is out of date
    closed: float = 0.0  # nothing goes before, since the hub said so

    def acquire(self, now: float) -> float:
        if now < self.closed:
            return self.closed - now
        if self.remaining is not None and now < self.reset:
            if self.remaining <= 0:
                return self.reset - now
            self.remaining -= 1
        else:
            self.remaining = None
            while self.sent and self.sent[0] <= now - self.window:
                self.sent.popleft()
            if self.quota is not None and len(self.sent) >= self.quota:
                return self.sent[0] + self.window - now
        if self.quota is not None:
            self.sent.append(now)
            while len(self.sent) > self.quota:
                self.sent.popleft()
        return 0.0

    def observe(self, now: float, status: int, limit: RateLimit | None, wait: float | None) -> None:
        if limit is not None:
            if limit.quota and limit.window:
                self.quota, self.window = min(limit.quota, 1_000_000), min(float(limit.window), LONGEST_WAIT)
            if limit.remaining is not None and limit.reset is not None:
                reset = now + min(limit.reset, LONGEST_WAIT)
                # An answer may be older than what has been sent since; only a new window gives more than is left of this one.
                left = self.remaining if now < self.reset and reset < self.reset + self.window / 2 else None
                self.remaining = limit.remaining if left is None else min(limit.remaining, left)
                self.reset = reset
        if status == 429:
            hint = wait if wait is not None else (limit.reset if limit is not None else None)
            if hint is not None:
                self.closed = max(self.closed, now + min(hint, LONGEST_WAIT))


class RateBudget:
    """A budget for the threads of one process.

    Args:
        limits: requests per window by kind; what is not there is not limited until the hub says so.
        clock: seconds, never running backwards.
    """

    def __init__(self, limits: Mapping[str, int] = ANONYMOUS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = dict(limits)
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}

    def acquire(self, host: str, kind: str) -> float:
        """Take one request, or say in how many seconds to ask again."""
        with self._lock:
            return min(self._window(host, kind).acquire(self._clock()), LONGEST_WAIT)

    def observe(self, host: str, kind: str, status: int, headers: Mapping[str, str]) -> None:
        """Take what the hub says as the truth, within bounds."""
        limit = rate_limit(headers)
        if limit is None and status != 429:
            return
        with self._lock:
            self._window(host, kind).observe(self._clock(), status, limit, retry_after(headers))

    def _window(self, host: str, kind: str) -> _Window:
        # Hosts come from redirects: a hostile one must not fill the memory.
        if len(self._windows) > 1000 and (host, kind) not in self._windows:
            self._windows = {key: window for key, window in self._windows.items() if key[1] in self._limits}
        return self._windows.setdefault((host, kind), _Window(self._limits.get(kind)))

    def __getstate__(self) -> dict[str, object]:
        """For another process: the limits alone; its clock is another, and it counts for itself."""
        return {"_limits": self._limits, "_clock": self._clock}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._windows = {}
