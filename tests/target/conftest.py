"""Bases of every kind, made once a module, and a target of every task."""

from __future__ import annotations

import pytest

from hubrank.target.rows import read_target
from tests.ranking.builders import write_lines
from tests.target.bases import TASKS, make_kind, rows_of


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    made = {}

    def base(kind):
        if kind not in made:
            made[kind] = make_kind(kind, tmp_path_factory.mktemp("bases") / kind)
        return made[kind]

    return base


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    return {task: read_target(write_lines(folder / f"{task}.jsonl", rows_of(task)), task=task) for task in TASKS}
