"""The stand-in is a hub: the unmodified huggingface_hub client works with it, and its population is what it says."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import requests
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from hubrank.checkpoints.reader import read_adapters
from hubrank.errors import AdapterError
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query
from tests.hubs.quick import online, quick
from tests.standin import Repo, digest, stand_in_hub
from tests.standin_population import fill


@pytest.fixture
def hub(monkeypatch, tmp_path):
    online(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with stand_in_hub() as running:
        files = {"adapter_config.json": b"{}", "w.safetensors": bytes(range(256)) * 1000, "sub/x.txt": b"x"}
        running.add(Repo("a/one", files, tags=["peft", "en"], branches={"v1": {"adapter_config.json": b"{ }"}}))
        running.add(Repo("a/gated", files, gated=True))
        yield running


def test_the_real_client_lists(hub):
    api = HfApi(endpoint=hub.url)
    hub.page = 1
    assert [model.id for model in api.list_models(filter="peft")] == ["a/one", "a/gated"]
    assert [model.id for model in api.list_models(filter=["peft", "en"], author="a", search="ON")] == ["a/one"]
    (model,) = api.list_models(filter="en", expand=["sha", "siblings", "gated", "usedStorage"])
    assert model.sha == hub.repos["a/one"].sha
    assert {sibling.rfilename for sibling in model.siblings} == set(hub.repos["a/one"].files)
    info = api.model_info("a/one", files_metadata=True)
    assert {s.rfilename: s.size for s in info.siblings}["w.safetensors"] == 256_000
    assert {branch.name for branch in api.list_repo_refs("a/one").branches} == {"main", "v1"}
    (path,) = api.get_paths_info("a/one", ["w.safetensors", "none"])
    assert path.lfs.sha256 == digest(hub.repos["a/one"].files["w.safetensors"])
    assert {entry.path for entry in api.list_repo_tree("a/one", recursive=True)} == set(hub.repos["a/one"].files)


def test_the_real_client_downloads(hub, tmp_path):
    from pathlib import Path

    folder = Path(snapshot_download("a/one", endpoint=hub.url))
    for name, data in hub.repos["a/one"].files.items():
        assert (folder / name).read_bytes() == data
    old = hf_hub_download("a/one", "adapter_config.json", revision="v1", endpoint=hub.url)
    assert Path(old).read_bytes() == b"{ }"
    header = HfApi(endpoint=hub.url).file_exists("a/one", "none.json")
    assert header is False


@pytest.mark.parametrize(
    ("repo", "revision", "name", "error"),
    [
        ("a/none", "main", "x", RepositoryNotFoundError),
        ("a/one", "none", "x", RevisionNotFoundError),
        ("a/one", "main", "none", EntryNotFoundError),
        ("a/gated", "main", "w.safetensors", GatedRepoError),
    ],
)
def test_the_real_client_is_refused(hub, repo, revision, name, error):
    with pytest.raises(error):
        hf_hub_download(repo, name, revision=revision, endpoint=hub.url)


def test_large_files_are_at_another_origin_behind_signed_addresses(hub):
    first = requests.get(f"{hub.url}/a/one/resolve/main/w.safetensors", allow_redirects=False, timeout=5)
    location = first.headers["Location"]
    assert (first.status_code, location.startswith(hub.cdn_url)) == (302, True)
    part = requests.get(location, headers={"Range": "bytes=5-9"}, timeout=5)
    assert (part.status_code, part.content) == (206, bytes(range(5, 10)))
    assert part.headers["Content-Range"] == "bytes 5-9/256000"
    assert requests.get(location.replace("Signature=", "Signature=0"), timeout=5).status_code == 403
    assert requests.get(location, headers={"Range": "bytes=256000-"}, timeout=5).status_code == 416


def test_the_rate_limit_is_said_and_kept(hub):
    hub.limits = {"api": (2, 60.0)}
    answers = [requests.get(f"{hub.url}/api/models", timeout=5) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit"].startswith('"api";r=1;t=')
    assert 0 < int(answers[2].headers["Retry-After"]) <= 61


def test_latency_and_bandwidth_hold(hub):
    hub.latency, hub.bandwidth = 0.1, 1_000_000.0
    started = time.monotonic()
    assert len(requests.get(f"{hub.url}/a/one/resolve/main/w.safetensors", timeout=5).content) == 256_000
    assert time.monotonic() - started >= 0.2 + 0.2


def test_the_population(hub):
    hub.repos.clear()
    repos = fill(hub, 300)
    assert len(repos) == len({repo.id for repo in repos}) == 300
    assert {repo.id: repo.sha for repo in fill(hub, 300)} == {repo.id: repo.sha for repo in repos}
    for state in ("gated", "private", "disabled", "branches"):
        assert sum(bool(getattr(repo, state)) for repo in repos) >= 5
    assert hub.renamed
    names = Counter(name.rpartition("/")[2] for repo in repos for name in repo.files)
    assert min(names[name] for name in ("optimizer.pt", "pytorch_adapter.bin", "adapter_model.bin", "soft.npy")) >= 3
    running = HuggingFaceHub(hub.url, transport=quick(hub.url))
    methods, reasons, requested = Counter(), Counter(), 0
    listed = list(running.discover(Query()))
    for listing in listed:
        bundle = running.open(listing)
        try:
            methods.update(adapter.method for adapter in read_adapters(listing, bundle))
        except AdapterError as error:
            reasons[error.reason] += 1
        assert bundle.traffic.bytes_read <= bundle.traffic.bytes_whole
        assert bundle.traffic.requests <= 3
        requested += bundle.traffic.requests
    assert requested / len(listed) < 2.2
    assert set(reasons) == {"needs base", "bad config", "gated", "disabled"}
    assert {"lora", "bottleneck", "prefix", "prompt", "ia3", "reft"} <= set(methods)
    assert not [path for _, path in hub.requests if "optimizer" in path or "checkpoint-" in path or "README" in path]
