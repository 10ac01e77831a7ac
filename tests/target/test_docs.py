"""docs/targets.md shows rows that are what it says they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hubrank.target.rows import read_target
from hubrank.target.task import TASKS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/targets.md").read_text("utf-8")
SECTIONS = re.findall(r"^### (\S+)\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES = [(task, block) for task, body in SECTIONS for block in re.findall(r"```jsonl\n(.*?)```", body, re.DOTALL)]


def test_every_task_has_an_example():
    assert {task for task, _ in EXAMPLES} == set(TASKS)


@pytest.mark.parametrize(("task", "block"), EXAMPLES, ids=[task for task, _ in EXAMPLES])
def test_the_examples_are_what_they_say(tmp_path, task, block):
    rows = [json.loads(line) for line in block.splitlines()]
    file = tmp_path / "example.jsonl"
    # The same few rows over and over: a page should not need eight of them.
    file.write_text(block * 8, "utf-8")
    target = read_target(file)
    assert (target.task, len(target), target.notes) == (task, 8 * len(rows), ())


def test_the_library_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "docs/targets.md", "exec"), {})  # our own page
    assert capsys.readouterr().out.startswith("classification 231 (")
