"""The HF Hub through sync, against a stand-in over real HTTP."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from hubrank.errors import HubError
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.hubs.quick import online, quick
from tests.standin import Fault, Repo, StandInHub, stand_in_hub

BASE = "org/base"


def lora(seed: int, base: str = BASE) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    module = "base_model.model.encoder.layer.{}.attention.self.query"
    tensors = {"base_model.model.classifier.weight": np.zeros((3, 16), np.float32)}
    for layer in range(2):
        tensors[f"{module.format(layer)}.lora_A.weight"] = random.normal(size=(4, 16)).astype(np.float16)
        tensors[f"{module.format(layer)}.lora_B.weight"] = random.normal(size=(16, 4)).astype(np.float16)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": save(tensors),
        "optimizer.pt": b"x",
    }


def repo(name: str, seed: int, *, base: str = BASE, **fields) -> Repo:
    tags = ["peft", f"base_model:adapter:{base}"]
    return Repo(name, lora(seed, base), tags=tags, card={"datasets": ["sst2"], "license": "mit"}, **fields)


@pytest.fixture
def hub(monkeypatch):
    online(monkeypatch)
    with stand_in_hub() as running:
        yield running


def sync(hub: StandInHub, tmp_path: Path, query: Query | None = None):
    with Zoo(tmp_path / "zoo", create=True) as zoo:
        report = sync_hubs(zoo, [HuggingFaceHub(hub.url, transport=quick(hub.url))], query or Query())
        return report, zoo.sources()


def test_adapters_are_listed_read_and_described(hub, tmp_path):
    hub.add(repo("a/one", 1))
    hub.add(Repo("a/model", {"config.json": b"{}"}, tags=["bert"]))
    report, sources = sync(hub, tmp_path)
    assert (report.added, report.skipped) == (1, {})
    (source,) = sources
    assert (source.name, source.hub, source.base, source.method, source.rank) == ("a/one", "hf", BASE, "lora", 4)
    assert source.revision == hub.repos["a/one"].sha
    assert (source.task, source.card.license) == ("sst2", "mit")


def test_a_second_sync_asks_only_for_the_list(hub, tmp_path):
    for i in range(5):
        hub.add(repo(f"a/r{i}", i))
    sync(hub, tmp_path)
    hub.requests.clear()
    report, _ = sync(hub, tmp_path)
    assert (report.unchanged, report.added, report.updated) == (5, 0, 0)
    assert [path.partition("?")[0] for _, path in hub.requests] == ["/api/models"] * 2  # one list a tag


def test_a_changed_repository_is_read_again_and_a_vanished_one_marked(hub, tmp_path):
    hub.add(repo("a/changes", 1))
    hub.add(repo("a/goes", 2))
    sync(hub, tmp_path)
    hub.add(repo("a/changes", 3))
    del hub.repos["a/goes"]
    report, sources = sync(hub, tmp_path)
    assert (report.updated, report.removed) == (1, 1)
    assert [source.name for source in sources] == ["a/changes"]


def test_heads_and_optimizer_states_are_never_fetched(hub, tmp_path):
    hub.add(repo("a/one", 1))
    sync(hub, tmp_path)
    assert not [path for _, path in hub.requests if "optimizer" in path]


def test_several_adapters_in_one_repository(hub, tmp_path):
    files = {f"{folder}/{name}": data for folder in ("first", "second") for name, data in lora(len(folder)).items()}
    hub.add(Repo("a/many", {**files, "checkpoint-5/adapter_config.json": b"{}"}))
    _, sources = sync(hub, tmp_path)
    assert [(source.repo, source.subfolder) for source in sources] == [("a/many", "first"), ("a/many", "second")]


def test_pages_are_followed_and_the_limit_kept(hub, tmp_path):
    hub.page = 2
    for i in range(5):
        hub.add(repo(f"a/r{i}", i))
    report, _ = sync(hub, tmp_path)
    assert report.added == 5
    report, _ = sync(hub, tmp_path / "other", Query(limit=3))
    assert report.added == 3


def versioned(name: str, **branches: int) -> Repo:
    """A repository of the adapters library's kind, whose branches are versions."""
    files = {branch: lora(seed) for branch, seed in branches.items()}
    return Repo(name, files["main"], tags=["adapter-transformers"], branches=files)


def test_branches_are_versions_and_asked_for_only_where_a_repository_moved(hub, tmp_path):
    hub.add(versioned("a/versions", main=1, first=1, second=2))
    hub.add(repo("a/plain", 3))
    _, sources = sync(hub, tmp_path)
    assert [source.name for source in sources] == ["a/plain", "a/versions", "a/versions@second"]
    second = sources[-1]
    assert (second.branch, second.repo) == ("second", "a/versions")
    assert second.revision != sources[1].revision
    hub.requests.clear()
    report, kept = sync(hub, tmp_path)
    assert (report.unchanged, report.removed, kept) == (2, 0, sources)
    assert not [path for _, path in hub.requests if "refs" in path]
    hub.add(versioned("a/versions", main=4))
    report, left = sync(hub, tmp_path)
    assert (report.updated, report.removed) == (1, 1)
    assert [source.name for source in left] == ["a/plain", "a/versions"]


def test_versions_come_back_with_their_repository(hub, tmp_path):
    whole = hub.add(versioned("a/versions", main=1, second=2))
    _, before = sync(hub, tmp_path)
    assert len(before) == 2
    del hub.repos[whole.id]
    assert sync(hub, tmp_path)[0].removed == 2
    hub.add(whole)
    _, after = sync(hub, tmp_path)
    assert after == before


def test_a_note_beside_bare_weights_is_found_on_the_hub_too(hub, tmp_path):
    prompt = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, prompt)
    note = {"base_model": BASE, "method": "prompt", "weights": "soft.npy", "task": "rte"}
    hub.add(Repo("a/bare", {"hubrank.json": json.dumps(note).encode(), "soft.npy": buffer.getvalue(), "big.bin": b"x" * 99}))
    _, (source,) = sync(hub, tmp_path)
    assert (source.name, source.method, source.base, source.task) == ("a/bare", "prompt", BASE, "rte")
    assert not [path for _, path in hub.requests if "big.bin" in path]


def test_only_the_wanted_base(hub, tmp_path):
    hub.add(repo("a/one", 1))
    hub.add(repo("a/two", 2, base="org/other"))
    report, sources = sync(hub, tmp_path, Query(bases=("org/other",)))
    assert (report.added, [source.name for source in sources]) == (1, ["a/two"])


def test_a_gated_repository_is_skipped_and_the_rest_goes_on(hub, tmp_path):
    hub.add(repo("a/gated", 1, gated=True))
    hub.add(repo("a/open", 2))
    report, sources = sync(hub, tmp_path)
    assert report.skipped == {"gated": 1}
    assert [source.name for source in sources] == ["a/open"]


@pytest.mark.parametrize(("status", "says"), [(429, "HF_TOKEN"), (503, "status 503")])
def test_a_hub_that_refuses_to_list(hub, tmp_path, status, says):
    hub.fault = lambda method, path: Fault(status) if path.startswith("/api/models") else None
    with pytest.raises(HubError, match=says):
        sync(hub, tmp_path)


def test_a_hub_that_is_not_there(tmp_path, monkeypatch):
    online(monkeypatch)
    dead = "http://127.0.0.1:1"
    with Zoo(tmp_path, create=True) as zoo, pytest.raises(HubError, match="did not answer"):
        sync_hubs(zoo, [HuggingFaceHub(dead, transport=quick(dead))], Query())


def test_the_command_honours_hf_endpoint(hub, tmp_path):
    hub.add(repo("a/one", 1))
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "hubrank", "sync", "--base", "all", "--format", "json"]
    command += ["--cache-dir", str(tmp_path / "zoo")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == 1
    offline = subprocess.run(command, env={**env, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    assert offline.returncode == 4
    assert "HF_HUB_OFFLINE" in offline.stderr
