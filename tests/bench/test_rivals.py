"""The script of rivals and the export of a matrix, without a model: which rows and sources count, and what is kept."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hubrank.benchmark.judge import Cost
from hubrank.benchmark.rivals import Ranked, SourceArrays
from hubrank.target.task import Target

REPOSITORY = Path(__file__).parents[2]
FOLDERS = [str(REPOSITORY / "bench" / "transfer"), str(REPOSITORY / "bench")]


@pytest.fixture(scope="module")
def bench():
    """The scripts as modules; they import each other by name, as scripts in one folder do."""
    before, paths = set(sys.modules), list(sys.path)
    sys.path[:0] = FOLDERS
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("rivals", "rival_arrays", "export")})
    sys.path[:] = paths
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and sys.modules[name].__file__.startswith(tuple(FOLDERS)):
            del sys.modules[name]


def row(source, target, *, group="first", rows=200, method="lora", value=0.5):
    return {"source": source, "target": target, "value": value, "set": group, "rows": rows, "method": method,
            "source_task": source and "cb"}  # fmt: skip


def test_one_matrix_is_read_and_an_unfinished_line_is_left_out(bench, tmp_path):
    rows = [row("a", "t"), row("b", "t", group="second"), row("a", "u", rows=1000), row(None, "t", value=0.1)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows) + '{"source": "c", "tar')
    found = bench.rivals.read_rows(file, "first", 200)
    assert (found.sources, [target.name for target in found.targets]) == (("a",), ["t"])
    assert found.targets[0].scratch.tolist() == [0.1]


def test_an_export_has_whole_targets_of_one_set_with_their_no_transfer_rows(bench):
    rows = [row(name, target) for target in ("t", "u") for name in "abcde" if target == "t" or name < "d"]
    rows += [row("z", "t", group="second"), row("a", "t", rows=1000), row("a", "t", method="qa")]
    rows += [row(None, "t"), row(None, "u")]
    found = bench.export.chosen(rows, "first")
    assert [(one["source"], one["target"]) for one in found] == [*((name, "t") for name in "abcde"), (None, "t")]
    assert bench.export.described(found[0], {"cb": 7}) == found[0] | {"source_rows": 7, "source_family": "NLI"}
    assert bench.export.described(found[-1], {}) == found[-1]


def test_what_only_some_sources_have_is_no_ranking(bench):
    full = SourceArrays(
        logme={"t": 1.0, "u": 2.0}, h_score={"t": 1.0, "u": 2.0}, esm=(np.ones((2, 2)), np.ones(2)), delta=np.ones(2)
    )
    half = SourceArrays(logme={"t": 3.0}, h_score={"t": 3.0}, delta=np.ones(2))
    one, two = bench.rivals.whole_only([full, half])
    assert (one.logme, two.logme, one.h_score) == ({"t": 1.0}, {"t": 3.0}, {"t": 1.0})
    assert one.esm is None
    assert one.delta is not None


def test_values_are_told_by_target_and_source_and_are_json(bench):
    ranked = Ranked("x", {"t": [np.array([1.0, np.nan]), np.array([2.0, 3.0])]}, Cost(seconds=float("nan"), bytes=1.5), "")
    told = bench.rivals.values_of(ranked, ["a", "b"])
    assert told == {"t": {"a": [1.0, 2.0], "b": [None, 3.0]}}
    assert bench.rivals.briefly({"x": told, "x, strangers at 0": told}) == {"x": {"any target": told["t"]}}
    assert bench.rivals.briefly({"x": told | {"u": {}}}) == {"x": told | {"u": {}}}
    whole = {"values": {"x": told}, "sources": ["a", "b"], "note": None}
    assert json.loads(bench.rivals.as_json(whole)) == whole
    assert '"t": {"a":[1.0,2.0],"b":[null,3.0]}' in bench.rivals.as_json(whole)
    assert bench.rivals.costs(ranked.cost)["seconds"] is None
    json.dumps(bench.rivals.costs(ranked.cost), allow_nan=False)


def test_arrays_are_computed_once_and_never_with_cached(bench, tmp_path):
    places = {"zoo": tmp_path, "trained": tmp_path, "targets": tmp_path}
    shop = bench.rival_arrays.Workshop(tmp_path, tmp_path / "work", **places)
    counted = []

    def compute():
        counted.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):
        found = shop._kept("part/one", compute)
        assert found["x"].tolist() == [0, 1, 2]
        assert found["seconds"] >= 0
    assert counted == [1]
    closed = bench.rival_arrays.Workshop(tmp_path, tmp_path / "work", compute=False, **places)
    assert closed._kept("part/one", compute)["x"].tolist() == [0, 1, 2]
    assert closed._kept("part/two", compute) is None
    assert counted == [1]


def test_halves_keep_the_classes_and_numbers_are_standardised(bench):
    rows = Target("t", "", "classification", ("a", "b", "c"), None, (0, 1, 1), ("x", "y"))
    half = bench.rival_arrays.subset(rows, slice(1, 3))
    assert (half.texts, half.labels, half.classes) == (("b", "c"), (1, 1), ("x", "y"))
    numbers = Target("t", "", "regression", ("a", "b"), None, (1.0, 3.0), ())
    np.testing.assert_allclose(bench.rival_arrays.labels_of(numbers), [-1, 1])
