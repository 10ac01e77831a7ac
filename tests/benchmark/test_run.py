"""A user's own measured transfer judged from files to report, on a tiny random base and a folder of adapters."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from hubrank import bench
from hubrank.benchmark.facts import BenchSettings
from hubrank.errors import EmptyZooError, HubError, InputError, UsageError
from hubrank.ranking.estimators import ESTIMATORS
from hubrank.report.benchmark import bench_value
from hubrank.target.base import load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, tune
from tests.benchmark.builders import row, write_rows
from tests.builders import write_lora
from tests.ranking.builders import BASE, HIDDEN, make_base, modules, one_thread, toy_rows, write_lines

STEPS = 8
SOURCES = ("twin", "a0", "a1", "a2", "a3")


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


@pytest.fixture(scope="module")
def place(tmp_path_factory, base):
    """A folder with adapters, rows of two targets, rows of the sources' tasks, and transfer in which the twin is best.

    The twin is the very adapter that tuning on the first target makes.
    """
    folder = tmp_path_factory.mktemp("bench")
    for directory in ("rows", "own"):
        (folder / directory).mkdir()
    file = write_lines(folder / "rows" / "one.jsonl", toy_rows())
    write_lines(folder / "rows" / "two.jsonl", toy_rows(seed=5))
    tuned = tune(*load_base(base), read_target(file), TuningPlan(Placement("lora", tuple(modules()), 4, 8.0), steps=STEPS))
    for i, name in enumerate(SOURCES):
        write_lora(folder / "zoo" / "org" / name, sites=modules(), rank=4, seed=i, d=HIDDEN, base=BASE)
        write_lines(folder / "own" / f"{name}.jsonl", toy_rows(seed=10 + i))
    tensors = {name: np.ascontiguousarray(value) for name, value in tuned.tensors().items()}
    save_file(tensors, folder / "zoo" / "org" / "twin" / "adapter_model.safetensors", metadata={"format": "pt"})
    rows = [
        row(name, target, 0.9 if name == "twin" else 0.4 + 0.01 * i + 0.001 * seed, seed=seed, kin="x" * (name == "a3"))
        for target in ("one", "two")
        for i, name in enumerate(SOURCES)
        for seed in (0, 1)
    ]
    rows += [row(None, target, 0.5, seed=0) for target in ("one", "two")]
    write_rows(folder / "transfer.jsonl", [*rows, row("stranger", "one", 0.99, seed=0), row("stranger", "one", 0.99, seed=1)])
    return folder


@pytest.fixture
def run(place, base):
    def run(**changes):
        options = {
            "zoo": place / "zoo",
            "targets": place / "rows",
            "base": f"{BASE}={base.folder}",
            "steps": STEPS,
            "device": "cpu",
            "cache_dir": place / "cache",
            "early": False,
        } | changes
        return bench(options.pop("transfer", place / "transfer.jsonl"), **options)

    return run


def line(report, name):
    return next(one for one in report.lines if one.name == name)


def test_the_whole_way(run):
    report = run()
    assert (report.base, report.methods, report.matched, report.sources) == (BASE, ("lora",), 5, 6)
    assert report.unmatched == (("stranger", "not in the zoo"),)
    assert [(t.name, t.sources, t.seeds, t.best) for t in report.targets] == [("one", 5, 2, "twin"), ("two", 5, 2, "twin")]
    assert report.targets[0].no_transfer == pytest.approx(0.5)
    assert {one.name for one in report.lines if one.kind == "estimator"} == set(ESTIMATORS)
    ours = line(report, "four-views")
    assert ours.default
    by_weights = line(report, "three-views")
    assert by_weights.per_target["one"]["regret@1"] == 0  # the twin of the target is found whatever else there is
    assert by_weights.per_target["one"]["gain"] == pytest.approx(0.4)
    assert (ours.cost.tunes, ours.cost.passes) == (True, 0)
    assert ours.cost.tuning_seconds > 0
    assert ours.cost.bytes > 0
    assert line(report, "no transfer").figures["regret@1"].mean == pytest.approx(0.4 / 0.9)
    assert line(report, "noise ceiling").figures["regret@1"].mean == 0
    assert line(report, "source prior, leave one target out").figures["regret@1"].mean == 0
    assert line(report, "chance").per_target["one"]["regret@1"] > 0.3
    told = {one["ranking"]: one["minus_default"] for one in bench_value(report)["rankings"]}
    assert told["four-views"] is None
    assert told["chance"]["regret@1"]["mean"] == pytest.approx(
        line(report, "chance").figures["regret@1"].mean - ours.figures["regret@1"].mean, abs=1e-5
    )


def test_a_target_that_was_tuned_is_not_tuned_again_and_the_figures_stay(run):
    first, second = run(estimators=("four-views",)), run(estimators=("four-views",))
    assert [one.name for one in second.lines if one.kind == "estimator"] == ["four-views"]
    assert first.lines[-1].per_target == second.lines[-1].per_target
    assert first.lines[-1].cost.tuning_seconds == second.lines[-1].cost.tuning_seconds


def test_rivals_are_judged_as_far_as_their_inputs_are_there(run, place):
    report = run(rivals=True, targets=place / "rows")
    named = {one.name for one in report.lines if one.kind == "rival"}
    assert {"flattened A and B", "LogME", "H-score", "Delta Activations"} <= named
    assert {"TextEmb", "ESM-LogME", "few-shot tuning", "data size"} <= {name for name, _ in report.left_out}
    # The twin has the target's own A and B, and moves activations as it does.
    for name in ("flattened A and B", "Delta Activations"):
        assert line(report, name).per_target["one"]["regret@1"] == pytest.approx(0, abs=1e-12)
    whole = run(rivals=True, source_rows=place / "own")
    assert {"TextEmb", "TaskEmb", "Task2Vec", "ESM-LogME"} <= {one.name for one in whole.lines}


def test_kin_may_be_left_out(run):
    report = run(kin=False, targets=None)
    assert {target.sources for target in report.targets} == {4}
    assert not report.kin


def test_without_rows_only_what_looks_at_no_target_is_judged(run):
    report = run(targets=None)
    assert {one.kind for one in report.lines} == {"reference"}
    assert any("no --targets" in note for note in report.notes)


def test_the_order_of_the_lines_changes_nothing(run, place, tmp_path):
    lines = (place / "transfer.jsonl").read_text("utf-8").splitlines()
    order = np.random.default_rng(0).permutation(len(lines))
    file = tmp_path / "transfer.jsonl"
    file.write_text("".join(lines[i] + "\n" for i in order), "utf-8")
    one, two = run(targets=None), run(targets=None, transfer=file)
    assert bench_value(replace(one, seconds=0, transfer="")) == bench_value(replace(two, seconds=0, transfer=""))


def test_a_target_without_a_file_and_one_with_few_sources_are_left_out_and_told(run, place, tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "two.jsonl").write_bytes((place / "rows" / "two.jsonl").read_bytes())
    report = run(targets=tmp_path / "rows")
    assert [target.name for target in report.targets] == ["two"]
    assert any("no file of rows: one" in note for note in report.notes)
    rows = [json.loads(text) for text in (place / "transfer.jsonl").read_text("utf-8").splitlines()]
    file = write_rows(tmp_path / "few.jsonl", [*rows, row("twin", "three", 0.5)])
    assert any("three (1)" in note for note in run(targets=None, transfer=file).notes)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"estimators": ("best",)}, UsageError, r"--estimator best: unknown; there is"),
        ({"least": 1}, UsageError, "--least 1: give a number from 2"),
        ({"repeats": 0}, UsageError, "--repeats 0"),
        ({"source_rows": "own"}, UsageError, "say --rivals too"),
        ({"where": ("rows",)}, UsageError, "give FIELD=VALUE"),
        ({"base": "another/base"}, UsageError, r"--base another/base: the measured sources are for tiny/bert"),
        ({"targets": "nowhere"}, InputError, "nowhere: no such folder; --targets takes"),
        ({"zoo": "nowhere"}, HubError, "nowhere"),
        ({"least": 6}, InputError, "no target has 6 measured sources"),
        ({"rivals": True, "source_rows": "nowhere"}, InputError, "--source-rows takes"),
    ],
)
def test_what_is_refused(run, changes, error, said):
    with pytest.raises(error, match=said) as caught:
        run(**changes)
    assert "\n" not in str(caught.value)


def test_a_zoo_that_has_none_of_the_sources_or_none_at_all_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyZooError, match="holds no adapter that can be read"):
        run(zoo=tmp_path / "empty")
    file = write_rows(tmp_path / "t.jsonl", [row("x", "one", 0.5)])
    with pytest.raises(InputError, match=r"none of its 1 sources is in .*, such as x \(not in the zoo\)"):
        run(transfer=file)
    (tmp_path / "rows").mkdir()
    with pytest.raises(InputError, match=r"holds no file of rows for any target, such as one\.jsonl"):
        run(targets=tmp_path / "rows")


def test_settings_are_the_functions_own(run):
    assert BenchSettings().least == 3
    with pytest.raises(TypeError):
        run(nonsense=1)
