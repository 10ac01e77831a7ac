"""Pruning: what is named goes, all else stays, and a sync brings back what is still on its hub."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import UsageError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Skip, Zoo
from hubrank.zoo.sync import sync_hubs
from hubrank.zoo.upkeep import prune
from tests.builders import make_source, random_signature, write_lora
from tests.standin import stand_in_hub
from tests.zoo.hub_repos import contents, lora, repo, sync


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        for i in range(4):
            zoo.put(make_source(f"org/{i}", base=f"org/base-{i % 2}", reader=READER_VERSION), random_signature(i))
        yield zoo


def names(zoo: Zoo) -> list[str]:
    return [source.name for source in zoo.sources(gone=True)]


def test_what_is_gone_goes(zoo):
    zoo.mark(zoo.get("hf", "org/1", None), gone=True)
    pruned = prune(zoo, gone=True)
    assert pruned.sources == ("org/1",)
    assert names(zoo) == ["org/0", "org/2", "org/3"]
    assert zoo.verify() == []


def test_a_base_goes(zoo):
    assert prune(zoo, bases=["org/base-1"]).sources == ("org/1", "org/3")
    assert names(zoo) == ["org/0", "org/2"]


def test_what_an_older_reader_made_goes(zoo):
    zoo.revise(replace(zoo.get("hf", "org/2", None), reader=1))
    zoo.put_skip("hf", "org/bad", None, Skip("org/bad", "r", "not finite", "NaN"))
    pruned = prune(zoo, older_reader=True)
    assert (pruned.sources, pruned.skips) == (("org/2",), 0)
    assert zoo.get_skip("hf", "org/bad", None) is not None


def test_space_is_given_back(zoo):
    for i in range(20):
        zoo.put(make_source(f"big/{i}", base="org/big"), random_signature(i, d_out=4000))
    before = zoo.size()
    pruned = prune(zoo, bases=["org/big"])
    assert pruned.bytes > before / 2
    assert zoo.size() < before / 2


def test_nothing_is_pruned_without_a_reason(zoo):
    with pytest.raises(UsageError, match="--gone"):
        prune(zoo)
    assert len(names(zoo)) == 4


def test_a_folder_s_adapters_come_back(zoo, tmp_path):
    write_lora(tmp_path / "hub" / "org" / "a", base="org/third")
    sync_hubs(zoo, [FolderHub(tmp_path / "hub")], Query())
    prune(zoo, bases=["org/third"])
    assert sync_hubs(zoo, [FolderHub(tmp_path / "hub")], Query()).added == 1
    shutil.rmtree(tmp_path / "hub" / "org")
    sync_hubs(zoo, [FolderHub(tmp_path / "hub")], Query())
    assert len(prune(zoo, gone=True).sources) == 1


def test_branches_come_back_too(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as hub, Zoo(tmp_path / "cache", create=True) as zoo:
        hub.add(repo("org/versions", 1, tags=("adapter-transformers",), branches={"v1": lora(2), "v2": lora(3)}))
        sync(zoo, hub)
        before = contents(zoo)
        zoo.mark(zoo.get("hf", "org/versions", None, branch="v1"), gone=True)
        assert prune(zoo, gone=True).sources == ("org/versions@v1",)
        sync(zoo, hub)
        assert contents(zoo) == before
