"""The plan of a sync and its outcome, in every format."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from hubrank.report.plan import plan_csv, plan_json, plan_line, plan_markdown, plan_table
from hubrank.report.syncing import sync_csv, sync_json, sync_markdown, sync_table
from hubrank.types import SyncPlan, SyncReport
from tests.report.test_reports import HOSTILE, rendered

PLAN = SyncPlan(
    new=tuple(f"org/new{i:02}" for i in range(25)),
    changed=("org/moved",),
    gone=("org/left",),
    unchanged=("org/same", "org/other"),
    skipped=("org/bad",),
    requests=81,
    bytes=45_200_000,
    unsized=2,
    failed=(("zips", "no such file"),),
    not_asked=("hf",),
)


def test_the_line_has_adapters_bytes_and_requests():
    assert plan_line(PLAN) == "26 adapters, at most 45.2 MB and 2 of unknown size, about 81 requests"
    assert plan_line(SyncPlan(new=("a/b",), requests=4, bytes=10)) == "1 adapter, at most 10 bytes, about 4 requests"


def test_json_csv_and_markdown_have_the_counts():
    value = json.loads(plan_json(PLAN))
    counts = {"new": 25, "changed": 1, "gone": 1, "unchanged": 2, "skipped": 1}
    counts |= {"requests": 81, "bytes": 45_200_000, "unsized": 2}
    assert {name: value[name] for name in counts} == counts
    assert value["failed"] == {"zips": "no such file"}
    assert value["not_asked"] == ["hf"]
    assert value["adapters"] == {"new": list(PLAN.new), "changed": ["org/moved"], "gone": ["org/left"]}
    assert {row["what"]: int(row["count"]) for row in csv.DictReader(io.StringIO(plan_csv(PLAN)))} == counts
    assert "| bytes | 45200000 |" in plan_markdown(PLAN)


def test_the_table_names_the_first_of_each_kind_or_all():
    shown = rendered(plan_table(PLAN))
    assert "would read 26 adapters" in shown
    assert "2 unchanged; 1 to be skipped" in shown
    assert "org/new19" in shown
    assert "org/new20" not in shown
    assert "... and 5 more" in shown
    assert "org/left" in shown
    assert "org/new24" in rendered(plan_table(PLAN, every=True))
    assert rendered(plan_table(SyncPlan(requests=2))).splitlines() == [
        "would read 0 adapters, at most 0 bytes, about 2 requests"
    ]


def test_the_json_of_sync_has_the_promised_fields_first():
    report = SyncReport(added=1, skipped={"gated": 2}, seconds=0.12345, failed=(("zips", "no such file"),), not_asked=("hf",))
    value = json.loads(sync_json(report))
    promised = ["added", "updated", "removed", "unchanged", "skipped", "requests", "bytes_read", "bytes_whole", "seconds"]
    assert list(value)[: len(promised)] == promised
    assert value["skipped"] == {"gated": 2}
    assert value["seconds"] == 0.123
    assert (value["failed"], value["not_asked"]) == ({"zips": "no such file"}, ["hf"])


def test_the_table_of_sync_says_what_was_spared():
    report = SyncReport(
        added=2, updated=1, unchanged=1200, requests=9, bytes_read=1_000_000, bytes_whole=40_000_000, seconds=2.0
    )
    (line,) = rendered(sync_table(report)).splitlines()
    assert line == "2 added, 1 updated, 1,200 unchanged in 2.0 s; 1.0 MB read of 40.0 MB in 9 requests"
    shown = rendered(sync_table(SyncReport(skipped={"gated": 12, "not finite": 3})))
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["skipped", "because"],
        ["12", "gated"],
        ["3", "not", "finite"],
    ]


@pytest.mark.parametrize("style", ["json", "csv", "md", "table"])
def test_hostile_names_and_reasons_are_inert(style):
    plan = SyncPlan(new=(HOSTILE,), changed=(HOSTILE,), gone=(HOSTILE,), failed=((HOSTILE, HOSTILE),))
    report = SyncReport(skipped={HOSTILE: 1}, failed=((HOSTILE, HOSTILE),))
    texts = {
        "json": (plan_json(plan), sync_json(report)),
        "csv": (plan_csv(plan), sync_csv(report)),
        "md": (plan_markdown(plan), sync_markdown(report)),
        "table": (rendered(plan_table(plan)), rendered(sync_table(report))),
    }
    for text in texts[style]:
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
        assert "\n::error" not in text
        if style == "csv":
            assert not any(cell.startswith(("=", "+", "-", "@")) for row in csv.reader(io.StringIO(text)) for cell in row)
        if style == "md":
            assert "<script>" not in text


def test_what_base_models_cost_is_said_where_they_were_read():
    report = SyncReport(added=1, requests=9, bytes_read=1_000_000, base_requests=4, base_bytes=300_000)
    assert "in 9 requests (300.0 kB in 4 of base models)" in str(sync_table(report)[0])
    value = json.loads(sync_json(report))
    assert (value["base_requests"], value["base_bytes"]) == (4, 300_000)
    assert "base models" not in str(sync_table(replace(report, base_requests=0, base_bytes=0))[0])
