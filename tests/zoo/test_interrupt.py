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
# How long it takes is measured inside, from the signal's arrival to the end: on a busy machine a process that has nothing left
# to do may wait for seconds until it may say so.
BEGIN = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
def told(number, frame):
    global since
    since = time.monotonic()
    raise KeyboardInterrupt
signal.default_int_handler = told  # which is what a request to terminate gets, too
signal.signal(signal.SIGINT, told)
"""
PROGRAM = f"""{BEGIN}
from pathlib import Path
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
try:
    with Zoo(Path(sys.argv[2]), create=True) as zoo:
        print("ready", flush=True)
        sync_hubs(zoo, [HuggingFaceHub(sys.argv[1])], Query(), on_event=lambda event: print(event.name, flush=True))
except KeyboardInterrupt:
    print("seconds", time.monotonic() - since, flush=True)
    sys.exit(130)
"""
COMMAND = f"""{BEGIN}
from hubrank.cli import main
leave = os._exit
def measured(code):
    print("seconds", time.monotonic() - since, flush=True)
    leave(code)
os._exit = measured
print("ready", flush=True)
main(["sync", "--base", "all", "--cache-dir", sys.argv[2], "-q"])
"""


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as running:
        for i in range(40):
            running.add(repo(f"org/{i:02}", i))
        yield running


def start(hub, folder: Path, program: str = PROGRAM) -> subprocess.Popen:
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url}
    process = subprocess.Popen(
        [sys.executable, "-c", program, hub.url, str(folder)], stdout=subprocess.PIPE, text=True, env=env
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
        process.send_signal(how)
        *rest, word, seconds = process.stdout.read().split()
        assert process.wait(timeout=30) == 130
        assert word == "seconds"
        assert float(seconds) < 2
    with Zoo(tmp_path / "cache") as zoo:
        assert set(told + rest) <= {source.name for source in zoo.sources()}
        assert zoo.verify() == []
        hub.fault = lambda method, path: None
        sync(zoo, hub)
        assert contents(zoo) == fresh(tmp_path, hub)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_command_leaves_at_once(hub, tmp_path, how):
    """Also python's own end, which takes apart what nobody needs any more, is not waited for."""
    hub.fault = lambda method, path: Fault(stall=60) if len(hub.requests) > 10 else None
    with start(hub, tmp_path / "cache", COMMAND) as process:
        while len(hub.requests) <= 10:
            time.sleep(0.01)
        process.send_signal(how)
        word, seconds = process.stdout.read().split()
        assert process.wait(timeout=30) == 130
        assert word == "seconds"
        assert float(seconds) < 2


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
