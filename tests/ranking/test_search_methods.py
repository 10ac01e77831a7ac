"""A zoo of several methods: each tuned from a fresh base, one list, repeats, the cache, budgets and interrupts."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from hubrank.errors import BaseModelError, EmptyZooError
from hubrank.ranking import runs
from hubrank.ranking import search as searching
from hubrank.ranking.search import search
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, tune
from hubrank.zoo.store import Zoo
from tests.ranking.builders import BASE, make_base, modules, one_thread, source, toy_rows, write_lines

STEPS = 6
PLACEMENTS = {
    "lora": Placement("lora", tuple(modules()), 4, 8.0),
    "bottleneck": Placement("bottleneck", size=4, variant="seq_bn"),
    "bias": Placement("bias", tuple(f"{name}.bias" for name in modules())),
}
COUNTS = {"lora": 10, "bottleneck": 9, "bias": 8, "ia3": 2}


class Listening:
    def __init__(self, stop_at=None):
        self.stages, self.notes, self.snapshots, self._stop_at = [], [], [], stop_at

    def stage(self, message):
        self.stages.append(message)
        if self._stop_at is not None and self._stop_at in message:
            raise KeyboardInterrupt

    def step(self, done, total): ...

    def note(self, message):
        self.notes.append(message)

    def ranking(self, snapshot):
        self.snapshots.append(snapshot)


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
def zoo_folder(tmp_path_factory, base):
    """Sources tuned on other rows with other seeds, by every method."""
    folder = tmp_path_factory.mktemp("zoo") / "cache"
    places = {**PLACEMENTS, "ia3": Placement("ia3", tuple(modules()))}
    with Zoo(folder, create=True) as zoo:
        for method, count in COUNTS.items():
            for i in range(count):
                rows = toy_rows(12, seed=100 + i)
                target = read_target(write_lines(folder.parent / "rows.jsonl", rows))
                tuned = tune(*load_base(base), target, TuningPlan(places[method], steps=2, seed=50 + i))
                adapter = tuned.attached.adapter(BASE)
                found = source(f"org/{method}{i:02}", rank=4, method=method)
                zoo.put(replace(found, variant=adapter.variant), sign_adapter(adapter))
    return folder


@pytest.fixture
def cache(zoo_folder, tmp_path):
    return shutil.copytree(zoo_folder, tmp_path / "cache")


@pytest.fixture
def run(base, cache, file):
    def run(**changes):
        options = {"base": f"{BASE}={base.folder}", "steps": STEPS, "cache_dir": cache, "device": "cpu", "top": None}
        return search(file, **(options | changes))

    return run


def names(ranking):
    return [row.source.name for row in ranking.rows]


def test_every_method_with_enough_sources_is_in_one_list(run):
    listener = Listening()
    ranking = run(listener=listener)
    assert ranking.methods == ("lora", "bottleneck", "bias")
    assert (ranking.compared, ranking.skipped) == (27, {"other method": 2})
    assert "too few sources for a scale, left out: ia3 (2); --method takes them in" in ranking.notes
    assert {row.source.method for row in ranking.rows} == {"lora", "bottleneck", "bias"}
    scores = [row.score for row in ranking.rows]
    assert scores == sorted(scores, reverse=True)
    assert [row.rank for row in ranking.rows] == list(range(1, 28))
    assert [(one.method, one.steps, one.stopped, one.cached) for one in ranking.runs] == [
        (method, STEPS, "steps", False) for method in ranking.methods
    ]
    assert [one.sources for one in ranking.runs] == [10, 9, 8]
    assert ranking.target.steps == 3 * STEPS
    assert {(one.method, one.step) for one in listener.snapshots} == {(m, s) for m in ranking.methods for s in (5, 6)}


def test_the_order_within_a_method_is_that_of_the_method_alone(run):
    together = run()
    for method in together.methods:
        alone = run(methods=(method,))
        assert alone.methods == (method,)
        assert names(alone) == [row.source.name for row in together.rows if row.source.method == method]


def test_a_method_whose_sources_an_older_hubrank_read_is_left_out(run, cache):
    with Zoo(cache) as zoo:
        for kept in zoo.sources(method="bottleneck"):
            zoo.put(replace(kept, repo=f"{kept.repo}-prompt", method="prompt", reader=2), zoo.signature(kept))
    ranking = run()
    assert ranking.methods == ("lora", "bottleneck", "bias")
    assert any(note.startswith("prompt is left out: the zoo's prompt sources") for note in ranking.notes)
    with pytest.raises(EmptyZooError, match=r"`hubrank sync` reads them again"):
        run(methods=("prompt",))


def test_methods_by_name_even_with_few_sources(run):
    ranking = run(methods=("ia3", "lora"))
    assert ranking.methods == ("lora", "ia3")
    assert [row.source.method for row in ranking.rows[-2:]] == ["ia3", "ia3"]
    assert ranking.rows[-1].score is None
    assert any("too few ia3 sources for a common scale" in note for note in ranking.notes)


def test_a_target_tuned_before_is_not_tuned_again(run, monkeypatch):
    first = run()
    monkeypatch.setattr(runs, "tune", lambda *args, **kwargs: pytest.fail("tuned again"))
    again = run()
    assert all(one.cached for one in again.runs)
    assert again.rows == first.rows
    assert again.verdict == first.verdict
    assert again.target.seconds == 0.0
    for change in ({"seed": 1}, {"steps": 7}, {"early": False}, {"reuse": False}):
        with pytest.raises(pytest.fail.Exception, match="tuned again"):
            run(**change)


def test_what_was_tuned_before_is_found_without_the_base(run, cache, monkeypatch):
    """Loading it, and the libraries for it, takes longer than all the rest."""
    first = run()
    loaded = []
    monkeypatch.setattr(runs, "load_base", lambda *args, **kwargs: pytest.fail("the base is loaded"))
    monkeypatch.setattr(searching, "import_peft", lambda: loaded.append("peft"))
    listener = Listening()
    again = run(listener=listener)
    assert (loaded, all(one.cached for one in again.runs)) == ([], True)
    assert again.rows == first.rows
    assert not any("loading" in stage for stage in listener.stages)
    for entry in (cache / "placed").iterdir():
        entry.write_bytes(b'{"placement": 3}')
    with pytest.raises(pytest.fail.Exception, match="the base is loaded"):
        run()
    assert loaded == ["peft"]


def test_an_interrupted_run_does_not_count_as_tuned(run, cache):
    with pytest.raises(KeyboardInterrupt):
        run(methods=("lora",), listener=Listening(stop_at="tuning lora"))
    assert not (cache / "placed").exists()
    run(methods=("lora",), budget=1e-6)
    assert not (cache / "placed").exists()


def test_where_the_zoo_is_tuned_elsewhere_a_target_is_tuned_anew(run, cache):
    """The placement that was kept is of another zoo."""
    run(methods=("lora",))
    with Zoo(cache) as zoo:
        for one in [one for one in zoo.sources() if one.method == "lora"]:
            zoo.put(replace(one, rank=2), zoo.signature(one))
    assert [one.cached for one in run(methods=("lora",)).runs] == [False]


def test_another_base_of_the_same_name_is_tuned_anew(run, base, tmp_path):
    run(methods=("lora",))
    other = shutil.copytree(base.folder, tmp_path / "other")
    assert [one.cached for one in run(methods=("lora",), base=f"{BASE}={other}").runs] == [True]
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    assert [one.cached for one in run(methods=("lora",), base=f"{BASE}={other}").runs] == [False]


def test_in_another_zoo_a_target_keeps_its_run_if_it_is_tuned_at_the_same_place(run, cache, monkeypatch):
    first = run(methods=("lora",))
    with Zoo(cache) as zoo:
        one = next(one for one in zoo.sources() if one.method == "lora")
        zoo.put(source("org/another", rank=4, method="lora"), zoo.signature(one))
    monkeypatch.setattr(runs, "tune", lambda *args, **kwargs: pytest.fail("tuned again"))
    again = run(methods=("lora",))
    assert len(again.rows) == len(first.rows) + 1
    assert [one.cached for one in again.runs] == [True]
    monkeypatch.setattr(runs, "load_base", lambda *args, **kwargs: pytest.fail("the base is loaded"))
    run(methods=("lora",))


def test_damaged_entries_are_tuned_again(run, cache):
    first = run()
    for entry in (cache / "tuned").iterdir():
        entry.write_bytes(b"{}")
    again = run()
    assert not any(one.cached for one in again.runs)
    assert again.rows == first.rows


def test_an_interrupt_keeps_the_methods_that_were_finished(run):
    with pytest.raises(KeyboardInterrupt):
        run(listener=Listening(stop_at="tuning bias"))
    resumed = run()
    assert [(one.method, one.cached) for one in resumed.runs] == [("lora", True), ("bottleneck", True), ("bias", False)]
    assert resumed.rows == run(reuse=False).rows


def test_repeats_give_every_place_an_interval(run):
    ranking = run(repeats=3, methods=("lora",))
    assert [one.seed for one in ranking.runs] == [0, 1, 2]
    alone = [names(run(seed=seed, methods=("lora",))) for seed in (0, 1, 2)]
    for row in ranking.rows:
        places = [order.index(row.source.name) + 1 for order in alone]
        assert row.interval == (min(places), max(places))
    assert run(methods=("lora",)).rows[0].interval is None


def test_the_time_may_be_up(run, cache):
    ranking = run(budget=1e-6, methods=("lora",))
    assert [(one.steps, one.stopped) for one in ranking.runs] == [(1, "budget")]
    assert f"lora: the time was up after 1 of {STEPS} steps" in ranking.notes
    # It is no answer to a search with more time.
    assert [(one.steps, one.cached) for one in run(methods=("lora",)).runs] == [(STEPS, False)]


def test_a_run_stops_where_the_ranking_stands(run):
    early, full = run(steps=200, methods=("lora",)), run(steps=200, methods=("lora",), early=False)
    assert (early.runs[0].stopped, full.runs[0].stopped) == ("stable", "steps")
    assert 20 <= early.runs[0].steps < 200
    assert early.runs[0].steps % 5 == 0
    assert early.runs[0].overlap >= 0.9
    assert full.runs[0].steps == 200


def test_a_method_that_the_base_cannot_take_is_left_out_unless_it_was_asked_for(run, monkeypatch):
    from hubrank.target.methods import adapters_library

    def refuse(*args):
        raise BaseModelError("the adapters library cannot take it")

    monkeypatch.setattr(adapters_library, "attach", refuse)
    ranking = run()
    assert ranking.methods == ("lora", "bias")
    assert "bottleneck is left out: the adapters library cannot take it" in ranking.notes
    with pytest.raises(BaseModelError, match="cannot take it"):
        run(methods=("bottleneck", "lora"))


def test_a_label_seen_once(run, tmp_path, base, cache):
    rows = [*toy_rows(), {"text": "w30 w31", "label": "once"}]
    file = write_lines(tmp_path / "once.jsonl", rows)
    ranking = search(file, base=f"{BASE}={base.folder}", steps=2, cache_dir=cache, device="cpu", methods=("lora",))
    assert ranking.target.labels == 3
    assert np.isfinite([row.value for row in ranking.rows]).all()
