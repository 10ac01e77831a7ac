"""What was measured, in every form: the figures as promised, and nothing where nothing was."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from hubrank.report.ranking import ranking_csv, ranking_json, ranking_markdown, ranking_table
from hubrank.report.search_page import search_page
from hubrank.report.verified import verified_sentence
from hubrank.types import Verified
from tests.report.test_reports import HOSTILE, ranking, rendered, scored, source


def start(name="org/name", **fields):
    values = {
        "source": source(name),
        "shape": "lora r=8 on query, value",
        "metric": "accuracy",
        "value": 0.8123456,
        "spread": 0.02,
        "gain": 0.15,
        "gain_error": 0.03,
        "seeds": 5,
        "steps": 75,
    }
    return Verified(**{**values, **fields})


SCRATCH = start(source=None, value=0.66, gain=None, gain_error=None)
RERANKED = replace(scored(), logme=0.5, rerank_score=1.25)
WHOLE = ranking(RERANKED, scored(2, source=source("org/other")), verified=(start(), SCRATCH))


def test_the_json_has_what_was_measured():
    value = json.loads(ranking_json(WHOLE))
    assert [(row["logme"], row["rerank_score"]) for row in value["ranking"]] == [(0.5, 1.25), (None, None)]
    first, scratch = value["verified"]
    assert {"source", "metric", "value", "spread", "gain", "seeds"} <= set(first)
    assert (first["source"], first["value"], first["gain"]) == ("org/name", 0.8123, 0.15)
    assert (scratch["source"], scratch["gain"]) == (None, None)


def test_csv_has_further_columns_only_where_there_is_something_in_them():
    one, other = csv.DictReader(io.StringIO(ranking_csv(WHOLE)))
    assert (one["logme"], one["metric"], one["gain"], one["seeds"]) == ("0.5", "accuracy", "0.15", "5")
    assert (other["logme"], other["metric"], other["gain"]) == ("", "", "")
    assert "logme" not in ranking_csv(ranking(scored()))
    assert "gain" not in ranking_csv(ranking(scored()))


def test_table_markdown_and_page_name_every_start():
    page = search_page(WHOLE, None, command="hubrank", versions=[])
    for text in (rendered(ranking_table(WHOLE)), ranking_markdown(WHOLE), page):
        assert "(from scratch)" in text.replace("\\", "")
        assert "0.15" in text
        assert "a clear gain" in text
    assert "LogME" in page
    assert "LogME" in rendered(ranking_table(WHOLE))
    bare = ranking(scored())
    for text in (rendered(ranking_table(bare)), ranking_markdown(bare), search_page(bare, None, command="", versions=[])):
        assert "scratch" not in text
        assert "LogME" not in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "+0.150 accuracy (± 0.030) over no transfer, over 5 folds of 75 steps: a clear gain."),
        ({"gain_error": 0.09}, "no clear difference."),
        ({"gain": -1e-9}, ": +0.000 accuracy"),
        ({"gain": -0.2}, "-0.200 accuracy (± 0.030) over no transfer, over 5 folds of 75 steps: clearly worse."),
        ({"metric": "loss"}, "-0.150 loss (± 0.030)"),
        ({"gain_error": None, "seeds": 1}, "in one fold."),
    ],
)
def test_the_sentence_says_no_more_than_was_measured(changes, verdict):
    assert verdict in verified_sentence(replace(WHOLE, verified=(start(**changes), SCRATCH)))


def test_a_hostile_name_comes_out_inert():
    hostile = ranking(scored(source=source(HOSTILE)), verified=(start(HOSTILE), SCRATCH))
    for text in (rendered(ranking_table(hostile)), ranking_markdown(hostile), ranking_csv(hostile)):
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
    assert "<script>" not in search_page(hostile, None, command="", versions=[])
