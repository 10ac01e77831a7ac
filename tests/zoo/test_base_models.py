"""Base models by ranges from a hub over HTTP: the same as from the disk, once for all adapters, no more than is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save, save_file

from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.http import Transport
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query
from hubrank.zoo import base_models
from hubrank.zoo.base_models import BaseModels
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.standin import Fault, Repo, StandInHub, stand_in_hub
from tests.zoo.hub_repos import QUICK, contents, quick_hub, repo, sync

MODEL = "org/tiny"
LAYERS, D = 2, 384
DENSE, NORM = "encoder.layer.{}.output.dense", "encoder.layer.{}.output.LayerNorm"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as running:
        yield running


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        yield zoo


def base_weights() -> dict[str, NDArray]:
    """As a model with a head saves them: matrices of half a megabyte, vectors of a kilobyte."""
    rng = np.random.default_rng(0)
    shapes = {"bert.embeddings.word_embeddings.weight": (4000, D), "cls.bias": (30,)}
    for layer in range(LAYERS):
        dense, norm = f"bert.{DENSE.format(layer)}", f"bert.{NORM.format(layer)}"
        shapes |= {f"{dense}.weight": (D, D), f"{dense}.bias": (D,), f"{norm}.weight": (D,), f"{norm}.bias": (D,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


WEIGHTS = base_weights()


def tuned(leaf: str, seed: int) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed)
    names = [name for name in WEIGHTS if ".layer." in name and name.endswith(leaf)]
    return {name: WEIGHTS[name] + rng.standard_normal(WEIGHTS[name].shape).astype(np.float32) for name in names}


def ln(seed: int, base: str = MODEL) -> dict[str, bytes]:
    """peft's LN tuning."""
    values = {**tuned("LayerNorm.weight", seed), **tuned("LayerNorm.bias", seed + 100)}
    saved = {"base_model.model.{}.ln_tuning_layers.{}".format(*name.rsplit(".", 1)): value for name, value in values.items()}
    return peft({"peft_type": "LN_TUNING", "base_model_name_or_path": base}, saved)


def peft(config: Mapping[str, object], tensors: Mapping[str, NDArray]) -> dict[str, bytes]:
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(dict(tensors))}


def bare(method: str, leaf: str, seed: int) -> dict[str, bytes]:
    note = {"base_model": MODEL, "method": method, "weights": "tuned.safetensors"}
    return {"hubrank.json": json.dumps(note).encode(), "tuned.safetensors": save(tuned(leaf, seed))}


def fourierft(seed: int) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    names = [f"base_model.model.bert.{DENSE.format(layer)}.fourierft_spectrum" for layer in range(LAYERS)]
    config = {"peft_type": "FOURIERFT", "n_frequency": 50, "base_model_name_or_path": MODEL}
    return peft(config, {name: rng.standard_normal(50).astype(np.float32) for name in names})


def add_base(hub: StandInHub, name: str = MODEL, **fields: object) -> Repo:
    files = fields.pop("files", {"config.json": b"{}", "model.safetensors": save(WEIGHTS)})
    return hub.add(Repo(name, files, tags=["bert"], **fields))


def asked_of(hub: StandInHub, name: str = MODEL) -> list[str]:
    return [seen.path for seen in hub.seen if name in seen.path]


def skips(report) -> dict[str, str]:
    return dict(report.skips)


FAMILIES = {
    "ln": ln(1),
    "bitfit": bare("bitfit", "bias", 2),
    "diff": bare("diff", "dense.weight", 3),
    "fourierft": fourierft(4),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_read_over_the_network_is_what_is_read_from_the_disk(hub, zoo, tmp_path, family, sharded):
    files = {"model.safetensors": save(WEIGHTS)}
    if sharded:
        parts = [dict(list(WEIGHTS.items())[i::2]) for i in range(2)]
        files = {f"model-{i}.safetensors": save(part) for i, part in enumerate(parts)}
        places = {name: f"model-{i}.safetensors" for i, part in enumerate(parts) for name in part}
        files["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    add_base(hub, files=files)
    hub.add(Repo("me/one", FAMILIES[family]))
    assert sync(zoo, hub).added == 1
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    hub.repos.pop(MODEL)
    with Zoo(tmp_path / "other", create=True) as other:
        assert sync(other, hub, base_tensors=lambda name: FolderTensors(tmp_path)).added == 1
        assert contents(other) == contents(zoo)
    (source,) = zoo.sources()
    assert zoo.signature(source).factors


def test_tuned_minus_base_is_what_was_added(hub, zoo):
    add_base(hub)
    hub.add(Repo("me/one", ln(1)))
    sync(zoo, hub)
    (source,) = zoo.sources()
    added = tuned("LayerNorm.weight", 1)
    for factors in zoo.signature(source).factors:
        name = f"bert.encoder.layer.{factors.site.layer}.{factors.site.module.removesuffix('.shift')}"
        if name in added:
            change = added[name] - WEIGHTS[name]
            np.testing.assert_allclose(((factors.u * factors.s) @ factors.v.T)[:, 0], change, atol=0.02 * np.abs(change).max())


def test_a_base_is_read_once_for_all_its_adapters_and_only_what_they_need(hub, zoo, tmp_path):
    add_base(hub)
    hub.add(Repo("me/0", ln(0)))
    with Zoo(tmp_path / "one", create=True) as other:
        one = sync(other, hub)
    for i in range(1, 6):
        hub.add(Repo(f"me/{i}", ln(i)))
    hub.clear()
    many = sync(zoo, hub)
    assert many.added == 6
    assert (many.base_requests, many.base_bytes) == (one.base_requests, one.base_bytes)
    assert [path for path in asked_of(hub) if path.startswith("/api/")] == [f"/api/models/{MODEL}/revision/main"]
    # The first bytes with the header, and each layer's vectors by one range; of the matrices none.
    assert many.base_requests <= 2 + LAYERS
    assert many.base_bytes < 2 * 256 * 1024 < len(hub.repos[MODEL].files["model.safetensors"]) / 10
    assert many.base_requests < many.requests
    assert many.base_bytes < many.bytes_read


def test_shapes_alone_take_no_matrix(hub, zoo):
    add_base(hub)
    hub.add(Repo("me/one", fourierft(0)))
    report = sync(zoo, hub)
    assert (report.added, report.base_requests) == (1, 2)


def test_a_diff_takes_the_matrices_it_changed_and_no_others(hub, zoo):
    add_base(hub)
    hub.add(Repo("me/0", bare("diff", "dense.weight", 0)))
    hub.add(Repo("me/1", bare("diff", "dense.weight", 1)))
    report = sync(zoo, hub, jobs=2)
    assert report.added == 2
    assert LAYERS * D * D * 4 < report.base_bytes < LAYERS * D * D * 4 + 300_000 + 256 * 1024


def test_nothing_is_asked_of_a_base_that_no_adapter_needs(hub, zoo):
    add_base(hub)
    hub.add(repo("me/lora", 0, base=MODEL))
    report = sync(zoo, hub)
    assert (report.added, report.base_requests, report.base_bytes) == (1, 0, 0)
    assert not [path for path in asked_of(hub) if path.startswith(f"/api/models/{MODEL}")]


def test_what_is_on_this_disk_is_not_asked_for(hub, zoo, tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    add_base(hub)
    hub.add(Repo("me/one", ln(0)))
    assert sync(zoo, hub, base_tensors=lambda name: FolderTensors(tmp_path)).base_requests == 0
    assert asked_of(hub) == []


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda hub: hub.repos.pop(MODEL), "cannot be had from the Hub (not found)"),
        (lambda hub: setattr(hub.repos[MODEL], "gated", True), "cannot be had from the Hub (gated)"),
        (lambda hub: setattr(hub.repos[MODEL], "files", {"pytorch_model.bin": b"x"}), "no safetensors"),
        (lambda hub: hub.repos[MODEL].files.update({"model.safetensors": b"broken"}), "damaged file"),
        (
            lambda hub: hub.repos[MODEL].files.update({"model.safetensors": save({"a": WEIGHTS["cls.bias"]})[:-4]}),
            "damaged file",
        ),
    ],
    ids=["missing", "gated", "bin", "broken", "cut"],
)
def test_a_base_that_cannot_be_had_is_asked_for_once_and_the_skip_says_why(hub, zoo, spoil, why):
    add_base(hub)
    good = dict(hub.repos[MODEL].files)
    for i in range(4):
        hub.add(Repo(f"me/{i}", ln(i)))
    spoil(hub)
    report = sync(zoo, hub)
    assert (report.added, dict(report.skipped)) == (0, {"needs base": 4})
    assert all(detail.startswith("needs base: ") and MODEL in detail and why in detail for detail in skips(report).values())
    assert len([path for path in asked_of(hub) if path.startswith("/api/")]) == 1
    # It is not remembered: the base may come.
    hub.repos.pop(MODEL, None)
    add_base(hub, files=good)
    assert sync(zoo, hub).added == 4


def test_a_gated_base_is_read_with_the_token_which_its_own_host_alone_gets(hub, zoo):
    hub.token = "hf_secret"
    add_base(hub, gated=True)
    hub.add(Repo("me/one", ln(0)))
    asks = HuggingFaceHub(hub.url, transport=Transport(hub.url, token=hub.token, patience=QUICK))
    assert sync_hubs(zoo, [asks], Query()).added == 1
    assert {seen.server for seen in hub.seen if "authorization" in seen.headers} == {"hub"}
    assert hub.cdn_requests()


def test_a_hub_that_fails_at_the_base_costs_the_adapter_not_the_sync(hub, zoo):
    add_base(hub)
    hub.add(Repo("me/ln", ln(0)))
    hub.add(Repo("me/diff", bare("diff", "dense.weight", 0)))
    hub.fault = lambda method, path: Fault(status=404) if f"/{MODEL}/resolve/" in path else None
    report = sync(zoo, hub)
    assert (dict(report.skipped), report.failed) == ({"needs base": 2}, ())


def test_an_answer_from_another_commit_of_the_base_is_refused(hub, zoo):
    add_base(hub)
    hub.add(Repo("me/one", ln(0)))
    other = {"X-Repo-Commit": "0" * 40}
    hub.fault = lambda method, path: Fault(more=other) if f"/{MODEL}/resolve/" in path else None
    report = sync(zoo, hub)
    assert dict(report.skipped) == {"needs base": 1}
    assert "changed while read" in skips(report)["me/one"]


def test_no_more_is_read_of_a_base_than_the_limit(hub, zoo, monkeypatch):
    monkeypatch.setattr(base_models, "MAX_BASE", 400_000)
    add_base(hub)
    hub.add(Repo("me/diff", bare("diff", "dense.weight", 0)))
    hub.add(Repo("me/ln", ln(0)))
    report = sync(zoo, hub)
    assert (report.added, dict(report.skipped)) == (1, {"needs base": 1})
    assert "this sync may read" in skips(report)["me/diff"]
    assert report.base_bytes <= 400_000


def test_headers_made_to_be_large_are_not_read(hub, zoo, monkeypatch):
    monkeypatch.setattr("hubrank.checkpoints.base_hub.MAX_HEADERS", 400)
    add_base(hub)
    hub.add(Repo("me/one", ln(0)))
    report = sync(zoo, hub)
    assert dict(report.skipped) == {"needs base": 1}
    assert "its headers have more than 400 bytes" in skips(report)["me/one"]


@pytest.mark.parametrize(
    "name",
    [
        *("../../etc/passwd", "http://169.254.169.254/latest", "https://example.com/org/tiny", "org/tiny/../../x", "org/_gptq"),
        *(
            "org/tiny?x=1",
            "org/tiny#x",
            "org\\tiny",
            "//127.0.0.1/x",
            "org/ti ny",
            "org/..",
            "org/tiny@evil.example",
            "a" * 300,
        ),
    ],
)
def test_a_name_that_is_no_model_s_is_not_asked_for(hub, zoo, name):
    add_base(hub)
    hub.add(Repo("me/one", ln(0, base=name)))
    report = sync(zoo, hub)
    assert report.added == 0
    assert sum(report.skipped.values()) == 1
    assert {path.split("?")[0] for _, path in hub.requests if not path.startswith("/me/one/")} == {"/api/models"}
    assert report.base_requests == 0


def test_a_base_that_was_renamed_is_followed_on_the_hub(hub, zoo):
    add_base(hub)
    hub.renamed["old/name"] = MODEL
    hub.add(Repo("me/one", ln(0, base="old/name")))
    assert sync(zoo, hub).added == 1


def test_bases_asked_for_longest_ago_are_let_go(hub, monkeypatch):
    for i in range(4):
        add_base(hub, f"org/{i}")
    models = BaseModels(None, quick_hub(hub))
    first = models("org/0")
    assert first is models("org/0")
    monkeypatch.setattr(base_models, "MAX_HEADERS", 3 * first.headers)
    for i in range(4):
        models(f"org/{i}")
    assert models("org/3") is models("org/3")
    assert models("org/0") is not first
    assert models.traffic.requests == 2 * 5


def test_offline_and_from_a_folder_nothing_is_asked(hub, zoo, tmp_path):
    add_base(hub)
    folder = tmp_path / "hub" / "me" / "one"
    folder.mkdir(parents=True)
    for name, data in ln(0).items():
        (folder / name).write_bytes(data)
    report = sync_hubs(zoo, [FolderHub(tmp_path / "hub"), quick_hub(hub)], Query(), offline=True)
    assert (dict(report.skipped), report.not_asked, report.base_requests) == ({"needs base": 1}, ("hf",), 0)
    assert hub.requests == []


def test_a_hub_without_models_is_not_asked():
    class Bare:
        name = "bare"

    assert BaseModels(None, Bare())("org/tiny") is None


def test_who_is_on_this_machine_alone_may_say_why_not():
    def refuse(name):
        raise AdapterError("needs base", "is broken")

    with pytest.raises(AdapterError, match="is broken"):
        BaseModels(refuse, object())("org/tiny")
