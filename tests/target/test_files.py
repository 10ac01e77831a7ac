"""The formats of target files: the same rows make the same target, and damage is named with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import threading

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hubrank.errors import TargetError
from hubrank.target import files
from hubrank.target.rows import examine_target, read_target
from tests.target.test_tasks import ALL, several

ROWS = several(ALL["classification"])
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
COLUMNS = (
    "task",
    "texts",
    "pairs",
    "labels",
    "classes",
    "label_sets",
    "choices",
    "tokens",
    "tags",
    "answers",
    "outputs",
    "chats",
)


def table(rows, delimiter=","):
    """CSV as a spreadsheet or pandas would write it; lists and objects as JSON."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    names = list(rows[0])
    writer.writerow(names)
    for row in rows:
        cells = [row[name] for name in names]
        writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells])
    return out.getvalue().encode()


def read(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content)
    return read_target(path, **options)


def complaint(folder, name, content, *, line=None):
    with pytest.raises(TargetError) as caught:
        read(folder, name, content)
    assert caught.value.line == line, str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    # Examining goes on where it can: what cannot even be told apart is raised there, too.
    found = outcome(lambda: examine_target(folder / name))
    if isinstance(found, TargetError):
        assert str(found) == str(caught.value)
    else:
        assert not found.usable
        assert caught.value.message in [problem.message for problem in found.problems]
    return caught.value.message


def outcome(read):
    try:
        return read()
    except TargetError as error:
        return error


def same(first, second):
    return first.sha256 == second.sha256 and all(getattr(first, name) == getattr(second, name) for name in COLUMNS)


# The same rows in every format.


@pytest.mark.parametrize("task", ALL)
def test_every_format_gives_the_same_target(tmp_path, task):
    rows = several(ALL[task])
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    target = read(tmp_path, "rows.jsonl", lines)
    others = {
        "rows.jsonl.gz": gzip.compress(lines),
        "zipped.jsonl": gzip.compress(lines),
        "marked.jsonl": b"\xef\xbb\xbf" + lines,
        "array.json": json.dumps(rows, indent=2).encode(),
        "array.jsonl": json.dumps(rows).encode(),
        "data.json": json.dumps({"version": 1, "data": rows}).encode(),
        "lines.json": lines,
        "rows": lines,
        "rows.csv": table(rows),
        "rows.csv.gz": gzip.compress(table(rows)),
        "rows.tsv": table(rows, "\t"),
        "semicolons.csv": table(rows, ";"),
        "table.txt": table(rows, "\t"),
        "marked.csv": b"\xef\xbb\xbf" + table(rows),
    }
    for name, content in others.items():
        assert same(read(tmp_path, name, content), target), name


@pytest.mark.parametrize("task", ALL)
def test_parquet_gives_the_same_target(tmp_path, task):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = several(ALL[task])
    target = read(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, rows)).encode())
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    for name in ("rows.parquet", "rows"):
        assert same(read(tmp_path, name, out.getvalue()), target)
    assert same(read(tmp_path, "rows.parquet.gz", gzip.compress(out.getvalue())), target)
    message = complaint(tmp_path, "cut.parquet", out.getvalue()[:-20])
    assert "not a Parquet file that can be read" in message


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'hubrank[parquet]'" in complaint(tmp_path, "rows.parquet", b"PAR1 and so on PAR1")


def test_parquet_rows_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), out)
    monkeypatch.setattr(files, "MAX_ROWS", 5)
    assert "more than 5 rows" in complaint(tmp_path, "rows.parquet", out.getvalue())
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    assert "a few thousand rows are plenty" in complaint(tmp_path, "rows.parquet", out.getvalue())


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(str.strip)
_names = st.sampled_from([("text", "label"), ("sentence", "category"), ("content", "intent"), ("utterance", "score")])
_labels = st.sampled_from([("yes", "no"), (0, 3), (0.5, 2), ("é", "=1+1"), (True, False)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_texts, min_size=8, max_size=12), names=_names, labels=_labels, order=st.randoms(use_true_random=False))
@example(
    texts=['"', ",", "a\tb", "a\nb", "a\r\nb", " x ", "[1]", "=1"], names=("text", "label"), labels=("yes", "no"), order=None
)
def test_round_trips(tmp_path, texts, names, labels, order):
    """Whatever the texts, the names, and the order of the columns."""
    rows = [{"text": text, "label": labels[i % 2]} for i, text in enumerate(texts)]
    target = read(tmp_path, "plain.jsonl", "\n".join(map(json.dumps, rows)).encode())
    renamed = [{names[0]: row["text"], "id": i, names[1]: row["label"]} for i, row in enumerate(rows)]
    columns = list(renamed[0])
    if order is not None:
        order.shuffle(columns)
    renamed = [{name: row[name] for name in columns} for row in renamed]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in renamed).encode()
    assert same(read(tmp_path, "a.jsonl", lines), target)
    assert same(read(tmp_path, "a.jsonl.gz", gzip.compress(lines, 1)), target)
    assert same(read(tmp_path, "a.json", json.dumps(renamed).encode()), target)
    assert same(read(tmp_path, "a.csv", table(renamed)), target)
    assert same(read(tmp_path, "a.tsv", table(renamed, "\t")), target)


def test_a_pipe(tmp_path):
    """What a shell's <(...) gives: nothing that could be rewound."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(table(ROWS)),))
    writer.start()
    target = read_target(pipe)
    writer.join()
    assert len(target) == 8


# Squad's own files.


def test_squads_nested_file(tmp_path):
    questions = [{"question": f"q{i}", "id": str(i), "answers": [{"text": "b", "answer_start": 2}]} for i in range(4)]
    impossible = {"question": "q", "is_impossible": True, "answers": []}
    articles = [{"title": "t", "paragraphs": [{"context": "a b c", "qas": [*questions, impossible]}]}] * 2
    target = read(tmp_path, "squad.json", json.dumps({"version": "v2.0", "data": articles}).encode())
    assert (target.task, len(target), target.pairs[0]) == ("qa", 10, "a b c")
    assert [len(answers) for answers in target.answers[:5]] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("value", [{"rows": ROWS}, {"data": 3}, {"text": "a", "label": "b"}])
def test_an_object_without_rows(tmp_path, value):
    assert 'no list of rows under "data"' in complaint(tmp_path, "rows.json", json.dumps(value, indent=1).encode())


def test_an_article_without_questions(tmp_path):
    value = {"data": [{"paragraphs": [{"context": "a"}]}]}
    assert '"qas"' in complaint(tmp_path, "rows.json", json.dumps(value).encode(), line=1)


# Damage.


def test_a_key_twice(tmp_path):
    lines = JSONL.replace(b'"text": "a", "label": "x"', b'"text": "a", "label": "x", "label": "y"', 1)
    assert complaint(tmp_path, "rows.jsonl", lines, line=1) == 'the key "label" is there twice; keep one'
    array = b'[{"text": "a",\n"text": "b"}]'
    assert "is there twice" in complaint(tmp_path, "rows.json", array, line=1)


def test_arrays_name_the_line(tmp_path):
    array = "[" + ",\n".join(map(json.dumps, ROWS)) + "]"
    assert len(read(tmp_path, "good.json", array.encode())) == 8
    assert list(read_target(tmp_path / "good.json").lines) == list(range(1, 9))
    parts = array.split("\n")
    assert "not JSON" in complaint(tmp_path, "a.json", "\n".join([*parts[:3], "{,", *parts[4:]]).encode(), line=4)
    assert "is a number" in complaint(tmp_path, "b.json", array.replace('"a"', "3", 1).encode(), line=1)
    assert '"," or "]"' in complaint(tmp_path, "c.json", array[:-1].encode(), line=8)
    assert "more follows" in complaint(tmp_path, "d.json", (array + "\n[]").encode(), line=8)
    assert "not UTF-8" in complaint(tmp_path, "e.json", array.encode().replace(b'"b"', b'"\xff"', 1), line=2)
    assert "NUL" in complaint(tmp_path, "f.json", array.encode().replace(b'"b"', b'"\0"', 1), line=2)
    assert "nested too deep" in complaint(tmp_path, "g.json", b"[\n" + b"[" * 100_000, line=2)
    assert "is empty" in complaint(tmp_path, "h.json", b"[]")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_nul_bytes(tmp_path, name):
    content = (JSONL if name == "rows.jsonl" else table(ROWS)).splitlines(keepends=True)
    content[3] = content[3].replace(b"x", b"\0", 1).replace(b"y", b"\0", 1)
    assert "NUL bytes" in complaint(tmp_path, name, b"".join(content), line=4)
    assert "NUL bytes" in complaint(tmp_path, "utf16" + name[4:], "text,label\n".encode("utf-16-le"), line=1)


@pytest.mark.parametrize("cut", [1, 9, -9, -4])
def test_a_damaged_gzip_file(tmp_path, cut):
    whole = gzip.compress(JSONL * 50)
    content = whole[:cut] if cut < 0 else whole[: len(whole) // 2] + b"\xff" * cut
    assert "gzip file is damaged" in complaint(tmp_path, "rows.jsonl.gz", content)


@pytest.mark.parametrize(
    ("magic", "said"),
    [
        (b"PK\x03\x04", "spreadsheet"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"ARROW1", "Arrow"),
    ],
)
def test_other_packings_are_named(tmp_path, magic, said):
    assert said in complaint(tmp_path, "rows.csv", magic + b"\0" * 40)
    assert said in complaint(tmp_path, "rows.csv.gz", gzip.compress(magic + b"\0" * 40))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt", "a.csv.gz", "a.parquet"])
def test_empty(tmp_path, name):
    content = gzip.compress(b"") if name.endswith("gz") else b""
    assert ("is empty" if name != "a.parquet" else "Parquet") in complaint(tmp_path, name, content)


def test_lines_and_files_beyond_the_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 100)
    assert "a line of more than" in complaint(tmp_path, "long.jsonl", JSONL + b"x" * 101, line=9)
    monkeypatch.setattr(files, "MAX_BYTES", 200)
    assert "a few thousand rows are plenty" in complaint(tmp_path, "large.jsonl", JSONL, line=8)
    bomb = gzip.compress(b"\n" * 10_000_000)
    assert "a few thousand rows are plenty" in complaint(tmp_path, "bomb.jsonl.gz", bomb, line=201)
    monkeypatch.setattr(files, "_MAX_WHOLE", 100)
    assert "jq" in complaint(tmp_path, "large.json", b"[" + b" " * 100 + b"]")


def test_rows_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("hubrank.target.rows.MAX_ROWS", 20)
    assert "more than 20 rows" in complaint(tmp_path, "rows.jsonl", JSONL * 3, line=21)


def test_endless_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 1000)
    with pytest.raises(TargetError, match=r"a line of more"):
        read_target("/dev/zero")


# Tables.


def test_texts_over_several_lines_count_from_their_first(tmp_path):
    rows = [*ROWS[:7], {"text": "one\ntwo\n\nthree", "label": "x"}, {"text": "", "label": "x"}]
    assert '"text" is empty' in complaint(tmp_path, "rows.csv", table(rows), line=13)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"text,label\na,x,y\n", 2, "3 cells, where the header has 2"),
        (b"text,label\na\n", 2, "1 cells, where the header has 2"),
        (b'text,label\n"a" b,x\n', 2, "double the quotes"),
        (b'text,label\na,x\n"a,x\nb,y\n', 3, "double the quotes"),
        (b"text,label,text\na,x,b\n", 1, 'the header names "text" twice'),
        (b"text,label\na,\n", 2, '"label" is empty'),
        (
            b"headline,desk\na,x\n",
            2,
            'no text field ("text" is expected; fields found: desk, headline); name it with --fields text=FIELD',
        ),
        (b"text,label\ra,x\rb,y\r", 1, "new-line character"),
        (b"text,label\na,\xe9\n", 2, "not UTF-8"),
        (b",".join(b"c%d" % i for i in range(10_001)) + b"\n", 1, "at most 10,000"),
    ],
)
def test_bad_tables(tmp_path, content, line, said):
    assert said in complaint(tmp_path, "rows.csv", content, line=line)


def labels_in_csv(folder, labels, **options):
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    return read(folder, "labels.csv", table(rows), **options)


def test_a_table_has_no_types_so_its_labels_are_numbers_where_they_look_so(tmp_path):
    assert labels_in_csv(tmp_path, ["10", "2"] * 4).classes == ("2", "10")
    assert labels_in_csv(tmp_path, ["10", "2.5"] * 4).task == "regression"
    assert labels_in_csv(tmp_path, ["1a", "2", "3b", "2"] * 2).classes == ("1a", "2", "3b")
    assert labels_in_csv(tmp_path, ["1"] * 10 + ["2"] * 9 + ["n/a"], task="classification").classes == ("1", "2", "n/a")
    with pytest.raises(TargetError, match=r"labels\.csv:21: labels of mixed types: a string here, a number in line 2"):
        labels_in_csv(tmp_path, ["1"] * 10 + ["2"] * 9 + ["nan"])


def test_long_cells(tmp_path):
    rows = [{"text": "x" * 200_000, "label": "x"}, {"text": "y" * 200_000, "label": "y"}]
    assert len(read(tmp_path, "rows.csv", table(several(rows)))) == 8


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | st.lists(
        st.sampled_from([b"text,label", b"a,x", b"b,y", b'"', b"\r", b"\xff", b"{}", b"[", b"1,2,3", b""]), max_size=12
    ).map(b"\n".join),
    name=st.sampled_from(["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt", "a.csv.gz"]),
)
def test_whatever_the_bytes(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    found = outcome(lambda: read_target(path))
    if isinstance(found, TargetError):
        assert str(found).isprintable()
        assert found.line is None or 1 <= found.line <= content.count(b"\n") + content.count(b"\r") + 1
    else:
        assert len(found) >= 8
