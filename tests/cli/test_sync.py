"""``hubrank sync``: what it prints, where, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import threading

import pytest

from hubrank.cli import sync as command
from hubrank.errors import HubError
from hubrank.hubs.protocol import Traffic
from hubrank.zoo.lock import sync_lock
from hubrank.zoo.store import Zoo
from tests.builders import write_lora

PROMISED = ["added", "updated", "removed", "unchanged", "skipped", "requests", "bytes_read", "bytes_whole", "seconds"]


@pytest.fixture
def hub(tmp_path):
    """A folder hub of three adapters, one of which cannot be read."""
    for i in range(2):
        write_lora(tmp_path / f"hub/org/good{i}", seed=i)
    write_lora(tmp_path / "hub/org/bad\x1b]0;owned", config={"r": 3, "lora_alpha": "much"})
    return tmp_path / "hub"


class Silent:
    """A hub on the network that does not answer."""

    name = "silent"

    def __init__(self):
        self.traffic = Traffic()

    def discover(self, _query):
        raise HubError("the hub did not answer\x1b[31m")
        yield

    def open(self, _listing):
        raise AssertionError


@pytest.fixture
def silent(monkeypatch):
    """``--hub silent`` opens it."""
    from hubrank import api

    open_hub = api.open_hub
    monkeypatch.setattr(api, "open_hub", lambda name, **options: Silent() if name == "silent" else open_hub(name, **options))


def test_the_json_is_as_promised_with_progress_on(hubrank, hub, tmp_path):
    done = hubrank("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--format", "json", "-v")
    value = json.loads(done.out)
    assert done.code == 0
    assert list(value)[: len(PROMISED)] == PROMISED
    assert (value["added"], sum(value["skipped"].values()), value["requests"]) == (2, 1, 0)
    assert 0 < value["bytes_read"] <= value["bytes_whole"]
    assert "skipped org/bad" in done.err
    assert "\x1b" not in done.err
    again = json.loads(hubrank("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--format", "json").out)
    assert (again["added"], again["unchanged"]) == (0, 2)


@pytest.mark.parametrize("style", ["table", "csv", "md"])
def test_other_formats(hubrank, hub, tmp_path, style):
    done = hubrank("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--format", style)
    assert done.code == 0
    if style == "csv":
        rows = {row["what"]: row["adapters"] for row in csv.DictReader(io.StringIO(done.out))}
        assert rows["added"] == "2"
    else:
        assert "added" in done.out
        assert "2" in done.out
    assert "-v names each" in done.err


def test_quiet_says_nothing_on_stderr(hubrank, hub, tmp_path):
    assert hubrank("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo", "-q").err == ""


@pytest.mark.parametrize("style", ["table", "json", "csv", "md"])
def test_a_dry_run_changes_nothing(hubrank, hub, tmp_path, style):
    done = hubrank("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--dry-run", "--format", style)
    assert done.code == 0
    assert not (tmp_path / "zoo").exists()
    assert "\x1b" not in done.out
    if style == "json":
        value = json.loads(done.out)
        assert (value["new"], value["changed"], value["requests"]) == (3, 0, 0)
        assert value["bytes"] > 1000
        assert "org/good0" in value["adapters"]["new"]
    elif style == "csv":
        assert {row["what"]: row["count"] for row in csv.DictReader(io.StringIO(done.out))}["new"] == "3"
    elif style == "table":
        assert done.out.startswith("would read 3 adapters, at most ")
        assert "org/good1" in done.out


def test_a_dry_run_says_the_bytes_that_the_sync_then_stays_under(hubrank, hub, tmp_path):
    where = ("--hub", hub, "--cache-dir", tmp_path / "zoo", "--format", "json")
    planned = json.loads(hubrank("sync", *where, "--dry-run").out)
    assert json.loads(hubrank("sync", *where).out)["bytes_read"] <= planned["bytes"]
    assert json.loads(hubrank("sync", *where, "--dry-run").out)["new"] == 0


def test_a_hub_that_fails_beside_one_that_works(hubrank, hub, silent, tmp_path):
    done = hubrank("sync", "--hub", "silent", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--format", "json", "-q")
    assert done.code == 4
    value = json.loads(done.out)
    assert value["added"] == 2
    assert list(value["failed"]) == ["silent"]
    lines = [line for line in done.err.splitlines() if line.startswith("hubrank: ")]
    assert len(lines) == 1
    assert lines[0].startswith("hubrank: silent: the hub did not answer")
    assert "\x1b" not in done.err
    planned = hubrank("sync", "--hub", "silent", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--dry-run")
    assert planned.code == 4
    assert "hubrank: silent: " in planned.err


def test_offline_leaves_the_network_alone(hubrank, hub, silent, tmp_path):
    done = hubrank("sync", "--hub", "silent", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--offline")
    assert done.code == 0
    assert "2 added" in done.out
    assert "silent was not asked: --offline" in done.err


def test_a_method_that_is_none_is_refused_and_others_are_counted(hubrank, hub, tmp_path):
    where = ("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo")
    done = hubrank(*where, "--method", "lore")
    assert (done.code, done.out) == (2, "")
    assert "hubrank: --method lore: adapters are of lora, bottleneck, prefix, prompt, ia3, bias, rotation or reft" in done.err
    done = hubrank(*where, "--method", "prefix", "--format", "json")
    assert done.code == 0
    assert json.loads(done.out)["skipped"] == {"other method": 3}


def test_an_empty_name_is_not_the_folder_one_happens_to_be_in(hubrank, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(hub)
    done = hubrank("sync", "--hub", "", "--cache-dir", tmp_path / "zoo")
    assert (done.code, done.out) == (2, "")
    assert done.err == "hubrank: --hub '': give hf, adapterhub, zips or a folder of adapters\n"


def test_hf_hub_offline_is_honoured(hubrank, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = hubrank("sync", "--cache-dir", tmp_path / "zoo")
    assert done.code == 4
    assert "HF_HUB_OFFLINE" in done.err


def test_an_interrupt_says_what_is_kept(hubrank, hub, tmp_path, monkeypatch):
    seen = []

    def stop(progress, event):
        seen.append(event)
        progress._outcomes[event.outcome] += 1
        if event.outcome == "added":
            raise KeyboardInterrupt

    monkeypatch.setattr(command.SyncProgress, "event", stop)
    done = hubrank("sync", "--hub", hub, "--cache-dir", tmp_path / "zoo", "--format", "json")
    assert (done.code, done.out) == (130, "")
    assert "hubrank: interrupted; kept: 1 added; the same command goes on from there" in done.err
    with Zoo(tmp_path / "zoo") as zoo:
        assert [source.name for source in zoo.sources()] == [event.name for event in seen if event.outcome == "added"]


def test_a_zoo_that_another_sync_holds(hubrank, hub, tmp_path, monkeypatch):
    folder = tmp_path / "zoo"
    folder.mkdir()
    held, free = threading.Event(), threading.Event()

    def hold():
        with sync_lock(folder):
            held.set()
            free.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        done = hubrank("sync", "--hub", hub, "--cache-dir", folder)
        assert done.code == 5
        assert "--wait" in done.err
        # Reading needs no lock, nor does planning.
        assert hubrank("sync", "--hub", hub, "--cache-dir", folder, "--dry-run").code == 0
        note = command.SyncProgress.note
        monkeypatch.setattr(command.SyncProgress, "note", lambda self, message: (note(self, message), free.set()))
        waited = hubrank("sync", "--hub", hub, "--cache-dir", folder, "--wait")
        assert waited.code == 0, waited.err
        assert "waiting for process" in waited.err
        assert "2 added" in waited.out
    finally:
        free.set()
        holder.join()


def test_the_options_reach_the_settings(hubrank, monkeypatch, tmp_path):
    from hubrank import api
    from hubrank.types import SyncReport

    given = {}

    def run(hubs, **options):
        given.update(hubs=hubs, **options)
        return SyncReport()

    monkeypatch.setattr(api, "sync", run)
    words = "--base a/b --base c/d --method lora --method ia3 --task nli --language en --license mit --author me"
    words += " --min-downloads 5 --limit 7 --jobs 3 --ray auto --offline --wait"
    done = hubrank("sync", "--hub", "hf", "--hub", "x", *words.split())
    assert done.code == 0, done.err
    assert given["hubs"] == ["hf", "x"]
    assert given["settings"] == api.SyncSettings(
        bases=("a/b", "c/d"),
        methods=("lora", "ia3"),
        tasks=("nli",),
        languages=("en",),
        licenses=("mit",),
        authors=("me",),
        min_downloads=5,
        limit=7,
        jobs=3,
        ray="auto",
        offline=True,
        wait=True,
    )
    hubrank("sync")
    assert (given["hubs"], given["settings"]) == (["hf"], api.SyncSettings())
