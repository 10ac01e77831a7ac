"""``hubrank search`` where it goes beyond the weights: what is passed on, and what an interrupt leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubrank.ranking import search as module
from hubrank.ranking.search import SearchInterrupted
from tests.report.test_reports import ranking, scored
from tests.report.test_verified import SCRATCH, start

TARGET = Path(__file__).parents[2] / "examples/banking.jsonl"
WHOLE = ranking(scored(), verified=(start(seeds=2), SCRATCH))


@pytest.fixture
def asked(monkeypatch):
    """Settings that searches were started with; they find what ``WHOLE`` has."""
    settings = []

    def search(target, **options):
        settings.append(options["settings"])
        return WHOLE

    monkeypatch.setattr(module, "search", search)
    return settings


def test_the_numbers_reach_the_library(hubrank, asked):
    assert hubrank("search", "--target", TARGET, "--no-sync", "--rerank", "5", "--verify", "2").code == 0
    assert hubrank("search", "--target", TARGET, "--no-sync").code == 0
    assert [(one.rerank, one.verify) for one in asked] == [(5, 2), (None, None)]


@pytest.mark.parametrize("option", ["--rerank", "--verify"])
@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_a_bad_number_is_a_usage_error(hubrank, asked, option, number):
    done = hubrank("search", "--target", TARGET, "--no-sync", option, number)
    assert done.code == 2
    assert option in done.err
    assert asked == []


def test_an_interrupt_prints_what_there_is_and_leaves_with_130(hubrank, monkeypatch):
    def search(target, **options):
        raise SearchInterrupted(WHOLE, "measuring stopped after 2 of 5 folds")

    monkeypatch.setattr(module, "search", search)
    done = hubrank("search", "--target", TARGET, "--no-sync", "--verify", "1", "--format", "json")
    assert done.code == 130
    assert json.loads(done.out)["verified"][0]["seeds"] == 2
    last = done.err.splitlines()[-1]
    assert last == "hubrank: interrupted; measuring stopped after 2 of 5 folds; what was measured is kept"


def test_the_help_says_what_is_run(hubrank):
    said = " ".join(hubrank("search", "--help").out.split())
    assert "Only --rerank and --verify fetch published weights and run them" in said
