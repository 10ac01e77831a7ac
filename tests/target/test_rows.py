"""Reading a target file: what is accepted, and one clear line with the line number for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hubrank.errors import TargetError
from hubrank.target.rows import MAX_CHARACTERS, MIN_ROWS, Target, read_target
from tests.ranking.builders import write_lines


def rows(n: int = 8) -> list[dict[str, object]]:
    return [{"text": f"text {i}", "label": ("no", "yes")[i % 2]} for i in range(n)]


def labelled(labels: list[object]) -> list[dict[str, object]]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def complaint(path: Path, *, line: int | None = None) -> str:
    """What read_target says of a file, less the path; the line number and the one-line form are checked on the way."""
    with pytest.raises(TargetError) as caught:
        read_target(path)
    message = str(caught.value)
    where = f"{path}: " if line is None else f"{path}:{line}: "
    assert message.startswith(where)
    assert caught.value.line == line
    assert message.isprintable()
    assert len(message) < 500
    return message.removeprefix(where)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "target.jsonl"


# What is accepted.


def test_texts_labels_and_classes(file):
    target = read_target(write_lines(file, rows(9)))
    assert target.task == "classification"
    assert target.texts == tuple(f"text {i}" for i in range(9))
    assert target.pairs is None
    assert target.classes == ("no", "yes")
    assert target.labels == (0, 1) * 4 + (0,)
    assert target.notes == ()
    assert (len(target), target.path, target.name) == (9, str(file), "target.jsonl")
    assert len(target.sha256) == 64
    assert target.fields == (("text", "text"), ("label", "label"))
    assert list(target.lines) == list(range(1, 10))


def test_the_smallest_file_that_is_enough(file):
    assert len(read_target(write_lines(file, rows(MIN_ROWS)))) == MIN_ROWS
    assert "only 7 rows" in complaint(write_lines(file, rows(MIN_ROWS - 1)))


@pytest.mark.parametrize("name", ["text", "sentence", "content", "utterance", "query"])
def test_names_of_the_text_field(file, name):
    target = read_target(write_lines(file, [{name: row["text"], "label": row["label"]} for row in rows()]))
    assert target.texts[3] == "text 3"
    assert target.pairs is None


@pytest.mark.parametrize("name", ["label", "labels", "score", "intent", "category", "class"])
def test_names_of_the_label_field(file, name):
    assert read_target(write_lines(file, [{"text": row["text"], name: row["label"]} for row in rows()])).classes == (
        "no",
        "yes",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("text", "text_pair"),
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("question1", "question2"),
        ("text1", "text2"),
        ("question", "sentence"),
    ],
)
def test_names_of_the_fields_of_a_pair(file, first, second):
    pairs = [{first: f"one {i}", second: f"two {i}", "label": i % 2} for i in range(8)]
    target = read_target(write_lines(file, pairs))
    assert (target.texts[5], target.pairs[5]) == ("one 5", "two 5")


def test_a_null_second_text_is_none(file):
    assert read_target(write_lines(file, [row | {"text_pair": None} for row in rows()])).pairs is None


def test_blank_lines_and_a_missing_last_newline_do_not_matter(file):
    lines = [json.dumps(row) for row in rows()]
    file.write_text("\n\n" + "\n  \n".join(lines), "utf-8")
    assert len(read_target(file)) == 8


def test_byte_order_mark_and_crlf(file):
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in rows()) + b"\r\n")
    assert read_target(file).texts[7] == "text 7"


def test_line_separators_inside_a_string_end_no_line(file):
    odd = "one\u2028two\u2029three\x85four\x0bfive"
    file.write_text(
        "\n".join(json.dumps(row | {"text": odd}, ensure_ascii=False) for row in rows()).replace("\x0b", "\\u000b"), "utf-8"
    )
    assert set(read_target(file).texts) == {odd}


def test_long_texts_are_cut_and_it_is_said_once(file):
    some = rows()
    some[2]["text"] = "x" * 1_000_000
    some[5]["text"] = "y" * (MAX_CHARACTERS + 1)
    target = read_target(write_lines(file, some))
    assert [len(text) for text in target.texts][2:6] == [MAX_CHARACTERS, 6, 6, MAX_CHARACTERS]
    (note,) = target.notes
    assert "line 3 and 1 more rows" in note
    assert "20,000" in note


def test_a_long_second_text_is_cut_too_and_the_limit_itself_is_not(file):
    some = [row | {"text_pair": "p"} for row in rows()]
    some[0]["text_pair"] = "x" * 30_000
    some[1]["text"] = "y" * MAX_CHARACTERS
    target = read_target(write_lines(file, some))
    assert len(target.pairs[0]) == MAX_CHARACTERS
    assert target.notes == ("line 1: text cut to its first 20,000 characters",)


def test_lone_surrogates_become_characters_that_can_be_encoded(file):
    some = rows()
    some[0] |= {"text": "bad \ud800 half", "label": "no\udfff"}
    some[1]["label"] = "no\udfff"
    target = read_target(write_lines(file, some))
    assert target.texts[0] == "bad ? half"
    assert "no?" in target.classes


def test_integer_labels_keep_their_order(file):
    target = read_target(write_lines(file, labelled([10, 2, 10, 2, -1, 2, 10, -1])))
    assert target.classes == ("-1", "2", "10")
    assert target.labels == (2, 1, 2, 1, 0, 1, 2, 0)


def test_boolean_labels(file):
    target = read_target(write_lines(file, labelled([True, False] * 4)))
    assert (target.task, target.classes, target.labels[:2]) == ("classification", ("false", "true"), (1, 0))


def test_whole_floats_are_classes_and_equal_to_the_integers(file):
    target = read_target(write_lines(file, labelled([1.0, 0, 1, 0.0, -0.0, 1, 0, 1.0])))
    assert (target.task, target.classes) == ("classification", ("0", "1"))


def test_classes_have_names_of_their_own(file):
    target = read_target(write_lines(file, labelled([1234567.0, 1234568.0] * 4)))
    assert target.classes == ("1234567", "1234568")


def test_a_fraction_makes_it_a_regression(file):
    target = read_target(write_lines(file, labelled([1, 2, 3.5, 2, 0, 5, 4, 1e15])))
    assert (target.task, target.classes) == ("regression", ())
    assert target.labels == (1.0, 2.0, 3.5, 2.0, 0.0, 5.0, 4.0, 1e15)


def test_a_regression_may_give_every_row_a_value_of_its_own(file):
    assert read_target(write_lines(file, labelled([i + 0.25 for i in range(8)]))).task == "regression"


# The file as a whole.


def test_no_such_file(file):
    assert complaint(file) == "no such file"


def test_a_folder(tmp_path):
    assert "folder" in complaint(tmp_path)


def test_a_file_used_as_a_folder(file):
    write_lines(file, rows())
    assert "cannot be read" in complaint(file / "inside")


def test_a_path_that_no_system_allows():
    with pytest.raises(TargetError, match="cannot be read"):
        read_target("with\0nul.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n  "])
def test_empty(file, content):
    file.write_bytes(content)
    assert "empty" in complaint(file)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n", "\u2003\n".encode()])
def test_nothing_but_marks_and_blanks(file, content):
    file.write_bytes(content)
    assert "is empty" in complaint(file)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_not_utf8_names_the_line(file, mark):
    lines = [json.dumps(row).encode() for row in rows()]
    lines[3] = b"\xff" + lines[3]  # the first byte of its line, where an offset by the mark's length would show
    file.write_bytes(mark + b"\n".join(lines))
    assert "UTF-8" in complaint(file, line=4)


def test_utf16_is_not_utf8(file):
    file.write_text("\n".join(json.dumps(row) for row in rows()), "utf-16")
    assert "UTF-8" in complaint(file, line=1)


# One line.


def damaged(file: Path, line: str) -> Path:
    lines = [json.dumps(row) for row in rows()]
    lines.insert(4, line)
    file.write_text("\n".join(lines), "utf-8")
    return file


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("text,label", "not JSON"),
        ('{"text": "a", "label": "b"', "at column 27"),
        ('{"text": "a", "label" "b"}', "at column 23"),
        ('{"text": "a", "label": "b"} {"text": "c", "label": "d"}', "not JSON"),
        ("{'text': 'a', 'label': 'b'}", "not JSON"),
        ('["a", "b"]', "a JSON list"),
        ("3", "a JSON number"),
        ("3.5", "a JSON number"),
        ('"text"', "a JSON string"),
        ("null", "a JSON null"),
        ("true", "a JSON boolean"),
        ("{}", "no text field"),
        ('{"label": "yes", "body": "a"}', 'no text field ("text" is expected; fields found: body, label)'),
        ('{"premise": "a", "label": "yes"}', "no text field"),
        ('{"text": "a", "target": "yes"}', 'no label field ("label" is expected; fields found: target, text)'),
        ('{"text": null, "label": "yes"}', '"text" is a null, not a string'),
        ('{"text": 4, "label": "yes"}', '"text" is a number, not a string'),
        ('{"text": ["a"], "label": "yes"}', '"text" is a list, not a string'),
        ('{"text": "", "label": "yes"}', '"text" is empty'),
        ('{"text": " \\n\\u2003", "label": "yes"}', '"text" is empty'),
        ('{"text": "a", "text_pair": "", "label": "yes"}', '"text_pair" is empty'),
        ('{"text": "a", "text_pair": 1, "label": "yes"}', '"text_pair" is a number'),
        ('{"text": "a", "label": null}', '"label" is a null'),
        ('{"text": "a", "label": ["yes"]}', '"label" is a list'),
        ('{"text": "a", "label": {"yes": 1}}', '"label" is a JSON object'),
        ('{"text": "a", "label": "  "}', '"label" is empty'),
        ('{"text": "a", "label": NaN}', '"label" is not a number between'),
        ('{"text": "a", "label": Infinity}', '"label" is not a number between'),
        ('{"text": "a", "label": -Infinity}', '"label" is not a number between'),
        ('{"text": "a", "label": 1e400}', '"label" is not a number between'),
        ('{"text": "a", "label": 1e16}', '"label" is not a number between'),
        ('{"text": "a", "label": -1' + "0" * 400 + "}", '"label" is not a number between'),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "a number too long"),
        ("[" * 100_000, "nested too deep"),
        ('{"text": "a", "label": "yes", "meta": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
    ],
)
def test_a_bad_line_is_named(file, line, said):
    assert said in complaint(damaged(file, line), line=5)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\ud800b", "a" * 100_000, "\u202eabc"])
def test_field_names_cannot_break_the_message(file, name):
    """Names are quoted back to the user: they must not add lines, drive the terminal or be impossible to print."""
    complaint(damaged(file, json.dumps({name: 1, "label": "yes"})), line=5)
    complaint(damaged(file, json.dumps({name: 1, "text": "yes"})), line=5)


def test_a_row_without_its_second_text(file):
    some = [row | {"text_pair": "p"} for row in rows()]
    del some[6]["text_pair"]
    assert "no second text" in complaint(write_lines(file, some), line=7)


# The labels together.


@pytest.mark.parametrize(
    ("odd", "usual", "kinds"),
    [
        (1, "yes", ("number", "string")),
        (1.5, "yes", ("number", "string")),
        (True, "yes", ("boolean", "string")),
        ("1", 1, ("string", "number")),
        (True, 1, ("boolean", "number")),
        (False, 0.5, ("boolean", "number")),
    ],
)
def test_labels_of_mixed_types_name_both_lines(file, odd, usual, kinds):
    labels = [usual] * 8
    labels[5] = odd
    said = complaint(write_lines(file, labelled(labels)), line=6)
    assert f"a {kinds[0]} here, a {kinds[1]} in line 1" in said


@pytest.mark.parametrize(("label", "name"), [("yes", "yes"), (3, "3"), (True, "true")])
def test_one_class_only(file, label, name):
    said = complaint(write_lines(file, labelled([label] * 8)))
    assert f'every row has the label "{name}"' in said


@pytest.mark.parametrize("label", ["a\nb", "x" * 100_000, "\x1b[2J"])
def test_class_names_cannot_break_the_message(file, label):
    assert "every row has the label" in complaint(write_lines(file, labelled([label] * 8)))


def test_constant_regression(file):
    assert "every row has the label 0.5" in complaint(write_lines(file, labelled([0.5] * 8)))


def test_every_row_a_class_of_its_own(file):
    assert "label of its own" in complaint(write_lines(file, labelled([f"label {i}" for i in range(8)])))


# Anything at all.

_good = [json.dumps(row).encode() for row in rows()]
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_fields = st.sampled_from(["text", "sentence", "text_pair", "label", "labels", "score", "question"])
_objects = st.dictionaries(_fields | st.text(max_size=4), _values, max_size=4).map(lambda value: json.dumps(value).encode())
_kinds = st.sampled_from(
    [st.booleans(), st.integers(-2, 2), st.floats(-9, 9), st.floats(), st.sampled_from(["a", "b", "c\n", "\ud800"])]
)


def _likely(label):
    text = st.just("t") | st.text(min_size=1, max_size=8)
    return st.fixed_dictionaries({"text": text, "label": label}).map(lambda value: json.dumps(value).encode())


_lines = st.sampled_from(_good) | _likely(st.integers()) | _objects | st.binary(max_size=30)
_mixtures = st.lists(_lines, max_size=14).map(b"\n".join)
_plausible = _kinds.flatmap(lambda label: st.lists(_likely(label), min_size=8, max_size=14)).map(b"\n".join)


def outcome(file: Path) -> Target | TargetError:
    try:
        return read_target(file)
    except TargetError as error:
        return error


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | _mixtures | _plausible)
@example(content=b"\n".join([*_good, b'{"a\\nb": 1}']))
@example(content=b"\xef\xbb\xbf" + b"\n".join([*_good, b"\xff"]))
def test_whatever_the_bytes_a_target_or_a_target_error(file, content):
    file.write_bytes(content)
    target = outcome(file)
    if isinstance(target, TargetError):
        assert str(target).startswith(str(file))
        assert str(target).isprintable()
        return
    assert isinstance(target, Target)
    assert len(target.texts) == len(target.labels) >= MIN_ROWS
    assert target.pairs is None or len(target.pairs) == len(target.texts)
    assert all(text.strip() and text.encode("utf-8") for text in (*target.texts, *(target.pairs or ())))
    if target.task == "regression":
        assert min(target.labels) < max(target.labels)
        assert all(abs(label) <= 1e15 for label in target.labels)
    else:
        assert set(target.labels) == set(range(len(target.classes)))
        assert len(set(target.classes)) == len(target.classes) >= 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_changed_byte(file, at, byte):
    """A complaint about one damaged line names that line, or none where it is about the labels together."""
    content = bytearray(b"\n".join([json.dumps(row).encode() for row in rows(12)]))
    at %= len(content)
    content[at] = byte
    file.write_bytes(content)
    error = outcome(file)
    if isinstance(error, TargetError) and error.line is not None:
        assert 1 <= error.line <= content.count(b"\n") + 1
        if content.count(b"\n") == 11 and byte != ord("\n") and "mixed" not in str(error):
            assert error.line == content.count(b"\n", 0, at) + 1
