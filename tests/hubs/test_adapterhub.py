"""AdapterHub as a part of the HF Hub: what is listed, versions, tasks, and one source however it is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubrank.api import open_hub
from hubrank.errors import HubError
from hubrank.hubs.adapterhub import AdapterHub, open_zips
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Partial, Query
from hubrank.hubs.zips import INDEX, ZipsHub
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.hubs.archive import BASE, dist, entry, file_entry, files, pack, server
from tests.standin import Fault, Repo, StandInHub, stand_in_hub

CONFIG = {"adapter_transformers": {"model_name": BASE}}


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub():
    with stand_in_hub() as running:
        yield running


def repo(
    name: str, seed: int = 0, task: str = "sentiment/sst-2", *, tags: tuple[str, ...] = ("adapter-transformers",), **branches
):
    """A repository of the adapters library; ``branches`` by name, with the seed of each."""
    versions = {branch: files(of) for branch, of in branches.items()}
    told = [*tags, f"adapterhub:{task}", "bert"]
    return Repo(name, files(seed), tags=told, config=CONFIG, branches=versions)


def populate(hub: StandInHub) -> None:
    hub.add(repo("AdapterHub/one", 1, "nli/multinli", nd=1, wd=2))
    hub.add(repo("AdapterHub/two", 3, "nli/rte"))
    hub.add(repo("AdapterHub/untagged", 4, tags=("bert",), second=5))
    hub.add(repo("somebody/three", 6))
    hub.add(Repo("a/peft", files(7), tags=["peft"]))
    hub.add(Repo("a/model", {"config.json": b"{}"}, tags=["bert"]))


def listed(hub: StandInHub, **query) -> list[str]:
    found = AdapterHub(hub.url).discover(Query(**query))
    return [f"{one.repo}@{one.branch}" if one.branch else one.repo for one in found]


def sync(tmp_path: Path, *hubs, **query):
    with Zoo(tmp_path / "zoo", create=True) as zoo:
        return sync_hubs(zoo, hubs, Query(**query)), zoo.sources()


def test_the_organisation_and_every_repository_of_the_library(hub):
    populate(hub)
    assert listed(hub) == [
        *("AdapterHub/one", "AdapterHub/one@wd"),  # the branch nd is what main is
        *("AdapterHub/two", "somebody/three", "AdapterHub/untagged", "AdapterHub/untagged@second"),
    ]


@pytest.mark.parametrize(
    ("query", "repos"),
    [
        ({"tasks": ("nli",)}, ["AdapterHub/one", "AdapterHub/one@wd", "AdapterHub/two"]),
        ({"tasks": ("nli/multinli",)}, ["AdapterHub/one", "AdapterHub/one@wd"]),
        ({"tasks": ("nl",)}, []),
        ({"authors": ("somebody",)}, ["somebody/three"]),
        ({"authors": ("adapterhub",), "tasks": ("nli/rte",)}, ["AdapterHub/two"]),
        ({"limit": 1}, ["AdapterHub/one", "AdapterHub/one@wd"]),
        ({"bases": (BASE,), "authors": ("somebody",)}, ["somebody/three"]),
        ({"bases": ("roberta-base",)}, []),
    ],
)
def test_a_query_is_kept_to(hub, query, repos):
    populate(hub)
    assert listed(hub, **query) == repos


def test_tasks_come_from_the_tags_and_a_second_sync_asks_for_the_lists_alone(hub, tmp_path):
    populate(hub)
    report, sources = sync(tmp_path, AdapterHub(hub.url))
    assert (report.added, report.skipped) == (6, {})
    assert {source.name: source.task for source in sources}["AdapterHub/one@wd"] == "nli/multinli"
    assert {source.method for source in sources} == {"bottleneck"}
    report, again = sync(tmp_path, AdapterHub(hub.url))
    assert (report.requests, report.unchanged, again) == (2, 4, sources)


def test_a_source_is_one_whichever_hub_lists_it(hub, tmp_path):
    populate(hub)
    del hub.repos["a/peft"]
    del hub.repos["AdapterHub/untagged"]
    _, first = sync(tmp_path, HuggingFaceHub(hub.url))
    report, both = sync(tmp_path, AdapterHub(hub.url), HuggingFaceHub(hub.url))
    assert (report.added, report.updated, report.removed, both) == (0, 0, 0, first)
    assert {source.hub for source in both} == {"hf"}


def test_what_the_part_does_not_list_is_not_gone(hub, tmp_path):
    populate(hub)
    sync(tmp_path, HuggingFaceHub(hub.url), AdapterHub(hub.url))
    assert isinstance(AdapterHub(hub.url), Partial)
    assert not isinstance(HuggingFaceHub(hub.url), Partial)
    del hub.repos["somebody/three"]
    report, sources = sync(tmp_path, AdapterHub(hub.url))
    assert (report.removed, "a/peft" in {source.name for source in sources}) == (0, True)
    report, _ = sync(tmp_path, HuggingFaceHub(hub.url))
    assert report.removed >= 1


def test_what_moved_here_is_left_out_of_the_archive(hub, tmp_path, monkeypatch):
    hub.add(repo("AdapterHub/one", 1))
    hub.add(repo("somebody/two", 2))
    with server() as web:
        data = pack(files(1))
        zipped = file_entry(web.put("/a.zip", data), data)
        for path, page in dist({f"ukp/{name}": entry({"1": zipped}) for name in ("one", "two")}).items():
            web.put(f"/{path}", page)
        monkeypatch.setattr("hubrank.hubs.zips.INDEX", web.url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        archive = open_zips("zips")
        assert [listing.repo for listing in archive.discover(Query())] == ["ukp/two"]
        assert (archive.name, archive.traffic.requests) == ("zips", 3)  # the organisation, the list, the entry
        assert [listing.repo for listing in open_zips(f"zips:{web.url}").discover(Query())] == ["ukp/one", "ukp/two"]


def test_the_names_on_the_command_line(tmp_path):
    assert isinstance(open_hub("adapterhub"), AdapterHub)
    assert open_hub("adapterhub").name == open_hub("hf").name == "hf"
    assert isinstance(open_hub("zips"), ZipsHub)
    assert INDEX.startswith("https://raw.githubusercontent.com/Adapter-Hub/Hub/")
    assert open_hub("zips:https://example.org/dist/v2/").name == "zips:https://example.org/dist/v2"
    with pytest.raises(HubError, match="no index of AdapterHub"):
        open_hub(f"zips:{tmp_path}")


def test_where_the_organisation_cannot_be_asked_nothing_is_listed(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    hub.fault = lambda method, path: Fault(403)
    with pytest.raises(HubError):
        list(open_zips("zips").discover(Query()))
