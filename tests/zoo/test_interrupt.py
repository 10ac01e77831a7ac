"""A sync that is interrupted, told to end, or killed: it ends soon, what it stored is whole, and the next one completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hubrank.zoo.store import Zoo
from tests.standin import Fault, stand_in_hub
from tests.zoo.hub_repos import contents, fresh, repo, sync

ROOT = Path(__file__).parents[2]
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
with Zoo(Path(sys.argv[2]), create=True) as zoo:
    print("ready", flush=True)
    try:
        sync_hubs(zoo, [HuggingFaceHub(sys.argv[1])], Query(), on_event=lambda event: print(event.name, flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as running:
        for i in range(40):
            running.add(repo(f"org/{i:02}", i))
        yield running


def start(hub, folder: Path) -> subprocess.Popen:
    env = {**os.environ, "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, hub.url, str(folder)], stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["reading", "listing"])
def test_an_interrupt_ends_it_at_once_with_what_was_done(hub, tmp_path, how, where):
    """However long the hub keeps us waiting: here every answer after the first adapters takes a minute."""
    after = 20 if where == "reading" else 0
    hub.fault = lambda method, path: Fault(stall=60) if len(hub.requests) > after else None
    with start(hub, tmp_path / "cache") as process:
        told = []
        if where == "reading":
            told.append(process.stdout.readline().strip())
        while len(hub.requests) <= after:
            time.sleep(0.01)
        started = time.monotonic()
        process.send_signal(how)
        rest = process.stdout.read().split()
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - started < 2 + 3  # some for a machine that has other things to do
    with Zoo(tmp_path / "cache") as zoo:
        assert set(told + rest) <= {source.name for source in zoo.sources()}
        assert zoo.verify() == []
        hub.fault = lambda method, path: None
        sync(zoo, hub)
        assert contents(zoo) == fresh(tmp_path, hub)


@pytest.mark.parametrize("events", [0, 1, 7, 23])
def test_a_kill_loses_at_most_what_was_in_flight(hub, tmp_path, events):
    hub.latency = 0.005
    with start(hub, tmp_path / "cache") as process:
        told = [process.stdout.readline().strip() for _ in range(events)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        process.wait(timeout=30)
    with Zoo(tmp_path / "cache", create=True) as zoo:
        stored = {source.name for source in zoo.sources()}
        assert set(told) <= stored
        assert len(stored) <= len(told) + 1
        assert zoo.verify() == []
        sync(zoo, hub)
        assert contents(zoo) == fresh(tmp_path, hub)
