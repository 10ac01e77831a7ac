"""What every test shares: reproducible hypothesis runs, and no setting of the person who runs them."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# Before anything imports torch: threads that spin while they wait bring two test runs on one machine to a halt.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that runs the tests in the background has them, and all they start, ignore Ctrl-C; some of them are about it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Slow machines make slow examples, not wrong ones; a failure in CI must be the same failure at home.
settings.register_profile("hubrank", deadline=None, derandomize=True, max_examples=30, database=None)
settings.load_profile("hubrank")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """The user's own cache is out of reach, and so is every hub."""
    monkeypatch.delenv("HUBRANK_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
