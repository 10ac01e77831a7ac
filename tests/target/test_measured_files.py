"""Figures come back as they were kept, and nothing else does."""

from __future__ import annotations

import json

import pytest

from hubrank.target import measured_files
from hubrank.target.measured_files import Measured, measured_key, read_measured, source_facts, write_measured
from hubrank.target.methods import Placement
from tests.builders import make_source

KEY = "a" * 40
FOUND = Measured(0.5, 1.25, Placement("lora", ("a.b", "a.c"), 4, 8.0, left_out=(1,)), ("warned",))


def test_a_figure_comes_back(tmp_path):
    write_measured(tmp_path, KEY, FOUND)
    assert read_measured(tmp_path, KEY) == FOUND


def test_there_is_none_before(tmp_path):
    assert read_measured(tmp_path, KEY) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: {**fields, "key": "b" * 40},
        lambda fields: {**fields, "value": "NaN"},
        lambda fields: {**fields, "seconds": -1},
        lambda fields: {**fields, "placement": {"method": "lora", "evil": 1}},
        lambda fields: {**fields, "placement": 7},
        lambda fields: [fields],
    ],
)
def test_a_file_that_is_not_what_it_says_is_measured_again(tmp_path, change):
    write_measured(tmp_path, KEY, FOUND)
    file = tmp_path / "measured" / f"{KEY}.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert read_measured(tmp_path, KEY) is None


def test_everything_that_decides_a_figure_changes_its_name():
    facts = {"target": "t", "base": "b", "source": source_facts(make_source()), "settings": {"steps": 3}}
    names = {measured_key("logme", **facts), measured_key("verify", **facts)}
    for changed in (
        {"target": "u"},
        {"base": "c"},
        {"source": None},
        {"source": source_facts(make_source(revision="b" * 40))},
        {"settings": {"steps": 4}},
    ):
        names.add(measured_key("logme", **{**facts, **changed}))
    assert len(names) == 7


def test_very_many_are_pruned_the_oldest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(measured_files, "_MOST_FILES", 4)
    monkeypatch.setattr(measured_files, "_SPARE", 2)
    import os

    for i in range(5):
        key = str(i) * 40
        write_measured(tmp_path, key, FOUND)
        os.utime(tmp_path / "measured" / f"{key}.json", (i, i))
    write_measured(tmp_path, "f" * 40, FOUND)
    left = {file.stem[0] for file in (tmp_path / "measured").glob("*.json")}
    assert "f" in left
    assert "0" not in left
