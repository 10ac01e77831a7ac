"""From rows to examples: where tags, answers and completions lie among the tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import BaseModelError, TargetError
from hubrank.target.base import load_base
from hubrank.target.objectives import Reader
from hubrank.target.objectives.language import Completions
from hubrank.target.objectives.pooled import Choices, Pooled
from hubrank.target.objectives.tokens import IGNORED, Spans, Tags, answer_tokens, first_tokens
from hubrank.target.rows import read_target
from tests.ranking.builders import write_lines
from tests.target.bases import make_kind, rows_of


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return load_base(make_kind("bert", tmp_path_factory.mktemp("b") / "bert"))[1]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return load_base(make_kind("gpt2", tmp_path_factory.mktemp("g") / "gpt2"), head="causal-lm")[1]


def target_of(folder, rows, task=None):
    return read_target(write_lines(folder / "target.jsonl", rows), task=task)


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=8), st.booleans())
def test_the_first_token_of_each_word(words, space):
    """Tokens of one or two characters; a byte-level tokenizer counts the space in front to the token."""
    offsets, expected, at = [(0, 0)], {}, 0
    for i, word in enumerate(words):
        expected[i] = len(offsets)
        for start in range(0, len(word), 2):
            begin = at + start - (space and start == 0 and at > 0)
            offsets.append((begin, at + min(start + 2, len(word))))
        at += len(word) + 1
    assert first_tokens(words, offsets) == expected


def test_tags_are_at_first_tokens(bert, tmp_path):
    rows = [{"tokens": ["w1", "w2zz", "w3"], "tags": ["A", "B", "A"]} for _ in range(8)]
    objective = Tags(target_of(tmp_path, rows), Reader(bert, "encoder", 128))
    batch = objective.collate(np.arange(2))
    assert batch["labels"][0].tolist() == [IGNORED, 0, 1, 0, IGNORED]
    assert (batch.weight, objective.notes) == (6.0, ())


def test_words_beyond_the_room_are_said(bert, tmp_path):
    rows = [{"tokens": [f"w{i}" for i in range(30)], "tags": ["A", "B"] * 15} for _ in range(8)]
    objective = Tags(target_of(tmp_path, rows), Reader(bert, "encoder", 10))
    assert objective.notes == ("8 rows cut to 10 tokens",)
    assert objective.collate(np.arange(8)).weight == 8 * 8


def test_answers_lie_where_the_characters_say(bert, tmp_path):
    target = target_of(tmp_path, rows_of("qa"))
    objective = Spans(target, Reader(bert, "encoder", 48))
    batch = objective.collate(np.arange(len(objective.lengths)))
    answers = {answers[0].text for answers in target.answers}
    found = set()
    for ids, start, end in zip(batch["input_ids"], batch["starts"], batch["ends"], strict=True):
        if end > 0:
            found.add(bert.decode(ids[start : end + 1]))
    assert found == answers
    assert "read in windows" in objective.notes[0]
    # One window without the answer at most for each question.
    assert (batch["ends"] == 0).sum() <= len(target)


def test_a_question_without_an_answer_points_at_the_first_token(bert, tmp_path):
    rows = rows_of("qa", 8)
    rows[0]["answers"] = {"text": [], "answer_start": []}
    objective = Spans(target_of(tmp_path, rows), Reader(bert, "encoder", 128))
    assert objective.collate(np.array([0]))["starts"].tolist() == [0]


def test_no_answer_within_reach(bert, tmp_path):
    rows = [{**row, "answers": {"text": [row["context"]], "answer_start": [0]}} for row in rows_of("qa", 8)]
    with pytest.raises(TargetError, match="no answer lies within 48 tokens"):
        Spans(target_of(tmp_path, rows), Reader(bert, "encoder", 48))


@given(start=st.integers(0, 20), length=st.integers(1, 6), first=st.integers(0, 10), last=st.integers(11, 26))
def test_spans_are_whole_or_none(start, length, first, last):
    """Tokens of two characters, of which a window holds first to last."""
    inside = [None, *((2 * i, 2 * i + 2) if first <= i <= last else None for i in range(30))]
    span = answer_tokens(inside, start, start + length)
    whole = first <= start // 2 and (start + length - 1) // 2 <= last
    assert span == ((1 + start // 2, 1 + (start + length - 1) // 2) if whole else None)


def test_only_completions_are_learnt_from(gpt2, tmp_path):
    rows = [{"prompt": "w1 w2 w3", "completion": f" w4 w{5 + i}"} for i in range(8)]
    objective = Completions(target_of(tmp_path, rows), Reader(gpt2, "decoder", 128))
    batch = objective.collate(np.arange(2))
    ids, width = batch["input_ids"], batch["input_ids"].shape[1]
    assert gpt2.decode(batch["answers"][:3]) == "w4 w5 [SEP]"
    # Each place predicts the token after it.
    assert [ids.ravel()[place + 1] for place in batch["places"]] == batch["answers"].tolist()
    assert (batch.weight, batch["places"].tolist()) == (6.0, [3, 4, 5, width + 3, width + 4, width + 5])


def test_a_long_prompt_loses_its_beginning(gpt2, tmp_path):
    rows = [{"prompt": " ".join(f"w{i}" for i in range(30)), "completion": f" w38 w{39 - i}"} for i in range(8)]
    objective = Completions(target_of(tmp_path, rows), Reader(gpt2, "decoder", 12))
    ids = objective.collate(np.array([0]))["input_ids"][0]
    assert gpt2.decode(ids).endswith("w28 w29 w38 w39 [SEP]")
    assert len(ids) == 12
    assert objective.notes == ("8 rows cut to 12 tokens",)


CHAT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[CLS] {{ m.content }} [SEP] "
    "{% endfor %}{% if add_generation_prompt %}[CLS] {% endif %}"
)


def chats(role):
    asked = [{"role": role, "content": "w1"}, {"role": "user", "content": "w2"}]
    return [{"messages": [*asked, {"role": "assistant", "content": f"w3 w{4 + i}"}]} for i in range(8)]


def test_a_chat_takes_the_form_of_the_template(gpt2, tmp_path):
    import copy

    tokenizer = copy.deepcopy(gpt2)
    tokenizer.chat_template = CHAT
    objective = Completions(target_of(tmp_path, chats("user")), Reader(tokenizer, "decoder", 128))
    batch = objective.collate(np.array([0]))
    assert tokenizer.decode(batch["answers"]).split()[:3] == ["w3", "w4", "[SEP]"]
    assert objective.notes == ()
    refused = Completions(target_of(tmp_path, chats("system")), Reader(tokenizer, "decoder", 128))
    assert refused.notes == ("8 chats do not fit the base model's template and are read as plain text",)
    assert "w3 w4" in tokenizer.decode(refused.collate(np.array([0]))["answers"])


def test_several_labels_a_row(bert, tmp_path):
    target = target_of(tmp_path, rows_of("multi-label"))
    batch = Pooled(target, Reader(bert, "encoder", 64)).collate(np.arange(3))
    assert batch["labels"].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert batch.weight == 9.0


def test_rows_with_different_numbers_of_choices(bert, tmp_path):
    target = target_of(tmp_path, rows_of("multiple-choice"))
    objective = Choices(target, Reader(bert, "encoder", 64, kinds=True))
    batch = objective.collate(np.array([1, 0]))
    assert batch["place"].tolist() == [[0, 1, 2, 3], [4, 5, 6, -1]]
    assert len(batch["input_ids"]) == 7
    assert set(batch["token_type_ids"].ravel().tolist()) == {0, 1}


def test_a_tokenizer_that_does_not_say_where_its_tokens_lie(tmp_path):
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(BaseModelError, match="Slow does not tell where its tokens lie in the text, which tagging needs"):
        Tags(target_of(tmp_path, rows_of("tagging")), Reader(slow, "encoder", 64))
