"""The blend's measure: reranking moves the first N and nothing else."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def blend(bench):
    return importlib.import_module("blend")


def test_only_the_first_are_ordered_anew_and_no_weight_changes_nothing(blend):
    values = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    logmes = np.array([0.0, 1.0, 2.0, 9.0, 9.0])
    assert np.argsort(-blend.reranked(values, logmes, 3, 0.0)).tolist() == [0, 1, 2, 3, 4]
    assert np.argsort(-blend.reranked(values, logmes, 3, 10.0)).tolist() == [2, 1, 0, 3, 4]


def test_the_committed_result_is_what_the_committed_values_give(blend):
    kept = json.loads((BENCH / "results" / "blend.json").read_text())
    values = json.loads((BENCH / "results" / "rivals.json").read_text())["values"]
    targets = sys.modules["summarise"].matrices(blend.read_rows([BENCH / "transfer" / "rows-lora.jsonl"]))["lora", "first", 200]
    assert kept["all sources"] == blend.table(values, targets)
    assert kept["shipped"] == blend.LOGME_WEIGHT


def test_the_page_of_reranking_says_what_was_measured():
    result = json.loads((BENCH / "results" / "blend.json").read_text())
    page = (BENCH.parent / "docs" / "verify.md").read_text()
    figures = [("as searched", 0, None), ("`--rerank 5`", 0, "nested"), ("`--rerank 10`", 1, "nested"), ("all 24", 2, "nested")]
    for name, i, what in figures:
        found = [
            rows[i]["nested"] if what else rows[i]["regret@1 / @3 by weight"]["0"]
            for rows in (result["all sources"], result["without kin"])
        ]
        cells = " | ".join(f"{one:.1f} / {three:.1f}" for one, three in found)
        assert f"| {name} | {cells} |" in page
