"""Reading on a Ray cluster of two local workers: the same zoo as threads make, though a worker is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hubrank.errors import HubError, UsageError
from hubrank.zoo.cluster import connect_ray
from hubrank.zoo.interrupt import terminable
from hubrank.zoo.store import Zoo
from tests.builders import write_lora
from tests.standin import Fault, StandInHub, stand_in_hub
from tests.zoo.hub_repos import contents, fresh, repo, sync

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the program printed, and what the stand-in hub was asked for."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    for i in range(8):
        write_lora(folder / "hub" / "org" / f"{i:02}", seed=i)
    (folder / "hub" / "org" / "05" / "adapter_model.safetensors").write_bytes(b"broken")
    with stand_in_hub() as hub:
        for i in range(6):
            hub.add(repo(f"org/{i}", i))
        command = [sys.executable, "-m", "tests.zoo.ray_program", str(folder), hub.url]
        done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        asked = sum("/resolve/" in path for _, path in hub.requests)
    return {**json.loads(done.stdout.splitlines()[-1]), "asked": asked}


def test_a_killed_worker_changes_nothing(ran):
    outcome = ran["killed"]
    assert outcome["killed"]
    assert (outcome["added"], outcome["skipped"]) == (7, {"damaged file": 1})
    assert outcome["same"]
    assert outcome["bytes"] > 0
    assert outcome["wrong"] == []


def test_all_workers_share_one_budget(ran):
    assert ran["asked"] == 4
    assert ran["limited"]["added"] <= 2
    assert ran["limited"]["skipped"]["rate limited"] >= 4


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_with_what_was_done(tmp_path, monkeypatch, how):
    """Every answer after the first adapters takes a minute; nobody waits for the tasks that wait for them."""
    pytest.importorskip("ray")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as hub:
        for i in range(12):
            hub.add(repo(f"org/{i:02}", i))
        hub.fault = lambda method, path: Fault(stall=60) if _asked(hub) > 8 else None
        env = {**ENV, "HF_ENDPOINT": hub.url}
        command = [sys.executable, "-m", "tests.zoo.ray_program", str(tmp_path), hub.url, "interrupted"]
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            if process.stdout.readline() != "ready\n":
                reason = process.stderr.read()
                assert "timed out during startup" in reason
                pytest.skip("no Ray cluster came up within its half minute; this machine has other things to do")
            until = time.monotonic() + 120
            while _asked(hub) <= 8 and time.monotonic() < until:
                time.sleep(0.05)
            process.send_signal(how)
            started = time.monotonic()
            # Ray has its say on the same stream. The tests' machine may have other things to do; the hub takes a minute.
            told = next((line for line in process.stderr if line.startswith("hubrank: ")), "nothing")
            assert time.monotonic() - started < 2 + 18
            process.communicate(timeout=60)
        assert told.startswith("hubrank: interrupted; kept: "), told
        assert process.returncode == 130
        hub.fault = lambda method, path: None
        with Zoo(tmp_path / "interrupted") as zoo:
            assert len(zoo.sources()) == int("".join(c for c in told if c.isdigit()) or "0")
            assert zoo.verify() == []
            sync(zoo, hub)
            assert contents(zoo) == fresh(tmp_path, hub)


def _asked(hub: StandInHub) -> int:
    return sum("/resolve/" in path for _, path in hub.requests)


def test_without_ray_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'hubrank\[ray\]'"):
        connect_ray("auto")


def test_where_no_cluster_is_the_way_out_is_said(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens\nat all")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(HubError, match=r"--ray auto: no Ray cluster there \(nobody listens\); start one"):
        connect_ray("auto")


def test_where_nobody_listens_ray_is_not_asked_to_wait(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("asked"))
    for address in ("127.0.0.1:1", "127.0.0.1:ten"):
        with pytest.raises(HubError, match=rf"--ray {address}: no Ray cluster there \(.+\); start one"):
            connect_ray(address)


def test_a_cluster_of_our_own_that_does_not_start_is_no_bug(monkeypatch):
    ray = pytest.importorskip("ray")

    def fail(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # noqa: TRY002 -- as Ray does

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(HubError, match=r"--ray local: no Ray cluster there \(The current node timed out"):
        connect_ray("local")


def test_ray_leaves_the_request_to_terminate_to_us(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, lambda *_: sys.exit(15)))
    with terminable():
        connect_ray("auto")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
