"""The shipped ranking on matrices that nothing was chosen on: made targets of the committed sources, without a model."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

REPOSITORY = Path(__file__).parents[2]
FOLDERS = [str(REPOSITORY / "bench"), str(REPOSITORY / "bench" / "transfer")]


@pytest.fixture(scope="module")
def scripts():
    before, paths = set(sys.modules), list(sys.path)
    sys.path[1:1] = FOLDERS
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("unchosen", "plan", "qa")})
    sys.path[:] = paths
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(tuple(FOLDERS)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def folder(scripts, tmp_path_factory):
    """Targets that are noisy copies of two sources, one of them tuned twice, and rows by which those transfer best."""
    here, random = tmp_path_factory.mktemp("unchosen"), np.random.default_rng(0)
    (here / "qa").mkdir()
    rows = []
    for number, source in enumerate(scripts.plan.QA[:2]):
        published = load_file(REPOSITORY / "bench/transfer/sources/qa" / source.name / "adapter_model.safetensors")
        for seed in range(number + 1):
            noisy = {
                name: (value + random.normal(0, 0.5 * value.std(), value.shape)).astype(np.float32)
                for name, value in published.items()
            }
            save_file(noisy, here / "qa" / f"{source.task}-75-{seed}.safetensors", {"config": json.dumps({"seconds": 1.0})})
        shared = {"method": "qa", "set": "qa", "target": source.task, "rows": 200, "metric": "f1"}
        for seed in (0, 1):
            rows.append(shared | {"seed": seed, "source": None, "value": 0.2})
            for other in scripts.plan.QA:
                kin, value = scripts.plan.kinship(other.task, source.task), 0.8 if other is source else 0.4
                rows.append(shared | {"seed": seed, "source": other.name, "kin": kin, "value": value})
    (here / "rows-qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


def test_spans_are_ranked_without_the_rows_having_a_say(scripts, folder, monkeypatch):
    monkeypatch.setattr(scripts.unchosen, "MATRICES", tuple(m for m in scripts.unchosen.MATRICES if m.name == "qa"))
    places = [f"--{name}={folder / 'qa'}" for name in ("data", "held-out", "large", "qa")]
    more = [f"--transfer={folder}", f"--work={folder / 'work'}", f"--out={folder / 'out.json'}"]
    monkeypatch.setattr(sys, "argv", ["unchosen.py", *places, *more])
    scripts.unchosen.main()
    found = json.loads((folder / "out.json").read_text())["qa"]
    assert found["targets"] == {
        source.task: {"transfer_seeds": 2, "tuned_seeds": number + 1} for number, source in enumerate(scripts.plan.QA[:2])
    }
    lines = found["all sources"]
    assert "first-order LogME" not in lines
    for name in ("four-views", "three-views"):
        assert lines[name]["regret@1"] == [0, 0, 0]
        assert lines[name]["gain"] == [60, 60, 60]
    assert lines["chance"]["regret@1"] == pytest.approx([50 * 7 / 8] * 3, abs=0.01)
    assert lines["chance"]["by target"].keys() == found["targets"].keys()
    assert lines["no transfer"]["regret@3"] is None
    assert found["without kin"]["four-views"]["regret@1"][0] == 0


def test_every_matrix_is_in_the_plan_and_none_was_chosen_on(scripts):
    runs = scripts.plan.all_runs()
    planned = {(run.shape.method, run.group, run.rows) for run in runs}
    assert {(m.method, m.group, m.rows) for m in scripts.unchosen.MATRICES} <= planned
    chosen_on = {run.target for run in runs if run.group in ("first", "second", "bottleneck") and run.rows == 200}
    assert not chosen_on & set(scripts.plan.HELD_OUT)
    assert not chosen_on & set(scripts.plan.QA_TASKS)


def test_question_answering_rows_are_a_target_that_search_takes(scripts):
    targets = importlib.import_module("targets")
    row = {"question": "Which number?", "context": "Number 7.", "answers": {"text": ["7"], "answer_start": [7]}, "text": "x"}
    found = targets.spans(tuple(row | {"question": f"Which number has box {i}?"} for i in range(8)))
    assert (found.task, len(found)) == ("qa", 8)
