"""Rerank and verify from file to figures: real adapters in a folder, a tiny random base, and all that can go wrong."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest

from hubrank.api import sync
from hubrank.errors import UsageError
from hubrank.ranking import rerank as rerank_module
from hubrank.ranking import verify as verify_module
from hubrank.ranking.blend import blended
from hubrank.ranking.search import SearchInterrupted, search
from hubrank.target.base import load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, tune
from hubrank.zoo.store import Zoo
from tests.builders import lora_tensors, write_lora
from tests.hubs.quick import online
from tests.ranking.builders import (
    BASE,
    make_base,
    modules,
    one_thread,
    random_deltas,
    sign,
    source,
    toy_rows,
    write_lines,
)
from tests.standin import Repo, stand_in_hub
from tests.target.bases import rows_of
from tests.zoo.hub_repos import sync as sync_with

STEPS = 4
GOOD = "org/good"


class Listening:
    """Writes down what it hears; at a stage that begins with ``stop`` the interrupt key is pressed."""

    def __init__(self, stop=None):
        self.stages, self.notes, self._stop = [], [], stop

    def stage(self, message):
        self.stages.append(message)
        if self._stop is not None and message.startswith(self._stop):
            raise KeyboardInterrupt

    def step(self, done, total): ...

    def note(self, message):
        self.notes.append(message)

    def ranking(self, snapshot): ...


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("target") / "toy.jsonl", toy_rows())


@pytest.fixture(scope="module")
def hub(tmp_path_factory, base):
    """A folder of four adapters: one that was tuned for long on rows of the same task, three of noise."""
    folder = tmp_path_factory.mktemp("hub")
    rows = read_target(write_lines(folder / "rows.jsonl", toy_rows(64, seed=5)))
    tuned = tune(
        *load_base(base), rows, TuningPlan(Placement("lora", tuple(modules()), 4, 8.0), steps=60, learning_rate=2e-2, seed=11)
    )
    write_lora(folder / "hub" / GOOD, rank=4, base=BASE, tensors=tuned.tensors())
    for seed in (1, 2, 3):
        noise = {name: 0.1 * tensor for name, tensor in lora_tensors(modules(), rank=4, seed=seed, d=32).items()}
        write_lora(folder / f"hub/org/noise{seed}", rank=4, base=BASE, tensors=noise)
    return folder / "hub"


@pytest.fixture
def here(tmp_path, hub):
    """A copy of the folder, and a zoo that was synced from it."""
    shutil.copytree(hub, tmp_path / "hub")
    sync([tmp_path / "hub"], cache_dir=tmp_path / "cache")
    return tmp_path


@pytest.fixture
def run(base, here, file):
    def run(**changes):
        options = {"base": f"{BASE}={base.folder}", "steps": STEPS, "cache_dir": here / "cache", "device": "cpu"} | changes
        return search(options.pop("target", file), **options)

    return run


def names(ranking):
    return [row.source.name for row in ranking.rows]


def forbid(monkeypatch, module, name):
    def forbidden(*arguments, **options):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(module, name, forbidden)


# Rerank.


def test_rerank_orders_by_the_blend_and_leaves_the_rest(run):
    before, after = run(), run(rerank=3)
    assert set(names(after)[:3]) == set(names(before)[:3])
    assert after.rows[3].source == before.rows[3].source
    assert after.rows[3].logme is None
    assert after.rows[3].rerank_score is None
    assert [row.rank for row in after.rows] == [1, 2, 3, 4]
    first = after.rows[:3]
    scores = [row.rerank_score for row in first]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(blended([row.value for row in first], [row.logme for row in first]))


def test_the_adapter_of_the_same_task_has_the_highest_logme(run):
    rows = run(rerank=4).rows
    assert max(rows, key=lambda row: row.logme).source.name == GOOD


def test_it_is_said_that_the_order_before_reranking_is_explained(run):
    assert any("before reranking" in note for note in run(rerank=2, explain=1).notes)
    assert not any("before reranking" in note for note in run(rerank=2).notes)


def test_more_sources_can_be_reranked_than_are_shown(run):
    whole, first = run(rerank=4), run(rerank=4, top=1)
    assert first.rows == whole.rows[:1]


def test_rerank_says_what_it_costs_before_it_runs(run):
    heard = Listening()
    run(rerank=2, listener=heard)
    (cost,) = [note for note in heard.notes if note.startswith("rerank: ")]
    assert cost.startswith("rerank: 24 rows through 2 of 2 sources, as published, about ")
    assert cost.endswith("nothing to download")
    assert next(stage for stage in heard.stages if stage.startswith("rerank: ")).endswith("1 of 2")


def test_what_was_run_before_is_not_run_again(run, monkeypatch):
    first = run(rerank=3)
    forbid(monkeypatch, rerank_module, "features_of")
    heard = Listening()
    assert run(rerank=3, listener=heard).rows == first.rows
    assert not [note for note in heard.notes if note.startswith("rerank: ")]
    with pytest.raises(AssertionError, match="features_of was called"):
        run(rerank=3, reuse=False)
    with pytest.raises(AssertionError, match="features_of was called"):
        run(rerank=4)


def test_a_source_that_is_no_longer_there_stays_at_its_place(run, here):
    before = run()
    away = before.rows[1].source
    shutil.rmtree(away.location)
    after = run(rerank=3)
    assert after.rows[1].source == away
    assert after.rows[1].logme is None
    assert any("not reranked: " in warning for warning in after.rows[1].warnings)
    assert any(note.startswith(f"rerank: not done for {away.name} (") for note in after.notes)
    assert {names(after)[0], names(after)[2]} == {names(before)[0], names(before)[2]}


def test_a_source_whose_files_changed_is_not_run(run, here):
    changed = run().rows[0].source
    write_lora(here / "hub" / changed.repo, rank=4, base=BASE, tensors=lora_tensors(modules(), rank=4, seed=9, d=32))
    after = run(rerank=2)
    assert any("sync" in warning for row in after.rows if row.source == changed for warning in row.warnings)


def test_offline_a_source_of_the_hub_is_kept_with_a_clear_line(base, file, tmp_path):
    random = np.random.default_rng(0)
    with Zoo(tmp_path / "cache", create=True) as zoo:
        for i in range(3):
            zoo.put(source(f"org/far{i}").__class__(**far(i)), sign(random_deltas(random, modules())))
    heard = Listening()
    options = {"base": f"{BASE}={base.folder}", "steps": STEPS, "cache_dir": tmp_path / "cache", "device": "cpu"}
    ranking = search(file, **options, rerank=3, verify=2, offline=True, listener=heard)
    assert names(ranking) == names(search(file, **options, offline=True))
    assert ranking.verified == ()
    lines = [note for note in heard.notes if "hubrank is offline" in note]
    assert [line.partition(":")[0] for line in lines] == ["rerank", "verify"]
    assert "org/far" in lines[0]


def test_a_source_of_the_hub_is_fetched_and_its_bytes_are_said_before(base, file, tmp_path, hub, monkeypatch):
    online(monkeypatch)
    with stand_in_hub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        for folder in (hub / "org").iterdir():
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            tags = ["peft", f"base_model:adapter:{BASE}"]
            server.repos[f"org/{folder.name}"] = Repo(f"org/{folder.name}", files, tags=tags)
        with Zoo(tmp_path / "cache", create=True) as zoo:
            sync_with(zoo, server)
        heard = Listening()
        options = {"base": f"{BASE}={base.folder}", "steps": STEPS, "cache_dir": tmp_path / "cache", "device": "cpu"}
        ranking = search(file, **options, rerank=2, listener=heard)
        assert [row.logme is not None for row in ranking.rows] == [True, True, False, False]
        (cost,) = [note for note in heard.notes if note.startswith("rerank: ")]
        assert cost.endswith(" MB to download")
        asked = {path for _, path in server.requests if path.startswith("/api/models/org/")}
        assert all(f"/revision/{row.source.revision}" in "".join(asked) for row in ranking.rows[:2])
        assert not [path for path in asked if any(row.source.repo in path for row in ranking.rows[2:])]


def far(i):
    found = source(f"org/far{i}")
    return {name: getattr(found, name) for name in found.__dataclass_fields__} | {"hub": "hf"}


@pytest.mark.parametrize(("option", "number"), [("rerank", 0), ("rerank", -1), ("verify", 0), ("verify", 10_000)])
def test_a_number_out_of_range_is_refused(run, option, number):
    with pytest.raises(UsageError, match=f"--{option} {number}: give a number of sources from 1"):
        run(**{option: number})


@pytest.mark.parametrize("task", ["qa", "multiple-choice", "seq2seq", "causal-lm"])
def test_rerank_says_where_it_does_not_apply_before_anything_is_tuned(run, tmp_path, task):
    target = write_lines(tmp_path / "rows.jsonl", rows_of(task))
    heard = Listening()
    with pytest.raises(UsageError, match=f"--rerank: does not apply to {task}: .* --verify"):
        run(target=target, rerank=2, listener=heard)
    assert heard.stages == []


# Verify.


def test_verify_measures_each_start_against_scratch_of_its_shape(run):
    found = run(verify=2).verified
    sources, scratch = [one for one in found if one.source], [one for one in found if not one.source]
    assert len(sources) == 2
    assert len(scratch) == 1
    assert {one.shape for one in found} == {"lora r=4 on query, value"}
    for one in sources:
        assert (one.metric, one.seeds, one.steps) == ("accuracy", 5, STEPS)
        assert one.gain == pytest.approx(one.value - scratch[0].value)
        assert one.gain_error >= 0
        assert one.spread >= 0
    assert scratch[0].gain is None
    gains = [one.gain or 0.0 for one in found]
    assert gains == sorted(gains, reverse=True)


def test_the_adapter_of_the_same_task_is_a_gain(run, monkeypatch):
    # A random base learns nothing in a few steps at the usual rate.
    monkeypatch.setattr(verify_module, "TuningPlan", partial(TuningPlan, learning_rate=2e-2))
    found = {one.source.name: one for one in run(verify=4).verified if one.source}
    assert found[GOOD].gain == max(one.gain for one in found.values())
    assert found[GOOD].gain > 0.1


def test_verify_says_what_it_costs_and_how_it_splits(run):
    heard = Listening()
    ranking = run(verify=2, listener=heard)
    cost, split = [note for note in heard.notes if note.startswith("verify: ")]
    assert "15 runs of 4 steps each; 5-fold cross-validation, 19 rows tuned on and 5 held out in each, about" in cost
    assert split == "verify: 5-fold cross-validation, 19 rows tuned on and 5 held out in each"
    assert split in ranking.notes


def test_what_was_measured_before_is_not_measured_again(run, monkeypatch, here):
    first = run(verify=2)
    shutil.rmtree(here / "hub")
    forbid(monkeypatch, verify_module, "tune")
    assert run(verify=2).verified == first.verified
    assert [one.source for one in run(verify=1).verified if one.source] == [first.rows[0].source]


def test_an_interrupt_leaves_the_ranking_and_whole_folds(run, monkeypatch):
    with pytest.raises(SearchInterrupted) as stop:
        run(verify=2, listener=Listening("verify: fold 3"))
    ranking = stop.value.ranking
    assert names(ranking) == names(run())
    assert {one.seeds for one in ranking.verified} == {2}
    assert str(stop.value) == "measuring stopped after 2 of 5 folds"
    calls = []
    monkeypatch.setattr(verify_module, "tune", lambda *a, **k: calls.append(1) or tune(*a, **k))
    assert {one.seeds for one in run(verify=2).verified} == {5}
    assert len(calls) == 9


def test_an_interrupt_while_reranking_leaves_the_estimators_order(run):
    with pytest.raises(SearchInterrupted) as stop:
        run(rerank=3, verify=1, listener=Listening("rerank: running 24 rows through org/noise"))
    ranking = stop.value.ranking
    assert names(ranking) == names(run())
    assert all(row.rerank_score is None for row in ranking.rows)
    assert ranking.verified == ()


def test_rows_that_cannot_be_held_out_leave_the_ranking(run, tmp_path):
    target = write_lines(tmp_path / "rows.jsonl", [{"text": "w1 w2", "label": "ab"[i % 2]} for i in range(12)])
    ranking = run(target=target, verify=1)
    assert ranking.verified == ()
    assert len(ranking.rows) == 4
    assert any("none can be held out" in note for note in ranking.notes)


@pytest.mark.parametrize("task", ["tagging", "qa", "multiple-choice", "multi-label", "regression"])
def test_verify_works_for_every_task_of_an_encoder(run, tmp_path, task):
    target = write_lines(tmp_path / "rows.jsonl", rows_of(task))
    found = run(target=target, verify=1, steps=1).verified
    assert len(found) == 2
    assert all(np.isfinite(one.value) for one in found)


def test_the_config_of_a_stranger_is_never_given_to_a_library(run, here, monkeypatch):
    import peft

    for config in (here / "hub").rglob("adapter_config.json"):
        fields = json.loads(config.read_text()) | {"auto_mapping": {"parent_library": "os"}, "target_modules": "(a+)+$"}
        config.write_text(json.dumps(fields))
    sync([here / "hub"], cache_dir=here / "cache")
    monkeypatch.setattr(peft.PeftConfig, "from_pretrained", None)
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", None)
    ranking = run(rerank=4, verify=1, steps=1)
    assert all(row.logme is not None for row in ranking.rows)
