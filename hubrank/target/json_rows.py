"""JSON: one object a line, or an array of them, or SQuAD's nested file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from hubrank.checkpoints.card import plain
from hubrank.errors import TargetError
from hubrank.target.problems import RowError

__all__ = ["json_array", "json_lines", "json_value"]

_BLANKS = " \t\n\r"


def json_lines(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, object]]:
    """(line, value) for every line that is not blank; a line that cannot be read gives its :class:`RowError`."""
    for number, line in lines:
        if not line or line.isspace():
            continue
        try:
            yield number, json_value(line)
        except RowError as error:
            yield number, error


def json_value(text: str) -> object:
    """One value.

    Raises:
        RowError: it is not JSON, an object has a key twice, or it is too deep or too long to be read.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        # Not colno: for a line that breaks off, json counts on past the line feed at its end.
        column = min(error.pos, len(text.rstrip())) + 1
        raise RowError(f"not JSON ({error.msg} at column {column}); one JSON object a line is expected") from None
    except RowError:
        raise
    except (RecursionError, ValueError):
        raise RowError("not JSON that can be read (nested too deep, or a number too long)") from None


def json_array(path: str, text: str) -> Iterator[tuple[int, object]]:
    """The values of an array, or of the array under ``data`` of an object, with the lines they begin at.

    Raises:
        TargetError: the text is no array of values; what comes before the damage has been given by then.
    """
    start = _after_blanks(text, 0)
    if text[start : start + 1] == "{":
        yield from _document(path, text)
        return
    at, line, counted = _after_blanks(text, start + 1), 1, 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise TargetError(path, f"not JSON ({error.msg} at column {error.colno})", line=error.lineno) from None
        except RowError as error:
            raise TargetError(path, str(error), line=line) from None
        except (RecursionError, ValueError):
            message = "not JSON that can be read (nested too deep, or a number too long)"
            raise TargetError(path, message, line=line) from None
        yield line, value
        at = _after_blanks(text, at)
        if text[at : at + 1] == ",":
            at = _after_blanks(text, at + 1)
        elif text[at : at + 1] != "]":
            message = 'not a JSON array ("," or "]" is missing after this row)'
            raise TargetError(path, message, line=line + text.count("\n", counted, at))
    if text[at + 1 :].strip():
        raise TargetError(path, "not one JSON array: more follows its end", line=text.count("\n", 0, at) + 1)


def _document(path: str, text: str) -> Iterator[tuple[int, object]]:
    try:
        value = json_value(text)
    except RowError as error:
        raise TargetError(path, str(error)) from None
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise TargetError(path, 'one JSON object, but no list of rows under "data"; give one JSON object a line, or an array')
    for row in rows:
        yield from ((1, flat) for flat in _squad(row))


def _squad(row: object) -> Iterator[object]:
    """The questions of an article of SQuAD's files; any other row as it is."""
    paragraphs = row.get("paragraphs") if isinstance(row, dict) else None
    if not isinstance(paragraphs, list):
        yield row
        return
    for paragraph in paragraphs:
        questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(questions, list):
            yield RowError('an article with "paragraphs", one of which has no list of questions ("qas")')
            continue
        for question in questions:
            yield {"context": paragraph.get("context"), **question} if isinstance(question, dict) else question


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in _BLANKS and at < len(text):
        at += 1
    return at


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise RowError(f'the key "{plain(twice, 60)}" is there twice; keep one')
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
