"""Which field plays which role: the usual names, the user's word, and ambiguity said in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import TargetError, UsageError
from hubrank.target.fields import field_map, parse_fields
from hubrank.target.layouts import LAYOUTS, ROLES
from hubrank.target.problems import RowError
from hubrank.target.rows import read_target
from tests.ranking.builders import write_lines


def names(row, task=None, given=None):
    found = field_map([row] * 3, task, given or {})
    return found.task, dict(found.names)


def unclear(row, task=None, given=None):
    with pytest.raises(RowError) as caught:
        field_map([row], task, given or {})
    return str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.task}-{'-'.join(layout.required)}")
def test_every_alias_is_understood(layout):
    """With the task named where it has to be, every name of a role does what the role's own name does."""
    for role, aliases in layout.required.items():
        for alias in aliases:
            row = {one: others[0] for one, others in layout.required.items() if one != role and alias not in others}
            row = dict.fromkeys(row.values(), "x") | {alias: "x"}
            if len(row) < len(layout.required):
                continue
            task, found = names(row, layout.task)
            assert task == layout.task
            assert set(found.values()) == set(row)


@given(order=st.permutations(["id", "premise", "hypothesis", "label", "source"]))
def test_the_order_of_the_columns_does_not_matter(order):
    assert names(dict.fromkeys(order, "x")) == (
        "classification",
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    )


def test_what_is_not_used_is_known():
    found = field_map([{"text": "a", "label": 1, "id": 3, "meta": {}}], None, {})
    assert (found.unused, found.asked) == (("id", "meta"), False)


@pytest.mark.parametrize(
    ("row", "task"),
    [
        (("question", "context", "answers", "id", "title"), "qa"),
        (("question", "passage", "answer"), "qa"),
        (("question", "choices", "label"), "multiple-choice"),
        (("article", "question", "options", "answer"), "multiple-choice"),
        (("tokens", "ner_tags", "id"), "tagging"),
        (("instruction", "input", "output"), "causal-lm"),
        (("prompt", "chosen", "rejected"), "causal-lm"),
        (("messages", "prompt"), "causal-lm"),
        (("dialogue", "summary", "id"), "seq2seq"),
        (("question", "label"), "classification"),
        (("question1", "question2", "label"), "classification"),
    ],
)
def test_tasks_by_their_fields(row, task):
    assert names(dict.fromkeys(row, "x"))[0] == task


def test_a_field_that_few_rows_have_says_nothing():
    rows = [{"text": "a", "label": "x"}] * 9 + [{"tokens": [], "tags": []}]
    assert field_map(rows, None, {}).task == "classification"


# Ambiguity.


def test_several_tasks():
    row = dict.fromkeys(("text", "label", "tokens", "tags"), "x")
    said = unclear(row)
    assert (
        said
        == "could be classification (text, label) or tagging (tokens, tags); say which with --task classification, or another"
    )
    assert names(row, "tagging")[0] == "tagging"
    assert "causal-lm (input, output) or seq2seq (input, output)" in unclear({"input": "a", "output": "b"})
    assert "causal-lm (question, answer) or seq2seq" in unclear({"question": "a", "answer": "b"})


def test_several_fields_for_a_role():
    row = {"tokens": [], "pos_tags": [], "ner_tags": []}
    assert unclear(row) == 'the tags could be any of "ner_tags", "pos_tags"; say which with --fields tags=ner_tags'
    assert names(row, None, {"tags": "pos_tags"})[1]["tags"] == "pos_tags"
    assert names(row | {"tags": []})[1]["tags"] == "tags"
    assert "label could be any of" in unclear({"text": "a", "intent": "x", "category": "y"})


def test_a_translation_has_a_direction():
    row = {"translation": {"de": "a", "en": "b"}}
    assert "--fields source=translation.de,target=translation.en" in unclear(row)
    assert names(row, None, {"source": "translation.de", "target": "translation.en"}) == (
        "seq2seq",
        {"source": "translation.de", "target": "translation.en"},
    )


def test_nothing_fits():
    assert unclear({"headline": "a", "desk": "b"}).startswith(
        'no text field ("text" is expected; fields found: desk, headline)'
    )
    assert unclear({"text": "a"}).startswith('no label field ("label" is expected; fields found: text)')
    assert unclear({"tokens": []}).startswith('no tags field for tagging ("tags" is expected')
    assert unclear({"question": "a", "context": "b"}).startswith('no answers field for qa ("answers" is expected')
    assert unclear({"text": "a", "label": "b"}, "qa").startswith('no question field for qa ("question" is expected')
    assert "fields found: none" in unclear({})


# The user's word.


def test_fields_by_the_user(tmp_path):
    rows = [{"headline": f"t{i}", "class": "x", "desk": "ab"[i % 2]} for i in range(8)]
    file = write_lines(tmp_path / "t.jsonl", rows)
    target = read_target(file, fields="text=headline,label=desk")
    assert (target.texts[3], target.classes) == ("t3", ("a", "b"))
    assert read_target(file, fields={"text": "headline", "label": "desk"}) == target
    assert target.fields == (("text", "headline"), ("label", "desk"))


def test_a_pair_by_the_user_and_none_by_the_user():
    row = {"question1": "a", "question2": "b", "label": 0, "other": "c"}
    assert names(row, None, {"text": "question1", "text_pair": "other"})[1]["text_pair"] == "other"
    assert names(row, None, {"text": "question1", "text_pair": ""})[1] == {"text": "question1", "label": "label"}


def test_inside_objects_and_joined_columns(tmp_path):
    rows = [{"meta": {"q": f"q{i}"}, "good": "x", "bad": "y", "right": i % 2} for i in range(8)]
    fields = "question=meta.q,choices=good+bad,label=right"
    target = read_target(write_lines(tmp_path / "t.jsonl", rows), fields=fields)
    assert (target.texts[1], target.choices[1], target.labels[:2]) == ("q1", ("x", "y"), (0, 1))
    rows[3]["meta"] = "none"
    with pytest.raises(TargetError, match=r't.jsonl:4: no question field \("meta.q" is expected'):
        read_target(write_lines(tmp_path / "t.jsonl", rows), fields=fields)


def test_a_name_with_a_dot_is_that_field_first():
    assert names({"a.b": "x", "a": {"b": "y"}, "label": 1}, None, {"text": "a.b"})[1]["text"] == "a.b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text", "is not ROLE=FIELD"),
        ("words=a", 'no role "words"'),
        ("text=a,text=b", "text is there twice"),
        ("", "is not ROLE=FIELD"),
    ],
)
def test_bad_fields(text, said):
    with pytest.raises(UsageError, match=said):
        parse_fields(text)


def test_fields_that_are_not_there_or_belong_to_no_task(tmp_path):
    row = {"text": "a", "label": "b"}
    assert unclear(row, None, {"text": "headlin\x1b"}) == '--fields: no field "headlin"; fields found: label, text'
    assert unclear(row, None, {"text": "text", "tags": "label"}) == "--fields: no task has the roles text, tags"
    with pytest.raises(UsageError, match="--task poetry: there is classification, multi-label"):
        read_target(write_lines(tmp_path / "t.jsonl", [row]), task="poetry")


def test_roles_are_documented():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs/targets.md").read_text("utf-8")
    for role in ROLES:
        assert f"`{role}`" in text, role
