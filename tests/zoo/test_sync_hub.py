"""Sync with a hub over HTTP: few requests, only what moved, and nothing lost whatever fails."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from hubrank.errors import HubError, StoreError, SyncIncompleteError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.plan import plan_sync
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.builders import BASE, write_lora
from tests.standin import Fault, Repo, StandInHub, stand_in_hub
from tests.zoo.hub_repos import contents, fresh, lora, quick_hub, repo, sync


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as running:
        yield running


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        yield zoo


def fill(hub: StandInHub, count: int) -> None:
    for i in range(count):
        hub.add(repo(f"org/{i:02}", i))


def counts(report) -> tuple[int, int, int, int, dict]:
    return report.added, report.updated, report.removed, report.unchanged, dict(report.skipped)


def versioned(name: str, seed: int, *branches: int) -> Repo:
    return repo(name, seed, tags=("adapter-transformers",), branches={f"v{i}": lora(i) for i in branches})


def test_threads_store_what_one_alone_stores(hub, zoo, tmp_path):
    fill(hub, 12)
    hub.add(versioned("org/versions", 50, 51, 52))
    hub.repos["org/03"].files["adapter_model.safetensors"] = b"broken"
    one = sync(zoo, hub, jobs=1)
    with Zoo(tmp_path / "other", create=True) as other:
        many = sync(other, hub, jobs=8)
        assert contents(other) == contents(zoo)
    assert counts(many) == counts(one) == (14, 0, 0, 0, {"damaged file": 1})
    assert (many.requests, many.bytes_read) == (one.requests, one.bytes_read)


def test_a_new_adapter_takes_three_requests_and_an_unchanged_one_none(hub, zoo):
    fill(hub, 10)
    listing = 2  # one page for each tag
    assert sync(zoo, hub).requests <= listing + 3 * 10
    report = sync(zoo, hub)
    assert counts(report) == (0, 0, 0, 10, {})
    assert report.requests == listing
    assert report.bytes_read < 200 * 10  # of the listing itself


def test_branches_and_refusals_are_not_asked_for_again(hub, zoo):
    hub.add(versioned("org/versions", 1, 2, 3))
    hub.add(repo("org/bad", 4)).files["adapter_model.safetensors"] = b"broken"
    first = sync(zoo, hub)
    assert counts(first) == (3, 0, 0, 0, {"damaged file": 1})
    second = sync(zoo, hub)
    assert second.requests == 2
    assert counts(second) == (0, 0, 0, 1, {"damaged file": 1})
    assert len(zoo.sources()) == 3  # the branches of what has not moved are still there


def test_what_moved_without_its_weights_takes_one_request(hub, zoo, tmp_path):
    fill(hub, 3)
    sync(zoo, hub)
    before = contents(zoo)
    hub.repos["org/00"].files["README.md"] = b"# new"
    hub.repos["org/01"].card["license"] = "mit"
    hub.repos["org/01"].files["README.md"] = b"---\nlicense: mit\n---\n"
    hub.repos["org/02"].files["adapter_config.json"] += b"\n"
    report = sync(zoo, hub)
    assert counts(report) == (0, 2, 0, 1, {})
    assert report.requests == 2 + 1 + 1 + 3
    after = contents(zoo)
    assert after == fresh(tmp_path, hub)
    for name in ("org/00", "org/01"):
        assert after[name][0].revision == hub.repos[name].sha != before[name][0].revision
        assert after[name][1] == before[name][1]
    assert after["org/01"][0].card.license == "mit"
    assert sync(zoo, hub).requests == 2


@pytest.mark.parametrize("change", ["weights", "better file", "base on card"])
def test_what_moved_where_it_matters_is_read_again(hub, zoo, tmp_path, change):
    files = hub.add(repo("org/a", 1)).files
    if change == "better file":
        import torch
        from safetensors.numpy import load

        tensors = load(files.pop("adapter_model.safetensors"))
        torch.save({name: torch.from_numpy(t) for name, t in tensors.items()}, tmp_path / "weights.bin")
        files["adapter_model.bin"] = (tmp_path / "weights.bin").read_bytes()
    if change == "base on card":
        files["adapter_config.json"] = lora(1, "/home/me/model")["adapter_config.json"]
    sync(zoo, hub)
    assert [source.base for source in zoo.sources()] == [BASE]
    if change == "base on card":
        hub.repos["org/a"].tags = ["peft", "base_model:adapter:org/second"]
        files["README.md"] = b"# another base"
    else:
        files["adapter_model.safetensors"] = lora(2)["adapter_model.safetensors"]
    assert counts(sync(zoo, hub)) == (0, 1, 0, 0, {})
    assert contents(zoo) == fresh(tmp_path, hub)


def test_gone_from_the_hub_is_marked_also_where_only_one_base_was_asked_for(hub, zoo):
    fill(hub, 3)
    hub.add(repo("org/other", 7, base="org/second"))
    hub.add(Repo("org/untagged", lora(8)))
    sync(zoo, hub)
    for name in ("org/00", "org/other", "org/untagged"):
        del hub.repos[name]
    assert sync(zoo, hub, Query(bases=(BASE,), limit=1)).removed == 0
    assert sync(zoo, hub, Query(bases=(BASE,), languages=("en",))).removed == 0
    assert sync(zoo, hub, Query(bases=(BASE,))).removed == 1
    # The listing of one base never had what is not tagged with it.
    assert [s.name for s in zoo.sources()] == ["org/01", "org/02", "org/other", "org/untagged"]
    assert sync(zoo, hub).removed == 2
    assert [s.name for s in zoo.sources(gone=True) if s.gone] == ["org/00", "org/other", "org/untagged"]


def test_another_base_is_read_once_and_kept_in_mind(hub, zoo):
    hub.add(versioned("org/versions", 1, 2))
    hub.repos["org/versions"].files["adapter_config.json"] = lora(1, "org/second")["adapter_config.json"]
    query = Query(bases=(BASE,))
    assert counts(sync(zoo, hub, query)) == (1, 0, 0, 0, {"other base": 1})
    second = sync(zoo, hub, query)
    assert second.requests == 2
    assert counts(second) == (0, 0, 0, 0, {"other base": 1})
    assert counts(sync(zoo, hub)) == (1, 0, 0, 1, {})


def test_a_hub_that_dies_keeps_what_it_gave_and_does_not_stop_the_next(hub, zoo, tmp_path):
    fill(hub, 24)
    write_lora(tmp_path / "folder" / "local" / "a", seed=9)
    alive = Counter()

    def dies(method, path):
        alive["files"] += "safetensors" in path
        return Fault(503) if alive["files"] > 3 else None

    hub.fault = dies
    dying = quick_hub(hub)
    with pytest.raises(SyncIncompleteError) as caught:
        sync_hubs(zoo, [dying, FolderHub(tmp_path / "folder")], Query(), jobs=1)
    report = caught.value.report
    assert [name for name, _ in report.failed] == ["hf"]
    assert report.skipped["no answer"] == 3
    assert {"local/a", "org/00"} < set(contents(zoo))
    assert report.removed == 0
    hub.fault = lambda method, path: None
    sync(zoo, hub)
    names = {name: value for name, value in contents(zoo).items() if value[0].hub == "hf"}
    assert names == fresh(tmp_path, hub)


def test_a_listing_that_breaks_off_marks_nothing_gone(hub, zoo):
    fill(hub, 6)
    sync(zoo, hub)
    del hub.repos["org/00"]
    hub.page = 2
    hub.fault = lambda method, path: Fault(500) if "cursor" in path else None
    with pytest.raises(HubError, match="hf"):
        sync(zoo, hub)
    assert len(zoo.sources()) == 6
    hub.fault = lambda method, path: None
    assert sync(zoo, hub).removed == 1


def test_one_adapter_that_the_hub_has_no_answer_for_stops_no_other(hub, zoo):
    fill(hub, 6)
    hub.fault = lambda method, path: Fault(500) if "org/02" in path and "resolve" in path else None
    report = sync(zoo, hub)
    assert (report.added, sum(report.skipped.values())) == (5, 1)
    hub.fault = lambda method, path: None
    assert counts(sync(zoo, hub)) == (1, 0, 0, 5, {})


class Silent:
    """A hub of somebody's own, that lists and then does not answer."""

    def __init__(self, inner: FolderHub) -> None:
        self._inner, self.name, self.traffic = inner, "own", inner.traffic
        self.opened = 0

    def discover(self, query):
        return self._inner.discover(query)

    def open(self, _):
        self.opened += 1
        raise HubError("nobody at home")


def test_a_hub_that_answers_for_nothing_is_given_up(zoo, tmp_path):
    for i in range(30):
        write_lora(tmp_path / "hub" / "org" / f"{i:02}", seed=i)
    silent = Silent(FolderHub(tmp_path / "hub"))
    with pytest.raises(SyncIncompleteError, match=r"own: .*nobody at home") as caught:
        sync_hubs(zoo, [silent], Query(), jobs=2)
    assert 3 <= silent.opened <= 5
    assert caught.value.report.skipped == {"no answer": silent.opened}


def test_a_plan_says_what_the_sync_then_does(hub, zoo):
    fill(hub, 5)
    sync(zoo, hub)
    del hub.repos["org/00"]
    hub.repos["org/01"].files["adapter_model.safetensors"] = lora(70)["adapter_model.safetensors"]
    hub.add(repo("org/new", 71))
    hub.add(repo("org/bad", 72)).files["adapter_model.safetensors"] = b"broken"
    generation = zoo.generation
    hub.clear()
    plan = plan_sync(zoo, [quick_hub(hub)], Query())
    assert (plan.new, plan.changed, plan.gone) == (("org/new", "org/bad"), ("org/01",), ("org/00",))
    assert plan.unchanged == ("org/02", "org/03", "org/04")
    assert len(hub.requests) == 2
    assert zoo.generation == generation
    report = sync(zoo, hub)
    assert counts(report) == (1, 1, 1, 3, {"damaged file": 1})
    assert report.requests <= plan.requests + 1
    assert plan_sync(zoo, [quick_hub(hub)], Query()).skipped == ("org/bad",)


def test_a_plan_gives_the_bytes_that_a_folder_lists(zoo, tmp_path):
    folder = write_lora(tmp_path / "hub" / "org" / "a", card="---\nlicense: mit\n---\n")
    plan = plan_sync(zoo, [FolderHub(tmp_path / "hub")], Query())
    assert plan.new == ("org/a",)
    assert (plan.bytes, plan.requests, plan.unsized) == (sum(f.stat().st_size for f in folder.iterdir()), 0, 0)


def test_an_offline_sync_asks_no_hub_on_the_network_and_keeps_what_is_gone(hub, zoo, tmp_path):
    fill(hub, 2)
    sync(zoo, hub)
    write_lora(tmp_path / "hub" / "local" / "a", seed=9)
    hub.repos.clear()
    hub.clear()
    report = sync_hubs(zoo, [quick_hub(hub), FolderHub(tmp_path / "hub")], Query(), offline=True)
    assert (report.added, report.removed, report.not_asked) == (1, 0, ("hf",))
    assert not hub.seen
    assert plan_sync(zoo, [quick_hub(hub)], Query(), offline=True).not_asked == ("hf",)


def test_default_bases_are_for_hubs_on_the_network_alone(hub, zoo, tmp_path):
    hub.add(repo("org/wanted", 1))
    hub.add(repo("org/other", 2, base="org/second"))
    write_lora(tmp_path / "hub" / "local" / "a", base="org/third")
    sync_hubs(zoo, [quick_hub(hub), FolderHub(tmp_path / "hub")], Query(), default_bases=(BASE,))
    assert set(contents(zoo)) == {"org/wanted", "local/a"}


def test_an_event_for_each_adapter_and_a_total_when_all_are_listed(hub, zoo):
    fill(hub, 5)
    events = []
    sync(zoo, hub, on_event=events.append)
    assert sorted(event.name for event in events) == sorted(hub.repos)
    assert {event.outcome for event in events} == {"added"}
    assert all(event.bytes_read > 0 and event.hub == "hf" for event in events)
    assert events[-1].complete
    assert events[-1].listed == 5


def test_older_records_are_read_again_when_their_repository_moves(hub, zoo, tmp_path):
    fill(hub, 1)
    sync(zoo, hub)
    (source,) = zoo.sources()
    zoo.revise(replace(source, files=(), reader=0, card_base=None, revision="0" * 40))
    assert counts(sync(zoo, hub)) == (0, 1, 0, 0, {})
    assert contents(zoo) == fresh(tmp_path, hub)


def test_a_full_disk_ends_it_and_nothing_stored_is_lost(hub, zoo, tmp_path):
    fill(hub, 20)
    execute = zoo._database._cache._sql
    ((pages,),) = execute("PRAGMA page_count").fetchall()
    execute(f"PRAGMA max_page_count = {pages + 12}").fetchall()
    events = []
    with pytest.raises(StoreError, match="free some space"):
        sync(zoo, hub, on_event=events.append)
    assert 0 < len(events) < 20
    assert {event.name for event in events} == set(contents(zoo))
    assert zoo.verify() == []
    execute("PRAGMA max_page_count = 1000000").fetchall()
    sync(zoo, hub)
    assert contents(zoo) == fresh(tmp_path, hub)
