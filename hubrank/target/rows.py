"""A target file on disk becomes a :class:`Target`: texts and labels, checked row by row.

Field names are taken from the ones people use (``_LAYOUTS``). Every complaint names the file and the line.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hubrank.checkpoints.card import plain
from hubrank.errors import TargetError

__all__ = ["MAX_CHARACTERS", "MIN_ROWS", "Target", "TaskKind", "read_target"]

TaskKind: TypeAlias = Literal["classification", "regression"]
Label: TypeAlias = str | int | float | bool

MIN_ROWS = 8
"""Fewer rows than this say too little about a task to rank anything by."""

MAX_CHARACTERS = 20_000
"""Longer texts are cut here before they are tokenised: no base model reads further, and tokenising a megabyte is slow."""

_LARGEST_LABEL = 1e15  # whole numbers up to here are exact in a float; NaN fails the comparison too

_PAIRS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
)
_SINGLES = ("text", "sentence", "content", "utterance", "query")
_LABELS = ("label", "labels", "score", "intent", "category", "class")


@dataclass(frozen=True, slots=True)
class Target:
    """The user's task.

    Attributes:
        path: the file it came from, as the user wrote it.
        sha256: of the file's bytes.
        task: ``classification`` or ``regression``.
        texts: one text a row.
        pairs: the second text of each row, or None for a task over single texts.
        labels: for classification the index into ``classes``; for regression the value itself.
        classes: the class names in sorted order; empty for regression.
        notes: what was changed on the way in, one sentence each, to be told to the user once.
    """

    path: str
    sha256: str
    task: TaskKind
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...] | tuple[float, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    text: str
    pair: str | None
    label: Label


def read_target(path: str | Path) -> Target:
    """Read a JSONL file of labelled rows.

    One JSON object a line, with ``text`` (or ``sentence``, ``content``, ...), for tasks over two texts also ``text_pair``
    (or ``premise``/``hypothesis``, ``sentence1``/``sentence2``, ...), and ``label``. String, integer and boolean labels are
    classes; labels with a fraction make it a regression.

    Raises:
        TargetError: the file is missing, empty or not UTF-8; a line is not a JSON object or lacks a text or a label; labels
            of mixed types, a single class, or fewer than ``MIN_ROWS`` rows.
    """
    raw = _read_bytes(Path(path))
    rows = _parse(path, raw)
    if len(rows) < MIN_ROWS:
        raise TargetError(
            path,
            f"only {len(rows)} row{'' if len(rows) == 1 else 's'}; at least {MIN_ROWS} labelled rows are needed to tell a task",
        )
    with_pair = [row for row in rows if row.pair is not None]
    if with_pair and len(with_pair) < len(rows):
        odd = next(row for row in rows if row.pair is None)
        raise TargetError(path, "this row has no second text, but others do; give every row both", line=odd.line)

    notes: list[str] = []
    long = [row for row in rows if max(len(row.text), len(row.pair or "")) > MAX_CHARACTERS]
    if long:
        many = f" and {len(long) - 1} more rows" if len(long) > 1 else ""
        notes.append(f"line {long[0].line}{many}: text cut to its first {MAX_CHARACTERS:,} characters")
    task = _task_of(path, rows)
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] | tuple[float, ...]
    if task == "regression":
        labels = tuple(float(row.label) for row in rows)
        if max(labels) == min(labels):
            raise TargetError(path, f"every row has the label {labels[0]:g}; there is nothing to learn from it")
    else:
        names = {row.label: _class_name(row.label) for row in rows}
        # Sorted by value, not by name, so that integer classes keep their order (2 before 10).
        ordered = sorted(names, key=lambda label: (isinstance(label, str), label))
        if len(ordered) < 2:
            raise TargetError(
                path, f'every row has the label "{plain(names[ordered[0]], 60)}"; at least two classes are needed'
            )
        index = {label: i for i, label in enumerate(ordered)}
        labels = tuple(index[row.label] for row in rows)
        classes = tuple(names[label] for label in ordered)
        if len(classes) == len(rows):
            raise TargetError(path, "every row has a label of its own; is the label field really a class?")
    return Target(
        path=str(path),
        sha256=hashlib.sha256(raw).hexdigest(),
        task=task,
        texts=tuple(row.text[:MAX_CHARACTERS] for row in rows),
        pairs=tuple((row.pair or "")[:MAX_CHARACTERS] for row in rows) if with_pair else None,
        labels=labels,
        classes=classes,
        notes=tuple(notes),
    )


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise TargetError(path, "no such file") from None
    except IsADirectoryError:
        raise TargetError(path, "is a folder; give a JSONL file of labelled rows") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise TargetError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not raw.strip():
        raise TargetError(path, "is empty; give one JSON object a line with a text and a label")
    return raw


def _parse(path: str | Path, raw: bytes) -> list[_Row]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1  # its own bytes: raw still has the byte order mark
        raise TargetError(path, "not UTF-8; save the file as UTF-8 (iconv -t utf-8 does)", line=line) from None
    # Not splitlines(): that also breaks at characters such as U+2028, which JSON allows inside a string.
    return [_row(path, number, content) for number, content in enumerate(text.split("\n"), 1) if content.strip()]


def _row(path: str | Path, number: int, line: str) -> _Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        message = f"not JSON ({error.msg} at column {error.colno}); one JSON object a line is expected"
        raise TargetError(path, message, line=number) from None
    except (RecursionError, ValueError):
        raise TargetError(path, "not JSON that can be read (nested too deep, or a number too long)", line=number) from None
    if not isinstance(value, dict):
        message = f"a JSON {_json_type(value)}, where an object with a text and a label is expected"
        raise TargetError(path, message, line=number)
    first, second = _text_fields(path, number, value)
    text = _text(path, number, value, first)
    pair = _text(path, number, value, second) if second else None
    return _Row(number, text, pair, _label(path, number, value))


def _text_fields(path: str | Path, number: int, value: dict[str, object]) -> tuple[str, str | None]:
    for first, second in _PAIRS:
        if first in value and value.get(second) is not None:
            return first, second
    for name in _SINGLES:
        if name in value:
            return name, None
    raise TargetError(path, f'no text field ("text" is expected; fields found: {_names(value)})', line=number)


def _text(path: str | Path, number: int, value: dict[str, object], name: str) -> str:
    text = value[name]
    if not isinstance(text, str):
        raise TargetError(path, f'"{name}" is a {_json_type(text)}, not a string', line=number)
    if not text.strip():
        raise TargetError(path, f'"{name}" is empty', line=number)
    # Lone surrogates are legal in JSON escapes and fatal to every tokenizer.
    return text.encode("utf-8", "replace").decode("utf-8")


def _label(path: str | Path, number: int, value: dict[str, object]) -> Label:
    for name in _LABELS:
        if name in value:
            label = value[name]
            if not isinstance(label, str | int | float):
                raise TargetError(path, f'"{name}" is a {_json_type(label)}; a string or a number is expected', line=number)
            if isinstance(label, int | float) and not abs(label) <= _LARGEST_LABEL:
                raise TargetError(path, f'"{name}" is not a number between -1e15 and 1e15', line=number)
            if isinstance(label, str) and not label.strip():
                raise TargetError(path, f'"{name}" is empty', line=number)
            return label.encode("utf-8", "replace").decode("utf-8") if isinstance(label, str) else label
    raise TargetError(path, f'no label field ("label" is expected; fields found: {_names(value)})', line=number)


def _names(value: dict[str, object]) -> str:
    return ", ".join(plain(name, 40) for name in sorted(value)[:8]) or "none"


def _task_of(path: str | Path, rows: list[_Row]) -> TaskKind:
    kinds: dict[str, int] = {}
    for row in rows:
        kinds.setdefault(_label_kind(row.label), row.line)
    if len(kinds) > 1:
        (kind, line), (other, other_line) = sorted(kinds.items(), key=lambda item: item[1])[:2]
        message = f"labels of mixed types: a {other} here, a {kind} in line {line}; use one type throughout"
        raise TargetError(path, message, line=other_line)
    fractions = any(isinstance(row.label, float) and not row.label.is_integer() for row in rows)
    return "regression" if fractions else "classification"


def _label_kind(label: Label) -> str:
    if isinstance(label, bool):
        return "boolean"
    return "string" if isinstance(label, str) else "number"


def _class_name(label: Label) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) else str(label)  # a class that is a float is a whole number


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case dict():
            return "JSON object"
        case list():
            return "list"
        case str():
            return "string"
        case _:
            return "number"
