"""Sync: every adapter is stored or skipped for a reason that is counted, and a second sync has nothing to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hubrank.errors import HubError, SyncIncompleteError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.types import CardFacts, SyncReport
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import Event, sync_hubs
from tests.builders import BASE, MODULES, dense, lora_tensors, write_lora


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        yield zoo


@pytest.fixture
def hub(tmp_path):
    """A folder of three good adapters."""
    for i, name in enumerate("abc"):
        write_lora(tmp_path / "hub" / "org" / name, seed=i)
    return tmp_path / "hub"


def sync(zoo: Zoo, root: Path, events: list[Event] | None = None, **query) -> SyncReport:
    return sync_hubs(zoo, [FolderHub(root)], Query(**query), on_event=None if events is None else events.append)


def counts(report: SyncReport) -> tuple[int, int, int, int, dict]:
    return report.added, report.updated, report.removed, report.unchanged, dict(report.skipped)


def names(zoo: Zoo) -> list[str]:
    return [source.name for source in zoo.sources()]


def with_value(value: float) -> dict:
    tensors = lora_tensors()
    tensors[next(iter(tensors))][0, 0] = value
    return tensors


def without_b() -> dict:
    return {name: tensor for name, tensor in lora_tensors().items() if "1.attention.self.value.lora_B" not in name}


def misshapen() -> dict:
    tensors = lora_tensors()
    return {**tensors, list(tensors)[1]: np.ones((16, 3), np.float32)}


def untrained() -> dict:
    return {name: tensor * ("lora_A" in name) for name, tensor in lora_tensors().items()}


def cut(folder: Path) -> None:
    weights = write_lora(folder) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nan": ("not finite", lambda folder: write_lora(folder, tensors=with_value(np.nan))),
    "inf": ("not finite", lambda folder: write_lora(folder, tensors=with_value(np.inf))),
    "overflow": ("not finite", lambda folder: write_lora(folder, tensors=with_value(3e38), config={"lora_alpha": 1e9})),
    "shapes": ("shape mismatch", lambda folder: write_lora(folder, tensors=misshapen())),
    "rank": ("shape mismatch", lambda folder: write_lora(folder, config={"r": 7})),
    "no-b": ("incomplete", lambda folder: write_lora(folder, tensors=without_b())),
    "zero": ("all zero", lambda folder: write_lora(folder, tensors=untrained())),
    "no-json": ("bad config", lambda folder: (write_lora(folder) / "adapter_config.json").write_text("{'r': 2}")),
    "no-base": ("no base model", lambda folder: write_lora(folder, base=None)),
    "method": ("unsupported method", lambda folder: write_lora(folder, config={"peft_type": "VBLORA"})),
    "magnitudes": ("incomplete", lambda folder: write_lora(folder, config={"use_dora": True})),
    "redos": ("unsafe pattern", lambda folder: write_lora(folder, config={"rank_pattern": {"(?R)*": 2}})),
    "no-weights": ("no weights", lambda folder: (write_lora(folder) / "adapter_model.safetensors").unlink()),
    "truncated": ("damaged file", cut),
    "integers": (
        "unexpected dtype",
        lambda f: write_lora(f, tensors={k: t.astype(np.int32) for k, t in lora_tensors().items()}),
    ),
    "head-only": (
        "no LoRA tensors",
        lambda folder: write_lora(folder, tensors={"classifier.weight": np.ones((2, 2), np.float32)}),
    ),
}


def test_a_first_sync_stores_what_the_files_say(zoo, tmp_path):
    card = "---\nlicense: mit\ntags: [lora]\ndatasets: [imdb]\n---\n# An adapter\n"
    write_lora(tmp_path / "hub" / "org" / "a", card=card, config={"init_lora_weights": "pissa"})
    hub = FolderHub(tmp_path / "hub")
    report = sync_hubs(zoo, [hub], Query())
    assert counts(report) == (1, 0, 0, 0, {})
    (source,) = zoo.sources()
    assert (source.hub, source.repo, source.subfolder) == (f"folder:{tmp_path / 'hub'}", "org/a", None)
    assert (source.base, source.method, source.rank) == (BASE, "lora", 2)
    assert source.card == CardFacts(task="imdb", datasets=("imdb",), license="mit", tags=("lora",))
    assert len(source.revision) == 40
    assert source.location == str(tmp_path / "hub" / "org" / "a")
    assert "base weights" in source.warnings[0]
    tensors = lora_tensors()
    for f, module in zip(zoo.signature(source).factors, MODULES, strict=True):
        up, down = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "BA")
        np.testing.assert_allclose(dense(f), 2.0 * up @ down, atol=0.02 * np.linalg.norm(2.0 * up @ down))


def test_added_unchanged_updated_removed(zoo, hub):
    assert counts(sync(zoo, hub)) == (3, 0, 0, 0, {})
    assert names(zoo) == ["org/a", "org/b", "org/c"]
    write_lora(hub / "org" / "b", seed=20)
    write_lora(hub / "org" / "d", seed=3)
    shutil.rmtree(hub / "org" / "c")
    assert counts(sync(zoo, hub)) == (1, 1, 1, 1, {})
    assert names(zoo) == ["org/a", "org/b", "org/d"]
    assert zoo.verify() == []


def test_a_second_sync_changes_nothing(zoo, hub):
    for name, (_, build) in BROKEN.items():
        build(hub / "bad" / name)
    first = sync(zoo, hub)
    generation, size = zoo.generation, zoo.size()
    second = sync(zoo, hub)
    assert counts(second) == (0, 0, 0, 3, dict(first.skipped))
    assert sorted(second.skips) == sorted(first.skips)
    assert (zoo.generation, zoo.size()) == (generation, size)


@pytest.mark.parametrize(("reason", "build"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_adapter_is_skipped_for_its_reason_and_the_others_are_stored(zoo, hub, reason, build):
    build(hub / "org" / "ab")  # between two good ones
    events: list[Event] = []
    report = sync(zoo, hub, events)
    assert counts(report) == (3, 0, 0, 0, {reason: 1})
    assert names(zoo) == ["org/a", "org/b", "org/c"]
    ((name, why),) = report.skips
    assert name == "org/ab"
    assert why.startswith(f"{reason}: ")
    assert [(e.name, e.outcome) for e in events] == [
        ("org/a", "added"),
        ("org/ab", "skipped"),
        ("org/b", "added"),
        ("org/c", "added"),
    ]
    assert events[1].detail == why


def test_reasons_are_counted_together(zoo, tmp_path):
    for name, (_, build) in BROKEN.items():
        build(tmp_path / "hub" / "org" / name)
    report = sync(zoo, tmp_path / "hub")
    reasons = [reason for reason, _ in BROKEN.values()]
    assert dict(report.skipped) == {reason: reasons.count(reason) for reason in reasons}
    assert next(iter(report.skipped)) == "not finite"  # most first
    assert len(report.skips) == len(BROKEN)
    assert names(zoo) == []


@pytest.mark.parametrize(
    "card",
    ["---\na: !!int ''\n---\n", "---\na: !!timestamp x\n---\n", "---\n" + "- " * 20_000 + "\n---\n", "---\n\x00: [\n---\n"],
)
def test_a_hostile_card_costs_nothing_but_its_facts(zoo, tmp_path, card):
    write_lora(tmp_path / "hub" / "org" / "a", card=card)
    assert counts(sync(zoo, tmp_path / "hub")) == (1, 0, 0, 0, {})
    assert zoo.sources()[0].card == CardFacts()


def test_a_broken_new_revision_keeps_the_stored_one(zoo, hub):
    sync(zoo, hub)
    former = zoo.get(f"folder:{hub}", "org/b", None)
    write_lora(hub / "org" / "b", tensors=with_value(np.nan))
    for _ in range(2):
        assert counts(sync(zoo, hub)) == (0, 0, 0, 2, {"not finite": 1})
        assert zoo.get(f"folder:{hub}", "org/b", None) == former
        assert zoo.signature(former).factors
    write_lora(hub / "org" / "b", seed=30)
    assert counts(sync(zoo, hub)) == (0, 1, 0, 2, {})
    assert zoo.get(f"folder:{hub}", "org/b", None).revision != former.revision


def test_a_skipped_adapter_that_was_mended_is_added(zoo, hub):
    write_lora(hub / "org" / "d", tensors=with_value(np.nan))
    assert counts(sync(zoo, hub)) == (3, 0, 0, 0, {"not finite": 1})
    write_lora(hub / "org" / "d", seed=4)
    assert counts(sync(zoo, hub)) == (1, 0, 0, 3, {})


def test_what_left_is_marked_gone_and_comes_back(zoo, hub, tmp_path):
    sync(zoo, hub)
    shutil.move(hub / "org" / "b", tmp_path / "aside")
    assert counts(sync(zoo, hub)) == (0, 0, 1, 2, {})
    assert names(zoo) == ["org/a", "org/c"]
    assert [source.name for source in zoo.sources(gone=True)] == ["org/a", "org/b", "org/c"]
    generation = zoo.generation
    assert counts(sync(zoo, hub)) == (0, 0, 0, 2, {})  # gone only once
    assert zoo.generation == generation
    shutil.move(tmp_path / "aside", hub / "org" / "b")
    assert counts(sync(zoo, hub)) == (0, 0, 0, 3, {})
    assert names(zoo) == ["org/a", "org/b", "org/c"]


def test_a_limited_sync_stores_so_many_and_marks_nothing_gone(zoo, hub):
    assert counts(sync(zoo, hub, limit=2)) == (2, 0, 0, 0, {})
    assert names(zoo) == ["org/a", "org/b"]
    assert counts(sync(zoo, hub)) == (1, 0, 0, 2, {})
    shutil.rmtree(hub / "org" / "c")
    assert counts(sync(zoo, hub, limit=1)) == (0, 0, 0, 1, {})
    assert names(zoo) == ["org/a", "org/b", "org/c"]


def test_a_sync_of_one_base_leaves_others_for_another_time(zoo, hub):
    write_lora(hub / "org" / "other", base="org/other")
    assert counts(sync(zoo, hub, bases=("org/other",))) == (1, 0, 0, 0, {"other base": 3})
    assert names(zoo) == ["org/other"]
    assert counts(sync(zoo, hub)) == (3, 0, 0, 1, {})


def test_hubs_do_not_touch_each_other_s_sources(zoo, hub, tmp_path):
    write_lora(tmp_path / "second" / "org" / "a", seed=9)
    report = sync_hubs(zoo, [FolderHub(hub), FolderHub(tmp_path / "second")], Query())
    assert counts(report) == (4, 0, 0, 0, {})
    assert names(zoo).count("org/a") == 2
    assert counts(sync(zoo, tmp_path / "second")) == (0, 0, 0, 1, {})
    assert len(zoo.sources()) == 4


def test_adapters_in_subfolders_are_sources_of_their_own(zoo, tmp_path):
    write_lora(tmp_path / "hub" / "org" / "a")
    write_lora(tmp_path / "hub" / "org" / "a" / "second", seed=1)
    assert counts(sync(zoo, tmp_path / "hub")) == (2, 0, 0, 0, {})
    assert names(zoo) == ["org/a", "org/a/second"]
    shutil.rmtree(tmp_path / "hub" / "org" / "a" / "second")
    assert counts(sync(zoo, tmp_path / "hub")) == (0, 0, 1, 1, {})


def test_a_name_that_is_no_text_is_stored_once_and_stays(zoo, tmp_path):
    for name in ("caf\udce9", "caf?", "café"):
        write_lora(tmp_path / "hub" / "org" / name)
    assert counts(sync(zoo, tmp_path / "hub")) == (3, 0, 0, 0, {})
    generation = zoo.generation
    assert counts(sync(zoo, tmp_path / "hub")) == (0, 0, 0, 3, {})
    assert zoo.generation == generation
    for source in zoo.sources():
        source.name.encode("utf-8")
        assert (Path(source.location) / "adapter_config.json").is_file()


def test_bytes_are_those_of_the_files(zoo, hub):
    report = sync(zoo, hub)
    size = sum(path.stat().st_size for path in hub.rglob("*") if path.is_file())
    assert report.bytes_whole == size
    assert report.seconds > 0
    assert report.requests == 0


def test_a_hub_that_fails_half_way_leaves_what_was_stored(zoo, hub):
    class Failing(FolderHub):
        def discover(self, query):
            yield from list(super().discover(query))[:2]
            raise HubError("the line went dead")

    with pytest.raises(HubError, match="the line went dead"):
        sync_hubs(zoo, [Failing(hub)], Query())
    assert names(zoo) == ["org/a", "org/b"]
    assert counts(sync(zoo, hub)) == (1, 0, 0, 2, {})


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_folder_that_cannot_be_listed_is_named_and_stops_no_other(zoo, hub, monkeypatch, what):
    assert sync(zoo, hub).added == 3
    write_lora(hub / "org" / "d", seed=7)
    scandir = os.scandir

    class Entry:
        """A file of which the system will not say how long it is."""

        def __init__(self, entry):
            self.name, self.path = entry.name, entry.path
            self.is_dir, self.is_file = entry.is_dir, entry.is_file

        def stat(self):
            raise PermissionError(errno.EACCES, "Permission denied", self.path)

    def refuses(path):
        if not str(path).endswith("/org/b"):
            return scandir(path)
        if what == "folder":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return contextlib.nullcontext([Entry(entry) for entry in scandir(path)])

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(
        SyncIncompleteError, match=r"/org/b: cannot be listed \(Permission denied\); check permissions"
    ) as caught:
        sync(zoo, hub)
    assert counts(caught.value.report) == (1, 0, 0, 2, {})  # and nothing is taken for gone
    assert names(zoo) == ["org/a", "org/b", "org/c", "org/d"]
