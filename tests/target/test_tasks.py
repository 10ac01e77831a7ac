"""What each task makes of its rows, and the one clear line for each row that cannot be used."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubrank.errors import TargetError
from hubrank.report.target import target_json
from hubrank.target.rows import examine_target, read_target
from hubrank.target.summary import summarise
from hubrank.target.task import MAX_CONTEXT, Answer, Turn
from hubrank.target.tasks.tagging import MAX_TOKENS
from tests.ranking.builders import write_lines
from tests.real_data import DATA


@pytest.fixture
def file(tmp_path):
    return tmp_path / "target.jsonl"


def several(rows, n=8):
    """The rows over and over, until there are enough."""
    return [dict(rows[i % len(rows)]) for i in range(n)]


def complaint(file, rows, *, line=None, **options):
    """What is said of rows that cannot be used; examining says the same, and goes on."""
    write_lines(file, rows)
    with pytest.raises(TargetError) as caught:
        read_target(file, **options)
    assert caught.value.line == line
    assert str(caught.value).isprintable()
    examined = examine_target(file, **options)
    assert not examined.usable
    assert (line, caught.value.message) in [(problem.line, problem.message) for problem in examined.problems]
    return caught.value.message


def spoiled(rows, change, at=4):
    rows = several(rows)
    rows[at] |= change
    return rows


# Multi-label.

TAGGED = [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["z", "x", "x"]}]


def test_multi_label(file):
    target = read_target(write_lines(file, several(TAGGED)))
    assert (target.task, target.classes, target.labels) == ("multi-label", ("x", "y", "z"), ())
    assert target.label_sets[:3] == ((0, 1), (), (0, 2))


def test_indicators(file):
    target = read_target(write_lines(file, several([{"text": "a", "labels": [0, 0, 1]}, {"text": "b", "labels": [1, 0, 1]}])))
    assert (target.classes, target.label_sets[:2]) == (("0", "1", "2"), ((2,), (0, 2)))
    assert "indicators" in target.notes[0]


def test_pairs_of_indices_are_no_indicators(file):
    target = read_target(write_lines(file, several([{"text": "a", "labels": [0, 1]}, {"text": "b", "labels": [1, 2]}])))
    assert target.label_sets[:2] == ((0, 1), (1, 2))


def test_several_labels_in_a_string(file):
    rows = several([{"text": "a", "label": "x|y"}, {"text": "b", "label": "z; x"}, {"text": "c", "label": ""}])
    target = read_target(write_lines(file, rows), task="multi-label")
    assert (target.classes, target.label_sets[:3]) == (("x", "y", "z"), ((0, 1), (0, 2), ()))


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        ({"labels": "x"}, 5, '"labels" is one label here, a list in line 1'),
        ({"labels": [1]}, 5, "labels of mixed types: a number here, a string in line 1"),
        ({"labels": [None]}, 5, '"labels" is a null'),
        ({"labels": [["x"]]}, 5, '"labels" is a list; a string or a number is expected'),
        ({"labels": [float("nan")]}, 5, "not a number between"),
        ({"labels": [""]}, 5, '"labels" is empty'),
    ],
)
def test_bad_label_lists(file, change, line, said):
    assert said in complaint(file, spoiled(TAGGED, change), line=line)


def test_label_lists_that_say_nothing(file):
    assert "no label but" in complaint(file, several([{"text": "a", "labels": ["x"]}, {"text": "b", "labels": []}]))
    assert "no label at all" in complaint(file, several([{"text": "a", "labels": []}]))
    assert "the same labels" in complaint(file, several([{"text": "a", "labels": ["x", "y"]}]))


# A task that the user names.


def test_whole_numbers_as_values_and_fractions_as_classes(file):
    whole = write_lines(file, several([{"text": "a", "label": 1}, {"text": "b", "label": 2}]))
    assert read_target(whole).task == "classification"
    assert read_target(whole, task="regression").labels[:2] == (1.0, 2.0)
    halves = write_lines(file, several([{"text": "a", "label": 0.5}, {"text": "b", "label": 2}]))
    assert read_target(halves, task="classification").classes == ("0.5", "2")


def test_a_named_task_that_the_labels_do_not_fit(file):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert "a string, where regression takes a number" in complaint(file, several(rows), line=1, task="regression")
    assert "see --task multi-label" in complaint(file, several(TAGGED), line=1, task="classification")


# Multiple choice.

CHOICE = [
    {"question": "q1", "choices": ["a", "b", "c"], "label": 0},
    {"question": "q2", "choices": ["d", "e"], "label": 1},
]


def test_multiple_choice(file):
    target = read_target(write_lines(file, several(CHOICE)))
    assert (target.task, target.texts[:2], target.pairs) == ("multiple-choice", ("q1", "q2"), None)
    assert (target.choices[:2], target.labels[:2]) == ((("a", "b", "c"), ("d", "e")), (0, 1))


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"question": "q", "options": ["a", "b", "c"], "answer": "C"}, 2),
        ({"question": "q", "options": ["b", "a", "c"], "answer": "a"}, 1),  # the text before the letter
        ({"question": "q", "options": ["x", "y"], "answer": "1"}, 1),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"question_stem": "q", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}], "answerKey": "B"}, 1),
        ({"article": "long", "question": "q", "options": ["x", "y"], "answer": "y"}, 1),
        ({"premise": "p", "question": "cause", "choice1": "x", "choice2": "y", "label": 1}, 1),
        ({"question": "q", "B": "y", "A": "x", "answer": "B"}, 1),
        ({"ctx": "q", "endings": ["x", "y"], "label": "1"}, 1),
        ({"goal": "q", "sol1": "x", "sol2": "y", "label": 1}, 1),
    ],
)
def test_the_forms_that_choices_come_in(file, row, right):
    target = read_target(write_lines(file, several([row, dict(reversed(row.items()))])), fields=None)
    assert (target.task, set(target.labels)) == ("multiple-choice", {right})
    assert target.choices[0][1] in ("b", "a", "y")
    assert (target.pairs is not None) == bool({"article", "premise"} & set(row))


def test_positions_from_one(file):
    rows = several([{"question": "q", "choices": ["x", "y"], "label": 1}, {"question": "r", "choices": ["x", "y"], "label": 2}])
    target = read_target(write_lines(file, rows))
    assert (target.labels[:2], target.notes) == ((0, 1), ("labels count the choices from 1",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": ["a"]}, "has 1 choices; from 2 to 100"),
        ({"choices": "a"}, '"choices" is a string'),
        ({"choices": ["a", ""]}, "choice 2 is empty"),
        ({"choices": ["a", 3]}, "choice 2 is a number"),
        ({"choices": {"label": ["a", "b"]}}, '"choices" is a null'),
        ({"label": 7}, '"label" is 7, but there are 3 choices'),
        ({"label": -1}, '"label" is -1'),
        ({"label": 3}, '"label" is 3, but the 3 choices count from 0'),
        ({"label": None}, '"label" is a null: neither'),
        ({"label": True}, '"label" is a boolean: neither'),
        ({"label": "zebra"}, '"label" is "zebra": neither'),
        ({"label": 0.5}, '"label" is a number: neither'),
        ({"question": " "}, '"question" is empty'),
    ],
)
def test_bad_choices(file, change, said):
    assert said in complaint(file, spoiled(CHOICE, change), line=5)


# Tagging.

TOKENS = [
    {"tokens": ["Ada", "sings"], "tags": ["B-per", "O"]},
    {"tokens": ["It", "rains", "."], "tags": ["O", "O", "O"]},
]


def test_tagging(file):
    target = read_target(write_lines(file, several(TOKENS)))
    assert (target.task, target.classes, target.texts[0]) == ("tagging", ("B-per", "O"), "Ada sings")
    assert (target.tokens[0], target.tags[:2]) == (("Ada", "sings"), ((0, 1), (1, 1, 1)))


def test_tags_by_number_and_words_in_a_string(file):
    rows = several([{"words": "Ada sings", "ner_tags": [10, 2]}, {"words": "so", "ner_tags": [2]}])
    target = read_target(write_lines(file, rows))
    assert (target.classes, target.tags[0], target.tokens[0]) == (("2", "10"), (1, 0), ("Ada", "sings"))


def test_long_rows_of_tokens_are_cut(file):
    long = {"tokens": ["w"] * (MAX_TOKENS + 5), "tags": ["O"] * (MAX_TOKENS + 5)}
    target = read_target(write_lines(file, [*several(TOKENS), long]))
    assert len(target.tokens[8]) == len(target.tags[8]) == MAX_TOKENS
    assert target.notes == ("line 9: cut to its first 4,000 tokens",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tags": ["O"]}, '"tokens" and "tags" have different lengths: 2 tokens, 1 tags'),
        ({"tokens": []}, '"tokens" is empty'),
        ({"tokens": ["a", ""]}, "token 2 is empty"),
        ({"tokens": ["a", 3]}, "token 2 is a number"),
        ({"tokens": {"a": 1}}, '"tokens" is a JSON object'),
        ({"tags": ["O", None]}, '"tags" is a null'),
        ({"tags": ["O", 1]}, "tags of mixed types: a number here, a string in line 1"),
        ({"tags": None}, '"tags" is a null; a list is expected'),
    ],
)
def test_bad_tags(file, change, said):
    assert said in complaint(file, spoiled(TOKENS, change), line=5)


def test_one_tag_only(file):
    assert 'every token has the tag "O"' in complaint(file, several(TOKENS[1:]))


# Extractive question answering.

CONTEXT = "Ada wrote it. Ada signed it in 1843."
SPAN = [
    {"question": "Who?", "context": CONTEXT, "answers": {"text": ["Ada"], "answer_start": [14]}},
    {"question": "When?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
]


def test_spans(file):
    target = read_target(write_lines(file, several(SPAN)))
    assert (target.task, target.texts[:2], target.pairs[0]) == ("qa", ("Who?", "When?"), CONTEXT)
    assert target.answers[:2] == ((Answer("Ada", 14),), ())


@pytest.mark.parametrize(
    ("row", "spans"),
    [
        ({"answers": [{"text": "Ada", "answer_start": 14}]}, (Answer("Ada", 14),)),
        ({"answers": {"text": "1843", "answer_start": 31}}, (Answer("1843", 31),)),
        ({"answers": ["Ada", "1843"]}, (Answer("Ada", 0), Answer("1843", 31))),
        ({"answer": "1843"}, (Answer("1843", 31),)),
        ({"answer": "Ada", "answer_start": 14}, (Answer("Ada", 14),)),
        ({"answers": {"text": ["Ada", "Ada"], "answer_start": [14, 14]}}, (Answer("Ada", 14),)),
        ({"answers": '{"text": ["Ada"], "answer_start": [14]}'}, (Answer("Ada", 14),)),
        ({"answers": None}, ()),
        ({"answers": ["Ada"], "is_impossible": True}, ()),
    ],
)
def test_the_forms_that_answers_come_in(file, row, spans):
    base = {"question": "Who?", "context": CONTEXT}
    usual = {"answers": ["Ada"]} if "answers" in row else {"answer": "Ada"}
    target = read_target(write_lines(file, several([base | row, base | usual])))
    assert target.answers[0] == spans


def test_a_start_that_is_off_is_moved_to_the_nearest_place(file):
    rows = several(SPAN)
    rows[4]["answers"] = {"text": ["Ada"], "answer_start": [12]}
    rows[6]["answers"] = {"text": ["Ada", "Bob"], "answer_start": [-5, 3]}
    target = read_target(write_lines(file, rows))
    assert (target.answers[4], target.answers[6]) == ((Answer("Ada", 14),), (Answer("Ada", 0),))
    assert target.notes[0].startswith(
        'line 5 and 2 more answers: answer_start 12 does not match the context; "Ada" was found at 14'
    )
    examined = examine_target(file)
    assert examined.usable
    assert [problem.line for problem in examined.problems] == [5, 7, 7]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": {"text": ["Bob"], "answer_start": [0]}}, '"Bob" is nowhere in the context'),
        ({"answers": {"text": ["Ada"], "answer_start": [0, 1]}}, "1 texts but 2 starts"),
        ({"answers": {"text": ["Ada"], "answer_start": ["x"]}}, "answer_start is a string"),
        ({"answers": {"text": ["Ada"], "answer_start": [True]}}, "answer_start is a boolean"),
        ({"answers": {"text": ["  "], "answer_start": [0]}}, "a text is empty"),
        ({"answers": [3]}, "a text is a number"),
        ({"answers": 3}, '"answers" is a number'),
        ({"context": None}, '"context" is a null'),
        ({"context": "x" * (MAX_CONTEXT + 1)}, "more than 1,000,000"),
    ],
)
def test_bad_answers(file, change, said):
    assert said in complaint(file, spoiled(SPAN, change), line=5)


def test_huge_starts_are_like_any_other_that_is_off(file):
    rows = spoiled(SPAN, {"answers": {"text": ["Ada"], "answer_start": [10**14]}})
    assert read_target(write_lines(file, rows)).answers[4] == (Answer("Ada", 14),)


def test_no_answer_anywhere(file):
    assert "no question has an answer" in complaint(file, several(SPAN[1:]))


# Texts to write.

PROMPT = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
CHAT = [{"messages": HELLO}, {"messages": [*HELLO, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}]


def test_prompts_and_completions(file):
    target = read_target(write_lines(file, several(PROMPT)))
    assert (target.task, target.texts[:2], target.outputs[:2], target.chats) == ("causal-lm", ("a", "c"), ("b", "d"), ())


def test_instructions_with_an_input(file):
    rows = several([{"instruction": "add", "input": "1 2", "output": "3"}, {"instruction": "go", "input": "", "output": "ok"}])
    target = read_target(write_lines(file, rows))
    assert (target.task, target.texts[:2]) == ("causal-lm", ("add\n\n1 2", "go"))


def test_chats(file):
    target = read_target(write_lines(file, several(CHAT)))
    assert (target.task, target.chats[0]) == ("causal-lm", (Turn("user", "hi"), Turn("assistant", "hello")))
    assert (target.texts[1], target.outputs[1]) == ("user: hi\nassistant: hello\nuser: x", "y")


def test_other_forms_of_chats(file):
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}, {"from": "human", "value": "unanswered"}]
    parts = {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}
    target = read_target(write_lines(file, several([{"conversations": turns}, {"conversations": [parts, HELLO[1]]}])))
    assert target.chats[0] == (Turn("user", "hi"), Turn("assistant", "yo"))
    assert target.chats[1] == (Turn("user", "hi"), Turn("assistant", "hello"))
    lists = several([{"prompt": HELLO[:1], "completion": HELLO[1:]}, {"prompt": HELLO, "completion": CHAT[1]["messages"][2:]}])
    target = read_target(write_lines(file, lists))
    assert [len(chat) for chat in target.chats[:2]] == [2, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "the assistant says nothing"),
        ({"messages": HELLO[:1]}, "the assistant says nothing"),
        ({"messages": [*HELLO, {"role": "assistant", "content": " "}]}, "the assistant says nothing"),
        ({"messages": ["hi"]}, "message 1 is a string"),
        ({"messages": [{"role": "\x1b[31mroot", "content": "x"}]}, 'the role is "[31mroot"'),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "the role is a list"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "the content is a JSON object"),
        ({"messages": [{"role": "user", "content": [{"image": 1}]}]}, "the content is a null"),
        ({"messages": "hi"}, '"messages" is a string; a list is expected'),
        ({"messages": HELLO * 600}, "has 1200 messages"),
    ],
)
def test_bad_chats(file, change, said):
    assert said in complaint(file, spoiled(CHAT, change), line=5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"completion": ""}, '"completion" is empty'),
        ({"completion": 3}, '"completion" is a number'),
        ({"prompt": HELLO}, '"prompt" is a list here, a text in line 1'),
    ],
)
def test_bad_completions(file, change, said):
    assert said in complaint(file, spoiled(PROMPT, change), line=5)


def test_one_output_for_all(file):
    assert "the same in every row" in complaint(file, several([PROMPT[0], PROMPT[1] | {"completion": "b"}]))


def test_text_to_text(file):
    target = read_target(write_lines(file, several([{"document": "a", "summary": "b"}, {"document": "c", "summary": "d"}])))
    assert (target.task, target.texts[0], target.outputs[0]) == ("seq2seq", "a", "b")


def test_plain_text_when_asked(file):
    rows = write_lines(file, several([{"text": "a"}, {"text": "b"}]))
    target = read_target(rows, task="causal-lm")
    assert (target.texts[0], target.outputs[:2]) == ("", ("a", "b"))


# All tasks.

ALL = {
    "classification": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
    "regression": [{"text": "a", "label": 0.5}, {"text": "b", "label": 2}],
    "multi-label": TAGGED,
    "multiple-choice": CHOICE,
    "tagging": TOKENS,
    "qa": SPAN,
    "causal-lm": CHAT,
    "seq2seq": [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}],
}


@pytest.mark.parametrize("task", ALL)
def test_every_task_is_inferred_and_agrees_with_being_named(file, task):
    target = read_target(write_lines(file, several(ALL[task])))
    assert target.task == task
    assert read_target(file, task=task) == target
    assert len(target) == len(target.lines) == 8


@pytest.mark.parametrize("task", ALL)
def test_the_hash_is_of_the_rows(file, task):
    target = read_target(write_lines(file, several(ALL[task])))
    file.write_text("\n\n".join(json.dumps(row | {"id": i}) for i, row in enumerate(several(ALL[task]))), "utf-8")
    assert read_target(file).sha256 == target.sha256
    changed = read_target(write_lines(file, several(ALL[task])[::-1]))
    assert changed.sha256 != target.sha256


@pytest.mark.parametrize("task", ALL)
def test_a_single_row_is_too_few(file, task):
    rows = several(ALL[task], 1)
    write_lines(file, rows)
    with pytest.raises(TargetError, match="only 1 row; at least 8"):
        read_target(file, task=task)


_junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "a", "[1", "[]", "{}", "user", "\ud800", "9" * 20]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "answer_start", "role", "content", "label", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=st.sampled_from(sorted(ALL)), junk=_junk, named=st.booleans(), data=st.data())
def test_junk_in_a_field_is_named_or_understood(file, task, junk, named, data):
    """Nothing but a TargetError leaves, and what is understood can be encoded and counted."""
    rows = several(ALL[task], 10)
    field = data.draw(st.sampled_from(sorted(rows[4])))
    rows[4][field] = junk
    examined = examine_target(write_lines(file, rows), task=task if named else None)
    if examined.usable:
        target = read_target(file, task=task if named else None)
        assert (len(target), target.task) == (10, task if named else target.task)
        assert all(text.encode("utf-8") is not None for text in (*target.texts, *target.outputs, *target.classes))
    else:
        with pytest.raises(TargetError):
            read_target(file, task=task if named else None)
    for problem in examined.problems:
        assert problem.message.isprintable()
    assert json.loads(target_json(summarise(examined)))["usable"] == examined.usable


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("covidqa", "qa"),
        ("restaurant8k_qa", "qa"),
        ("ner_wnut17", "tagging"),
        ("pos_ud_ewt", "tagging"),
        ("mc_copa", "multiple-choice"),
    ],
)
def test_real_sets(name, task):
    path = DATA / "qa" / name / "train.jsonl.gz"
    if not path.exists():
        pytest.skip("no real data here")
    target = read_target(path)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        assert (target.task, len(target), target.notes) == (task, sum(1 for _ in lines), ())
    for context, answers in zip(target.pairs or (), target.answers, strict=task == "qa"):
        assert all(context.startswith(answer.text, answer.start) for answer in answers)
