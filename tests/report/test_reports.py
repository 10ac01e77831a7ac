"""Reports: what is promised is printed, and nothing that came from a hub acts on where it is printed."""

from __future__ import annotations

import ast
import csv
import io
import json

import pytest
from rich.console import Console

from hubrank.report.ranking import ranking_csv, ranking_json, ranking_markdown, ranking_table
from hubrank.report.snippet import loading_lines
from hubrank.report.text import bar, csv_table, markdown_table, plain, spoken_bytes, spoken_seconds
from hubrank.types import CardFacts, Ranking, Scored, Source, TargetRun, Verdict

HOSTILE = "=cmd|' /C calc'!A0 [red]x[/red] \x1b[31m|\u202e<script>`*_\n::error::boo"


def source(repo="org/name", **fields):
    values = {
        "hub": "hf",
        "repo": repo,
        "revision": "a" * 40,
        "subfolder": None,
        "base": "org/base",
        "method": "lora",
        "rank": 8,
    }
    return Source(**{**values, **fields})


def ranking(*rows, **fields):
    values = {
        "base": "org/base",
        "base_folder": None,
        "methods": ("lora",),
        "estimator": "three-views",
        "target": TargetRun("t.jsonl", 200, "classification", 3, 75, 9.5, "cpu"),
        "sources": 5,
        "compared": 3,
        "skipped": {"other base": 2},
        "rows": rows,
        "verdict": Verdict(relevant=True, why="because"),
        "energy": 0.2,
    }
    return Ranking(**{**values, **fields})


def scored(rank=1, score=2.314159, **fields):
    where = fields.pop("source", source())
    return Scored(rank, where, 1.0, score, 0.123456, (0.1, None, 0.3), 1.0, fields.pop("warnings", ()))


def rendered(parts, width=200):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, force_terminal=True, color_system=None)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def test_the_json_of_search_is_as_promised():
    value = json.loads(ranking_json(ranking(scored(warnings=("beware",)))))
    assert {"hubrank", "base", "methods", "target", "zoo", "ranking", "verdict"} <= set(value)
    assert value["zoo"] == {"sources": 5, "compared": 3, "skipped": {"other base": 2}}
    assert value["verdict"] == {"relevant": True, "why": "because", "prominence": None}
    (row,) = value["ranking"]
    assert (row["source"], row["revision"], row["subfolder"], row["rank"]) == ("org/name", "a" * 40, None, 1)
    assert row["layers"] == [0.1, None, 0.3]
    assert row["warnings"] == ["beware"]
    assert row["score"] == pytest.approx(2.3142)


def test_no_score_is_null_in_json_and_empty_elsewhere():
    small = ranking(scored(score=None))
    assert json.loads(ranking_json(small))["ranking"][0]["score"] is None
    assert next(csv.DictReader(io.StringIO(ranking_csv(small))))["score"] == ""
    assert "None" not in ranking_markdown(small)
    assert "None" not in rendered(ranking_table(small))


def test_the_table_shows_warnings_only_where_there_are_some():
    assert "warnings" not in rendered(ranking_table(ranking(scored())))
    assert "beware" in rendered(ranking_table(ranking(scored(warnings=("beware",)))))


def test_hostile_names_are_inert_in_every_format():
    bad = source(HOSTILE, card=CardFacts(task=HOSTILE), warnings=(HOSTILE,))
    one = ranking(scored(source=bad, warnings=(HOSTILE,)))
    assert ranking_json(one).isascii()
    assert json.loads(ranking_json(one))["ranking"][0]["source"] == HOSTILE
    for row in csv.reader(io.StringIO(ranking_csv(one))):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)
    markdown = ranking_markdown(one)
    assert "<script>" not in markdown
    assert len(markdown.splitlines()) == 5
    assert markdown.splitlines()[-1].replace("\\|", "").count("|") == 8
    for text in (markdown, ranking_csv(one), rendered(ranking_table(one))):
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
        assert "\n::error" not in text


def test_the_snippet_is_python_whatever_the_names_hold():
    bad = source("o/n'); import os; os.system('boo", revision="'\"\\", subfolder='x")', base="b'\n")
    lines = loading_lines(bad)
    tree = ast.parse("\n".join(lines))
    assert len(tree.body) == 3
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert strings == [bad.base, bad.repo, bad.revision, bad.subfolder] or set(strings) == {
        bad.base,
        bad.repo,
        bad.revision,
        bad.subfolder,
    }


def test_the_snippet_takes_a_folder_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "'zoo/org/name'" in loading_lines(source(location=str(tmp_path / "zoo/org/name")))[1]
    assert "'/elsewhere/name'" in loading_lines(source(location="/elsewhere/name"))[1]


def test_bars():
    assert bar(1.0, 4, unicode=True) == "████"
    assert bar(0.5, 4, unicode=False) == "##"
    assert bar(1 / 32, 4, unicode=True) == "▏"
    assert bar(-1.0, 4, unicode=True) == bar(0.0, 4, unicode=False) == ""
    assert bar(7.0, 4, unicode=True) == "████"


def test_cells():
    assert csv_table(("a",), [("-1+2",), (-3,), (None,)]).splitlines() == ["a", "'-1+2", "-3", '""']
    assert markdown_table(("a",), [("x|y",)]).splitlines()[-1] == "| x\\|y |"
    assert plain("a\tb\x00c\u200bd") == "a bcd"
    assert len(plain("x" * 500)) == 96


def test_spoken_quantities():
    spoken = [spoken_bytes(n) for n in (0, 999, 1000, 999_949, 999_951, 1_500_000, 1_234_000_000, 5e12)]
    assert spoken == ["0 bytes", "999 bytes", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 MB", "1.2 GB", "5,000.0 GB"]
    assert [spoken_seconds(s) for s in (0.2, 59.4, 59.6, 125, 4800)] == ["0 s", "59 s", "1 min 0 s", "2 min 5 s", "1 h 20 min"]
