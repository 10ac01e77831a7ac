"""What was understood of a target in every format; nothing in a file acts on a terminal, a page or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from hubrank.report.target import target_csv, target_json, target_markdown, target_table
from hubrank.target.rows import examine_target
from hubrank.target.summary import summarise
from tests.ranking.builders import write_lines
from tests.target.test_tasks import ALL, several

PROMISED = {"task", "rows", "fields", "labels", "lengths", "duplicates", "problems"}
EVIL = ["=HYPERLINK(1)", "[red]x[/red]", "\x1b[2J\x1b]0;x\x07", "<script>|`a`|", "\u202eabc", "+1\n@x", "\ud800"]


def summary_of(folder, rows):
    return summarise(examine_target(write_lines(folder / "t.jsonl", rows)))


def shown(summary):
    out = io.StringIO()
    console = Console(file=out, width=120, markup=False, highlight=False, emoji=False, force_terminal=False)
    for part in target_table(summary, unicode=False):
        console.print(part)
    return out.getvalue()


@pytest.mark.parametrize("task", ALL)
def test_the_promised_json(tmp_path, task):
    value = json.loads(target_json(summary_of(tmp_path, several(ALL[task]))))
    assert set(value) >= PROMISED
    assert (value["task"], value["rows"], value["usable"], len(value["sha256"])) == (task, 8, True, 64)
    for length in value["lengths"].values():
        assert set(length) == {"unit", "min", "p25", "median", "p75", "p95", "max"}
    assert all(set(label) == {"label", "count"} for label in value["labels"])


def test_problems_in_json_and_in_the_table(tmp_path):
    rows = several(ALL["classification"], 10)
    rows[3]["label"] = None
    summary = summary_of(tmp_path, rows)
    value = json.loads(target_json(summary))
    problem = {"line": 4, "message": '"label" is a null; a string or a number is expected', "level": "error"}
    assert (value["problems"], value["usable"], value["rows"]) == ([problem], False, 9)
    assert 'error: line 4: "label" is a null' in shown(summary)
    assert "error,4," in target_csv(summary)
    assert "| error | 4 |" in target_markdown(summary)


def test_a_file_that_is_not_understood(tmp_path):
    summary = summary_of(tmp_path, [{"headline": "a"}] * 8)
    value = json.loads(target_json(summary))
    assert (value["task"], value["rows"], value["labels"], value["sha256"]) == (None, 0, [], None)
    assert "not understood" in shown(summary)
    assert "not understood" in target_csv(summary)
    assert "not understood" in target_markdown(summary)


def test_what_is_in_a_file_stays_text(tmp_path):
    names = dict.fromkeys(EVIL, 1)
    labels = [{"text": evil + "x", "label": evil} | names for evil in EVIL for _ in range(2)]
    once = [{"text": "one", "label": evil + "once"} | names for evil in EVIL]
    bad = [{"text": "one", "label": {evil: 1}} | names for evil in EVIL]
    summary = summary_of(tmp_path, [*labels, *once, *bad])
    for text in (shown(summary), target_csv(summary), target_markdown(summary), target_json(summary)):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "\u202e" not in text
        text.encode("utf-8")
    assert target_json(summary).isascii()
    assert "[red]x[/red]" in shown(summary)  # as it stands, not as a colour
    for row in csv.reader(io.StringIO(target_csv(summary))):
        assert not any(cell[:1] in tuple("=+-@\t\r") for cell in row)
    markdown = target_markdown(summary)
    assert "<script>" not in markdown.replace("\\<", "")
    assert "[red]" not in markdown.replace("\\[", "")
    columns = {line.replace("\\|", "").count("|") for line in markdown.splitlines() if line}
    assert columns <= {3, 4, 9}


def test_long_lists_are_short_in_the_table_and_whole_in_json(tmp_path):
    rows = [{"text": f"t{i}", "label": f"c{i // 2}"} for i in range(60)]
    summary = summary_of(tmp_path, rows)
    assert "and 18 more" in shown(summary)
    assert len(json.loads(target_json(summary))["labels"]) == 30
