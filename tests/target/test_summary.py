"""What is counted in a target file, and what its owner is warned of."""

from __future__ import annotations

import pytest

from hubrank.target.problems import MAX_LISTED
from hubrank.target.rows import examine_target
from hubrank.target.summary import Quantiles, summarise
from tests.ranking.builders import write_lines
from tests.target.test_tasks import ALL, several


def summary_of(folder, rows, **options):
    return summarise(examine_target(write_lines(folder / "t.jsonl", rows), **options))


def warnings(summary):
    return [(problem.line, problem.message) for problem in summary.examination.problems if not problem.fatal]


def rows(n=20):
    return [{"text": f"text {i}", "label": ("no", "yes")[i % 2]} for i in range(n)]


def test_a_clean_file_has_counts_and_no_problems(tmp_path):
    summary = summary_of(tmp_path, [*rows(21), {"text": "x" * 100, "label": "no"}])
    assert [(label.label, label.count) for label in summary.labels] == [("no", 12), ("yes", 10)]
    assert dict(summary.lengths)["text"] == Quantiles(6.0, 6.0, 7.0, 7.0, 7.0, 100.0)
    assert (summary.repeated, summary.conflicting, summary.values, warnings(summary)) == (0, 0, None, [])
    assert summary.examination.usable


def test_duplicates_and_contradictions(tmp_path):
    some = rows()
    some[7]["text"] = some[9]["text"]
    some[12]["text"] = some[3]["text"]
    summary = summary_of(tmp_path, some)
    assert (summary.repeated, summary.conflicting) == (1, 1)
    assert warnings(summary) == [(13, 'the same input as line 4 with another label ("no" here, "yes" there)')]


def test_many_contradictions_are_counted(tmp_path):
    summary = summary_of(tmp_path, [{"text": "same", "label": ("no", "yes")[i % 2]} for i in range(50)])
    assert (summary.conflicting, len(warnings(summary))) == (25, 11)
    assert (None, "15 more rows have the same input as an earlier one, with another label") in warnings(summary)


def test_other_texts_or_choices_are_other_rows(tmp_path):
    pairs = [{"text": "a", "text_pair": f"b{i}", "label": i % 2} for i in range(8)]
    assert summary_of(tmp_path, pairs).conflicting == 0
    choices = [{"question": "q", "choices": [f"a{i}", "b"], "label": i % 2} for i in range(8)]
    assert summary_of(tmp_path, choices).conflicting == 0


def test_a_question_may_have_several_answers(tmp_path):
    some = [{"prompt": "a", "completion": f"b{i}"} for i in range(8)]
    summary = summary_of(tmp_path, some)
    assert (summary.repeated, summary.conflicting) == (0, 0)


def test_a_label_seen_once(tmp_path):
    some = rows()
    some[5]["label"] = "maybe\x1b[2J"
    assert warnings(summary_of(tmp_path, some)) == [(6, 'the only row with the label "maybe[2J"')]
    tags = several(ALL["tagging"])
    tags[3] = {"tokens": ["x"], "tags": ["B-x"]}
    assert warnings(summary_of(tmp_path, tags))[0] == (4, 'the only token with the label "B-x"')


def test_an_indicator_that_nobody_has(tmp_path):
    some = several([{"text": "a", "labels": [0, 0, 1]}, {"text": "b", "labels": [1, 0, 1]}])
    assert (None, 'no row has the label "1"') in warnings(summary_of(tmp_path, some))


def test_labels_that_hardly_vary(tmp_path):
    some = [{"text": f"t{i}", "label": "no" if i > 1 else "yes"} for i in range(100)]
    said = '98% of the rows have the label "no"; little can be learnt from the others'
    assert warnings(summary_of(tmp_path, some)) == [(None, said)]
    values = [{"text": f"t{i}", "label": 0.5 if i > 1 else i} for i in range(100)]
    summary = summary_of(tmp_path, values)
    assert "98% of the rows have the label 0.5" in warnings(summary)[0][1]
    assert (summary.values.min, summary.values.median, summary.values.max) == (0, 0.5, 1)
    choices = [{"question": f"q{i}", "choices": ["a", "b"], "label": 0} for i in range(8)]
    assert 'the right choice at "0"' in warnings(summary_of(tmp_path, choices))[0][1]


def test_labels_that_stand_in_the_text(tmp_path):
    names = ("Refund", "Delivery")
    some = [{"text": f"{names[i % 2]} question {i}", "label": names[i % 2].lower()} for i in range(20)]
    said = "the label's name stands in the text of 100% of the rows; is it a leak?"
    assert warnings(summary_of(tmp_path, some)) == [(None, said)]


def test_outputs_that_copy_their_input(tmp_path):
    some = [{"source": f"a{i}", "target": f"a{i}" if i < 5 else "b"} for i in range(8)]
    assert warnings(summary_of(tmp_path, some)) == [(None, "5 of 8 rows ask for what they give: the output is the input")]


def test_unusable_rows_are_all_named_and_the_others_counted(tmp_path):
    some = rows(30)
    some[3]["label"] = None
    some[20]["text"] = ""
    summary = summary_of(tmp_path, some)
    errors = [(problem.line, problem.message) for problem in summary.examination.problems if problem.fatal]
    assert errors == [(4, '"label" is a null; a string or a number is expected'), (21, '"text" is empty')]
    assert (len(summary.examination.target), summary.examination.usable) == (28, False)


def test_very_many_problems_are_counted(tmp_path):
    summary = summary_of(tmp_path, [*rows(), *({"text": "", "label": "no"} for _ in range(MAX_LISTED + 50))])
    assert (len(summary.examination.problems), summary.examination.unlisted) == (MAX_LISTED, 50)


@pytest.mark.parametrize("task", ALL)
def test_every_task_has_its_lengths(tmp_path, task):
    summary = summary_of(tmp_path, several(ALL[task]))
    expected = {
        "multiple-choice": ["question", "choices"],
        "tagging": ["tokens"],
        "qa": ["question", "context", "answers"],
        "causal-lm": ["prompt", "completion", "messages"],
        "seq2seq": ["source", "target"],
    }
    assert [role for role, _ in summary.lengths] == expected.get(task, ["text"])
    counted = {"tagging": 20, "multi-label": 10, "regression": 0, "causal-lm": 0, "seq2seq": 0}
    assert sum(label.count for label in summary.labels) == counted.get(task, 8)
    assert summary.repeated == 8 - len(ALL[task])
