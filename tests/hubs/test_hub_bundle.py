"""An adapter of the HF Hub: what is fetched of it, what that costs, and what a fault in it does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from hubrank.checkpoints.config import MAX_CONFIG_BYTES
from hubrank.checkpoints.reader import read_adapters, read_card
from hubrank.errors import AdapterError, HubError, HubStoppedError
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query, Stoppable
from tests.builders import BASE, MODULES, lora_tensors
from tests.hubs.quick import TOKEN, online, quick
from tests.standin import Fault, Repo, blob_sha1, digest, stand_in_hub

CONFIG = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": BASE}).encode()


@pytest.fixture
def hub(monkeypatch):
    online(monkeypatch)
    with stand_in_hub() as running:
        yield running


def lora_files(tensors=None):
    weights = save(tensors or lora_tensors(), metadata={"format": "pt"})
    return {"adapter_config.json": CONFIG, "adapter_model.safetensors": weights, "README.md": b"---\nlicense: mit\n---\n"}


def opened(hub, files=None, *, token=None, **fields):
    """(listing, bundle) of one repository."""
    hub.add(Repo("a/one", files or lora_files(), **fields))
    running = HuggingFaceHub(hub.url, transport=quick(hub.url, token=token))
    listing = next(iter(running.discover(Query())))
    hub.clear()
    return listing, running.open(listing)


def with_heads():
    """Embeddings before the adapter's tensors and a head behind them, as safetensors sorts them, each much larger."""
    big = np.ones((2000, 256), np.float32)
    return {**lora_tensors(), "base_model.model.a.embeddings.weight": big, "base_model.model.lm_head.weight": big + 1}


def test_a_small_adapter_takes_two_requests(hub):
    listing, bundle = opened(hub)
    (adapter,) = read_adapters(listing, bundle)
    assert len(adapter.deltas) == len(MODULES)
    read_card(listing, bundle)
    whole = sum(len(data) for name, data in hub.repos["a/one"].files.items() if name != "README.md")
    assert bundle.traffic.requests == 2
    assert bundle.traffic.bytes_read == bundle.traffic.bytes_whole == whole


def test_heads_and_embeddings_are_not_fetched(hub):
    files = lora_files(with_heads())
    listing, bundle = opened(hub, files)
    (adapter,) = read_adapters(listing, bundle)
    alone = lora_tensors()
    for delta, module in zip(adapter.deltas, MODULES, strict=True):
        up, down = (alone[f"base_model.model.{module}.lora_{part}.weight"] for part in "BA")
        np.testing.assert_allclose(delta.up @ delta.down, 2.0 * up @ down, rtol=1e-5)
    assert bundle.traffic.requests == 3
    assert bundle.traffic.bytes_whole > 4_000_000
    assert bundle.traffic.bytes_read < 300_000


def test_hashes_are_the_hubs_word_and_can_be_asked_for_alone(hub):
    files = lora_files(with_heads())
    listing, bundle = opened(hub, files)
    assert bundle.hashes == {}
    read_adapters(listing, bundle)
    expected = {
        "adapter_config.json": f"git:{blob_sha1(files['adapter_config.json'])}",
        "adapter_model.safetensors": f"sha256:{digest(files['adapter_model.safetensors'])}",
    }
    assert bundle.hashes == expected
    hub.clear()
    names = ["adapter_config.json", "adapter_model.safetensors"]
    fresh = HuggingFaceHub(hub.url, transport=quick(hub.url)).open(listing)
    assert fresh.current_hashes(names) == expected
    assert len(hub.requests) == fresh.traffic.requests == 1
    hub.repos["a/one"].files.pop("adapter_model.safetensors")
    moved = replace(listing, revision=hub.repos["a/one"].sha)
    gone = HuggingFaceHub(hub.url, transport=quick(hub.url)).open(moved)
    assert set(gone.current_hashes(names)) == {"adapter_config.json"}


@pytest.mark.parametrize("value", [{}, "x", [1, None, {"path": 5}], [{"path": "adapter_config.json", "oid": "short"}]])
def test_hashes_of_another_shape_are_no_hashes(hub, value):
    _, bundle = opened(hub)
    hub.fault = lambda method, path: Fault(200, body=json.dumps(value).encode())
    if isinstance(value, list):
        assert bundle.current_hashes(["adapter_config.json"]) == {}
    else:
        with pytest.raises(AdapterError, match="tells no hashes"):
            bundle.current_hashes(["adapter_config.json"])


def test_hashes_in_a_subfolder(hub):
    files = {f"sub dir/{name}": data for name, data in lora_files().items()}
    listing, bundle = opened(hub, files)
    assert listing.subfolder == "sub dir"
    read_adapters(listing, bundle)
    assert bundle.current_hashes(["adapter_config.json"]) == {"adapter_config.json": f"git:{blob_sha1(CONFIG)}"}


def test_the_readme_is_fetched_only_where_the_list_has_no_card(hub):
    listing, bundle = opened(hub)
    assert read_card(replace(listing, card={}), bundle).license == "mit"
    assert [path.rpartition("/")[2] for _, path in hub.requests] == ["README.md"]


def test_a_config_over_the_limit_is_not_read(hub):
    files = {**lora_files(), "adapter_config.json": bytes(MAX_CONFIG_BYTES + 1)}
    listing, bundle = opened(hub, files)
    with pytest.raises(AdapterError) as caught:
        read_adapters(listing, bundle)
    assert (caught.value.reason, caught.value.lasting) == ("file too large", True)
    assert bundle.traffic.bytes_read == 0


def test_pickles_come_whole(hub):
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in lora_tensors().items()}, buffer)
    listing, bundle = opened(hub, {"adapter_config.json": CONFIG, "adapter_model.bin": buffer.getvalue()})
    (adapter,) = read_adapters(listing, bundle)
    assert len(adapter.deltas) == len(MODULES)
    assert bundle.traffic.requests == 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0b", "none.json"])
def test_only_listed_files_are_asked_for(hub, name):
    _, bundle = opened(hub)
    for call in (
        lambda: bundle.size(name),
        lambda: bundle.read(name, limit=5),
        lambda: list(bundle.read_ranges(name, [(0, 1)])),
    ):
        with pytest.raises(AdapterError) as caught:
            call()
        assert caught.value.reason in ("unsafe path", "file missing")
    assert hub.seen == []


@pytest.mark.parametrize("state", ["gated", "disabled"])
def test_what_is_closed_is_refused_without_a_request(hub, state):
    listing, bundle = opened(hub, **{state: True})
    for call in (lambda: read_adapters(listing, bundle), lambda: bundle.current_hashes(["adapter_config.json"])):
        with pytest.raises(AdapterError) as caught:
            call()
        assert (caught.value.reason, caught.value.lasting) == (state, False)
    assert hub.seen == []


def test_a_gated_repository_opens_to_whoever_may(hub):
    hub.token = TOKEN
    listing, bundle = opened(hub, gated=True, token=TOKEN)
    assert len(read_adapters(listing, bundle)) == 1
    assert {seen.headers.get("authorization") for seen in hub.seen if seen.server == "cdn"} == {None}
    _, refused = opened(hub, gated=True, token="another")
    with pytest.raises(AdapterError, match="gated"):
        refused.size("adapter_config.json")


def test_a_repository_that_moves_or_goes_between_list_and_read(hub):
    listing, bundle = opened(hub)
    hub.add(Repo("new/name", lora_files()))
    del hub.repos["a/one"]
    hub.renamed["a/one"] = "new/name"
    assert len(read_adapters(listing, bundle)) == 1
    assert bundle.traffic.requests == 2
    hub.renamed.clear()
    with pytest.raises(AdapterError) as caught:
        HuggingFaceHub(hub.url, transport=quick(hub.url)).open(listing).size("adapter_config.json")
    assert (caught.value.reason, caught.value.lasting) == ("not found", False)


FAULTS = {
    "429": (Fault.busy(1), "rate limited"),
    "503": (Fault(503), "hub fault"),
    "stall": (Fault(stall=0.5), "hub fault"),
    "reset": (Fault(cut=10, reset=True), "hub fault"),
    "short": (Fault(cut=10), "hub fault"),
    "flip": (Fault(flip=60), "wrong hash"),
    "loop": (Fault.loop(), "bad answer"),
    "html": (Fault.html(), "bad answer"),
    "403": (Fault(403), "refused"),
    "commit": (Fault(more={"X-Repo-Commit": "0" * 40}), "changed while read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_adapter_is_a_matter_of_that_adapter(hub, fault):
    spoiled, reason = FAULTS[fault]
    listing, bundle = opened(hub)
    hub.fault = lambda method, path: spoiled if path.endswith("adapter_config.json") else None
    with pytest.raises(AdapterError) as caught:
        read_adapters(listing, bundle)
    assert (caught.value.reason, caught.value.lasting) == (reason, False)
    hub.fault = lambda method, path: None
    well = HuggingFaceHub(hub.url, transport=quick(hub.url)).open(listing)
    assert len(read_adapters(listing, well)) == 1


def test_a_dead_hub_is_a_matter_of_the_hub(hub):
    listing, _ = opened(hub)
    running = HuggingFaceHub("http://127.0.0.1:1", transport=quick("http://127.0.0.1:1"))
    for _ in range(3):
        with pytest.raises(AdapterError, match="hub fault"):
            running.open(listing).size("adapter_config.json")
    with pytest.raises(HubError):
        running.open(listing).size("adapter_config.json")


def test_a_hub_that_is_told_to_stop(hub):
    listing, _ = opened(hub)
    running = HuggingFaceHub(hub.url, transport=quick(hub.url))
    assert isinstance(running, Stoppable)
    running.stop()
    with pytest.raises(HubStoppedError):
        running.open(listing).size("adapter_config.json")
    with pytest.raises(HubStoppedError):
        list(running.discover(Query()))
