"""``hubrank bench``: its formats, what goes where, and the exit codes of what it cannot use."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.benchmark.builders import row, write_rows
from tests.builders import write_lora
from tests.cli.conftest import HOSTILE

NAMES = ("one", "two", "three")


@pytest.fixture
def place(tmp_path):
    """A folder of three adapters and their transfer to two targets; nothing is tuned here."""
    for i, name in enumerate(NAMES):
        write_lora(tmp_path / "zoo" / "org" / name, seed=i)
    rows = [row(name, target, 0.5 + 0.1 * i) for target in ("t", HOSTILE) for i, name in enumerate(NAMES)]
    write_rows(tmp_path / "rows.jsonl", [*rows, row(None, "t", 0.4), row(HOSTILE, "t", 0.9)])
    return tmp_path


@pytest.fixture
def bench(hubrank, place):
    def run(*more):
        return hubrank("bench", "--zoo", place / "zoo", "--transfer", place / "rows.jsonl", "--cache-dir", place / "c", *more)

    return run


def test_json_is_whole_and_nothing_else_is_on_stdout(bench):
    done = bench("--format", "json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["sources"] == {"in_file": 4, "matched": 3}
    assert report["unmatched"] == [{"source": HOSTILE, "why": "not in the zoo"}]
    assert {target["target"]: target["best"] for target in report["targets"]} == {"t": "three", HOSTILE: "three"}
    lines = {line["ranking"]: line for line in report["rankings"]}
    assert list(lines) == ["chance", "no transfer", "source prior, leave one target out"]
    assert lines["source prior, leave one target out"]["figures"]["regret@1"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert lines["no transfer"]["figures"]["regret@1"]["mean"] == pytest.approx(0.3 / 0.7, abs=1e-5)
    assert lines["no transfer"]["figures"]["ndcg"]["mean"] is None
    assert lines["chance"]["targets"]["t"]["gain"] == pytest.approx(0.2)


def test_csv_has_a_line_a_ranking(bench):
    rows = list(csv.DictReader(io.StringIO(bench("--format", "csv").out)))
    assert [one["ranking"] for one in rows] == ["chance", "no transfer", "source prior, leave one target out"]
    assert float(rows[0]["regret@1"]) == pytest.approx((0.1 + 0.2) / 3 / 0.7, abs=1e-5)
    assert rows[1]["ndcg"] == ""


@pytest.mark.parametrize("style", ["table", "md"])
def test_what_people_read_is_inert_and_says_what_was_not_judged(bench, style):
    done = bench("--format", style)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "regret@1" in done.out.replace("\\", "")
    assert "not judged, 1 of 4 sources" in done.out
    assert "no \\-\\-targets" in done.out or "no --targets" in done.out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--where", "rows"), 2, "give FIELD=VALUE"),
        (("--estimator", "best"), 2, "unknown; there is"),
        (("--least", "1"), 2, "--least"),
        (("--source-rows", "own"), 2, "--rivals"),
        (("--where", "rows=7"), 3, "no row of a source is left by --where rows=7"),
        (("--targets", "nowhere"), 3, "no such folder"),
    ],
)
def test_exit_codes(bench, more, code, said):
    done = bench(*more)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_file_that_is_none_and_an_empty_zoo(hubrank, place):
    (place / "bad.jsonl").write_text("{}\n")
    done = hubrank("bench", "--zoo", place / "zoo", "--transfer", place / "bad.jsonl")
    assert done.code == 3
    assert "bad.jsonl:1: has no 'source'" in done.err
    (place / "none").mkdir()
    done = hubrank("bench", "--zoo", place / "none", "--transfer", place / "rows.jsonl")
    assert done.code == 5
    done = hubrank("bench", "--zoo", place / "nowhere", "--transfer", place / "rows.jsonl")
    assert done.code == 4
    done = hubrank("bench", "--zoo", place / "zoo")
    assert done.code == 2


def test_without_a_folder_the_zoo_in_the_cache_is_judged(hubrank, place):
    done = hubrank("bench", "--transfer", place / "rows.jsonl", "--cache-dir", place / "c")
    assert done.code == 5  # there is none yet
    assert hubrank("sync", "--hub", place / "zoo", "--cache-dir", place / "c", "-q").code == 0
    done = hubrank("bench", "--transfer", place / "rows.jsonl", "--cache-dir", place / "c", "--format", "json")
    report = json.loads(done.out)
    assert (report["zoo"], report["sources"]["matched"]) == (str(place / "c"), 3)
