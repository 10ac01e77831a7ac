"""Reading on a Ray cluster of two local workers: the same zoo as threads make, though a worker is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hubrank.errors import HubError, UsageError
from hubrank.zoo.cluster import connect_ray
from tests.builders import write_lora
from tests.standin import stand_in_hub
from tests.zoo.hub_repos import repo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the program printed, and what the stand-in hub was asked for."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    for i in range(8):
        write_lora(folder / "hub" / "org" / f"{i:02}", seed=i)
    (folder / "hub" / "org" / "05" / "adapter_model.safetensors").write_bytes(b"broken")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with stand_in_hub() as hub:
        for i in range(6):
            hub.add(repo(f"org/{i}", i))
        command = [sys.executable, "-m", "tests.zoo.ray_program", str(folder), hub.url]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
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


def test_without_ray_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'hubrank\[ray\]'"):
        connect_ray("auto")


def test_where_no_cluster_is_the_way_out_is_said(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens\nat all")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(HubError, match=r"--ray there:1: no Ray cluster there \(nobody listens\); start one"):
        connect_ray("there:1")
