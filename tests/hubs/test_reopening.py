"""A stored source's files again: at its revision, from where they were, and never another one's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubrank.checkpoints.reader import read_adapters
from hubrank.errors import AdapterError
from hubrank.hubs.reopening import Reopener, same_content
from hubrank.zoo.store import Zoo
from tests.builders import make_source, write_lora
from tests.hubs.quick import online
from tests.standin import stand_in_hub
from tests.zoo.hub_repos import lora, repo, sync


@pytest.fixture
def hub(monkeypatch):
    with stand_in_hub() as server:
        server.repos["org/one"] = repo("org/one", 1)
        online(monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        yield server


def source_of(folder, hub):
    with Zoo(folder / "cache", create=True) as zoo:
        sync(zoo, hub)
        (found,) = [source for source in zoo.sources() if source.repo == "org/one"]
    return found


def test_a_repository_is_opened_at_the_revision_that_the_zoo_knows(tmp_path, hub):
    source = source_of(tmp_path, hub)
    before = hub.repos["org/one"].files
    hub.repos["org/one"].branches["old"] = before
    hub.repos["org/one"].files = lora(9)
    opened = Reopener().open(source)
    (adapter,) = read_adapters(opened.listing, opened.bundle)
    same_content(source, opened.bundle)
    assert not opened.local
    assert adapter.deltas[0].down.shape == (2, 16)
    assert opened.listing.revision == source.revision != hub.repos["org/one"].sha


def test_offline_nothing_is_asked(tmp_path, hub):
    source = source_of(tmp_path, hub)
    asked = len(hub.seen)
    with pytest.raises(AdapterError, match="on the network, and hubrank is offline"):
        Reopener(offline=True).open(source)
    assert len(hub.seen) == asked


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"repo": "org/nothing"}, "org/nothing at"),
        ({"revision": "f" * 40}, "org/one at ffffffffffff"),
        ({"subfolder": "elsewhere"}, "holds no adapter there"),
        ({"hub": "smb://host"}, "nothing is known of a hub"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, hub, changes, why):
    with pytest.raises(AdapterError, match=why):
        Reopener().open(replace(source_of(tmp_path, hub), **changes))


def test_a_folder_is_opened_where_it_lies(tmp_path):
    folder = write_lora(tmp_path / "hub/org/one")
    source = make_source(hub=f"folder:{tmp_path}/hub", location=str(folder), files=(("adapter_config.json", "sha256:0"),))
    opened = Reopener(offline=True).open(source)
    assert opened.local
    read_adapters(opened.listing, opened.bundle)
    with pytest.raises(AdapterError, match=r"adapter_config\.json is no longer what the zoo was synced from"):
        same_content(source, opened.bundle)


@pytest.mark.parametrize("location", [None, "/nowhere/at/all"])
def test_a_folder_that_is_not_there(location):
    with pytest.raises(AdapterError, match="file missing"):
        Reopener().open(make_source(hub="folder:/nowhere", location=location))
