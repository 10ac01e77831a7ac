"""A transport that waits on a clock of its own, so that tests do not."""

from __future__ import annotations

from typing import Any

import pytest

from hubrank.hubs.http import Transport
from hubrank.hubs.patience import Patience

__all__ = ["Clock", "online", "quick"]

TOKEN = "hf_averysecrettoken"


class Clock:
    """Seconds that pass only where somebody waits; ``waits`` lists each wait."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds < 1000
        self.waits.append(seconds)
        self.now += seconds


def quick(home: str | None, clock: Clock | None = None, **options: Any) -> Transport:
    """A transport whose waits take no time; a server that stalls is given up after a third of a second."""
    clock = clock or Clock()
    options.setdefault("patience", Patience(read=0.3, connect=1.0))
    return Transport(home, clock=clock, sleep=clock.sleep, **options)


def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test reach the stand-in hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
