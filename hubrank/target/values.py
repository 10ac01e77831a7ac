"""Single values of a row, checked: each complaint names the field and what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from hubrank.checkpoints.card import plain
from hubrank.target.problems import RowError

__all__ = ["encodable", "kind_of", "list_of", "names_of", "parsed_cell", "quoted", "text_of", "whole"]


_KINDS = (
    (type(None), "null"),
    (bool, "boolean"),
    (dict, "JSON object"),
    (list, "list"),
    (str, "string"),
    (int, "number"),
    (float, "number"),
)


def text_of(row: Mapping[str, object], name: str, *, role: str = "text") -> str:
    """The text in a field.

    Raises:
        RowError: it is missing, of another type or empty.
    """
    try:
        text = row[name]
    except KeyError:
        raise RowError(missing(row, role, name)) from None
    if not isinstance(text, str):
        raise RowError(f"{quoted(name)} is a {kind_of(text)}, not a string")
    if not text or text.isspace():
        raise RowError(f"{quoted(name)} is empty")
    return text if text.isascii() else encodable(text)


def missing(row: Mapping[str, object], role: str, name: str) -> str:
    """The complaint about a row that lacks a field."""
    return f'no {role} field ("{plain(name, 60)}" is expected; fields found: {names_of(row)})'


def list_of(row: Mapping[str, object], name: str, *, role: str) -> list[object]:
    """The list in a field; a string that holds a JSON list counts, as CSV has no other way.

    Raises:
        RowError: it is missing or no list.
    """
    if name not in row:
        raise RowError(missing(row, role, name))
    value = parsed_cell(row[name])
    if not isinstance(value, list):
        raise RowError(f"{quoted(name)} is a {kind_of(value)}; a list is expected")
    return value


def parsed_cell(value: object) -> object:
    """A string that holds a JSON list or object as what it holds; everything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (RecursionError, ValueError):
            return value
    return value


def encodable(text: str) -> str:
    """Lone surrogates are legal in JSON escapes and fatal to every tokenizer."""
    return text.encode("utf-8", "replace").decode("utf-8")


def whole(value: object) -> int | None:
    """A whole number from an int, a whole float or a string of digits; None for everything else, booleans too."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def names_of(row: Iterable[str]) -> str:
    """The names of a row's fields, fit for a message."""
    return ", ".join(plain(name, 40) for name in sorted(row)[:8]) or "none"


def quoted(name: str) -> str:
    """A name in quotes, fit for a message."""
    return f'"{plain(name, 60)}"'


def kind_of(value: object) -> str:
    """What a JSON or Parquet value is called."""
    name = next((name for kind, name in _KINDS if isinstance(value, kind)), None)
    return plain(type(value).__name__, 40) if name is None else name
