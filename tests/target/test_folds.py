"""Every row is held out once, rows that share a text together, classes spread."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hubrank.errors import TargetError
from hubrank.target.folds import folds_of
from hubrank.target.rows import read_target
from tests.ranking.builders import write_lines
from tests.target.bases import rows_of


def target_of(tmp_path, rows):
    return read_target(write_lines(tmp_path / "rows.jsonl", rows))


def test_every_row_is_held_out_once_and_tuned_on_otherwise(tmp_path):
    target = target_of(tmp_path, [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(23)])
    folds = folds_of(target)
    assert Counter(row for fold in folds for row in fold.held_out.tolist()) == Counter(range(23))
    for fold in folds:
        assert sorted([*fold.tuned.tolist(), *fold.held_out.tolist()]) == list(range(23))


def test_classes_are_dealt_out_evenly(tmp_path):
    target = target_of(tmp_path, [{"text": f"text {i}", "label": "abc"[i % 3]} for i in range(60)])
    for fold in folds_of(target):
        assert Counter(target.labels[row] for row in fold.held_out) == {0: 4, 1: 4, 2: 4}


def test_rows_with_one_text_stay_together(tmp_path):
    target = target_of(
        tmp_path, [{"text": f"Text {i // 3}" if i % 2 else f"text  {i // 3}", "label": i * 0.7} for i in range(30)]
    )
    for fold in folds_of(target):
        assert not {row // 3 for row in fold.held_out.tolist()} & {row // 3 for row in fold.tuned.tolist()}
        assert len(fold.held_out) == 6


def test_questions_about_one_context_stay_together(tmp_path):
    rows = [{**row, "question": f"which {i}"} for i, row in enumerate(rows_of("qa", 8) * 2)]
    target = target_of(tmp_path, rows)
    for fold in folds_of(target):
        contexts = [{(target.pairs or ())[row] for row in part} for part in (fold.tuned, fold.held_out)]
        assert not contexts[0] & contexts[1]


def test_the_seed_decides(tmp_path):
    target = target_of(tmp_path, rows_of("regression", 20))
    one, same, other = folds_of(target), folds_of(target), folds_of(target, seed=1)
    assert all(np.array_equal(a.held_out, b.held_out) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a.held_out, b.held_out) for a, b in zip(one, other, strict=True))


def test_there_are_no_more_folds_than_texts(tmp_path):
    target = target_of(tmp_path, [{"text": f"text {i % 3}", "label": i * 0.1} for i in range(9)])
    assert len(folds_of(target)) == 3


def test_one_text_for_all_cannot_be_split(tmp_path):
    target = target_of(tmp_path, [{"text": "same", "label": i * 0.1} for i in range(9)])
    with pytest.raises(TargetError, match="all rows share one text"):
        folds_of(target)
