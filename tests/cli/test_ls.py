"""``hubrank ls``: what is asked for is listed, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest

from hubrank.cli.ls import Order
from hubrank.zoo.selection import ORDERS


def listed(done):
    assert done.code == 0, done.err
    return [row["source"] for row in json.loads(done.out)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--base", "roberta-base"], ["org/other"]),
        (["--base", "roberta-base", "--base", "org/base", "--method", "lora", "--license", "apache-2.0"], ["org/full"]),
        (["--method", "prefix"], ["org/prefix"]),
        (["--method", "loha", "--method", "prefix"], ["org/other", "org/prefix"]),
        (["--task", "NLI"], ["org/full"]),
        (["--task", "glue", "--language", "de"], ["org/full"]),
        (["--language", "fr"], []),
    ],
)
def test_filters(hubrank, small_zoo, options, found):
    assert listed(hubrank("ls", *options, "--cache-dir", small_zoo, "--format", "json")) == found


def test_what_is_gone_is_listed_on_request_and_marked(hubrank, small_zoo):
    assert "org/left" not in listed(hubrank("ls", "--cache-dir", small_zoo, "--format", "json"))
    shown = json.loads(hubrank("ls", "--gone", "--cache-dir", small_zoo, "--format", "json").out)
    assert [row["source"] for row in shown if row["gone"]] == ["org/left"]
    table = hubrank("ls", "--gone", "--cache-dir", small_zoo).out
    assert "(gone)" in next(line for line in table.splitlines() if "org/left" in line)
    rows = csv.DictReader(io.StringIO(hubrank("ls", "--gone", "--cache-dir", small_zoo, "--format", "csv").out))
    assert {row["source"]: row["gone"] for row in rows}["org/left"] == "gone"


def test_the_json_says_where_on_its_hub_a_source_lies(hubrank, small_zoo):
    (row,) = json.loads(hubrank("ls", "--method", "prefix", "--cache-dir", small_zoo, "--format", "json").out)
    assert (row["source"], row["subfolder"], row["branch"], row["part"]) == ("org/prefix", "nli", "v2", None)


def test_sorting(hubrank, small_zoo):
    assert listed(hubrank("ls", "--sort", "rank", "--cache-dir", small_zoo, "--format", "json"))[0] == "org/prefix"
    assert "--sort" in hubrank("ls", "--sort", "size", "--cache-dir", small_zoo).err
    assert [order.value for order in Order] == [name for name in ("name", "task", "base", "method", "rank") if name in ORDERS]
    assert {order.value for order in Order} == set(ORDERS)


def test_nothing_found_says_why(hubrank, small_zoo, tmp_path):
    done = hubrank("ls", "--task", "cooking", "--cache-dir", small_zoo)
    assert (done.code, done.out) == (0, "")
    assert "none of the 5 sources" in done.err
    assert "hubrank sync" in hubrank("ls", "--cache-dir", tmp_path / "empty").err
    assert hubrank("ls", "--cache-dir", tmp_path / "empty", "-q").err == ""


@pytest.mark.parametrize("style", ["table", "json", "csv", "md"])
def test_hostile_cards_are_inert(hubrank, small_zoo, style):
    done = hubrank("ls", "--cache-dir", small_zoo, "--format", style)
    assert done.code == 0
    for text in (done.out, done.err):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\n::error" not in text
    if style == "csv":
        assert not any(cell.startswith(("=", "+", "-", "@")) for row in csv.reader(io.StringIO(done.out)) for cell in row)
    if style == "md":
        assert "<script>" not in done.out
        assert len(done.out.splitlines()) == 2 + 4
