"""A search for a base that the zoo has nothing for: synced first when online, announced, and refused on request."""

from __future__ import annotations

import json

import pytest

from hubrank import api
from hubrank.errors import HubError
from hubrank.hubs.folder import FolderHub
from hubrank.ranking.missing import missing_base
from hubrank.zoo.defaults import DEFAULT_BASES
from hubrank.zoo.store import Zoo
from tests.builders import make_source, random_signature, write_lora
from tests.ranking.builders import BASE, make_base, modules, one_thread, toy_rows, write_lines


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local").folder


@pytest.fixture
def online(monkeypatch, tmp_path):
    """A Hub with six adapters of the tiny base and one of another; says which bases it was asked for."""
    for i in range(6):
        write_lora(tmp_path / f"hub/org/a{i}", sites=modules(), d=32, seed=i, base=BASE)
    write_lora(tmp_path / "hub/org/other", base="org/other")
    asked = []

    class Hub(FolderHub):
        def discover(self, query):
            asked.append(query.bases)
            return super().discover(query)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(api, "open_hub", lambda name, **_: Hub(tmp_path / "hub"))
    return asked


@pytest.fixture
def search(hubrank, tmp_path):
    """A short search for a small target."""
    target = write_lines(tmp_path / "toy.jsonl", toy_rows())

    def run(cache, *options, target=target, device="cpu"):
        return hubrank("search", "--target", target, "--cache-dir", cache, "--steps", 2, "--device", device, *options)

    return run


def test_one_command_is_enough(search, online, base, tmp_path):
    done = search(tmp_path / "zoo", "--base", f"{BASE}={base}", "--format", "json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["ranking"]) == 6
    (announced,) = [line for line in done.err.splitlines() if "nothing for" in line]
    assert announced.startswith(f"the zoo has nothing for {BASE} yet: reading 7 adapters, at most ")
    assert announced.endswith("requests")
    # Before anything is tuned, and only once.
    assert done.err.index(announced) < done.err.index("tuning lora on")
    assert set(online) == {(BASE,)}
    asked = len(online)
    again = search(tmp_path / "zoo", "--base", f"{BASE}={base}")
    assert again.code == 0
    assert "nothing for" not in again.err
    assert len(online) == asked
    with Zoo(tmp_path / "zoo") as zoo:
        assert zoo.bases() == {BASE: 6}


@pytest.mark.parametrize("refusal", ["--no-sync", "--offline", "HF_HUB_OFFLINE"])
def test_a_refusal_is_one_line_with_the_way_out(search, online, tmp_path, monkeypatch, refusal):
    if not refusal.startswith("--"):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = search(tmp_path / "zoo", "--base", BASE, *([refusal] if refusal.startswith("--") else []))
    assert (done.code, done.out) == (5, "")
    assert len(done.err.splitlines()) == 1
    assert "hubrank sync" in done.err
    assert online == []
    assert not (tmp_path / "zoo").exists()


def test_a_bad_target_device_or_base_is_refused_before_anything_is_read(search, online, tmp_path):
    cache = tmp_path / "zoo"
    assert search(cache, "--base", BASE, target=tmp_path / "none.jsonl").code == 3
    assert search(cache, "--base", BASE, "--estimator", "luck").code == 2
    assert search(cache, "--base", BASE, device="tpu").code == 2
    done = search(cache, "--base", "no such//thing")
    assert done.code == 3
    assert "neither a folder" in done.err
    assert online == []


def test_a_base_that_the_hub_has_nothing_for(search, online, tmp_path):
    for folder in (tmp_path / "hub/org").iterdir():
        (folder / "adapter_config.json").unlink()
    done = search(tmp_path / "zoo", "--base", "org/lonely")
    assert done.code == 5
    assert "nothing for org/lonely, and neither has the HF Hub" in done.err


def test_a_hub_that_fails_half_way_is_named_and_the_rest_is_searched(search, online, base, tmp_path, monkeypatch):
    class Failing(FolderHub):
        def discover(self, query):
            yield from super().discover(query)
            raise HubError("it went away")

    monkeypatch.setattr(api, "open_hub", lambda name, **_: Failing(tmp_path / "hub"))
    done = search(tmp_path / "zoo", "--base", f"{BASE}={base}", "--format", "json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["ranking"]) == 6
    assert "it went away; searching what was read" in done.err

    class Silent(FolderHub):
        def discover(self, _query):
            raise HubError("it went away")

    monkeypatch.setattr(api, "open_hub", lambda name, **_: Silent(tmp_path / "hub"))
    done = search(tmp_path / "another", "--base", f"{BASE}={base}")
    assert done.code == 4
    assert "it went away" in done.err


def test_which_base_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("hubrank.ranking.missing._here", lambda name: name == "facebook/bart-base")
    with Zoo(tmp_path / "zoo") as zoo:
        assert missing_base(zoo, None) == "facebook/bart-base"
        assert missing_base(zoo, "roberta-base") == "FacebookAI/roberta-base"
        assert missing_base(zoo, f"org/mine={tmp_path}") == "org/mine"
        # Of a folder nobody knows whose adapters to look for: the search says how to name it.
        assert missing_base(zoo, str(tmp_path)) is None
        monkeypatch.setattr("hubrank.ranking.missing._here", lambda name: False)
        assert missing_base(zoo, None) == DEFAULT_BASES[0]
    with Zoo(tmp_path / "zoo", create=True) as zoo:
        zoo.put(make_source("org/one", base="org/mine", gone=True), random_signature(0))
        assert missing_base(zoo, None) is None
        assert missing_base(zoo, None, gone=True) is None
        zoo.put(make_source("org/two", base="org/mine"), random_signature(1))
        assert missing_base(zoo, None) is None
        assert missing_base(zoo, "org/mine") is None
        assert missing_base(zoo, "org/other") == "org/other"
