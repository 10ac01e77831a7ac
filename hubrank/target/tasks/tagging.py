"""Tokens with a tag each: entities, parts of speech, slots."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from hubrank.checkpoints.card import plain
from hubrank.target.fields import FieldMap
from hubrank.target.problems import Problems, RowError
from hubrank.target.tasks.columns import Cell, Columns, class_name, mixed, ordered
from hubrank.target.tasks.labelled import checked_label
from hubrank.target.values import encodable, kind_of, missing, parsed_cell, quoted

__all__ = ["MAX_TOKENS", "TaggedRows"]

MAX_TOKENS = 4_000
"""Longer rows are cut here: no base model reads further."""


class TaggedRows:
    """Collects tagged sentences."""

    def __init__(self, fields: FieldMap) -> None:
        self._tokens_field = fields.names["tokens"]
        self._tags_field = fields.names["tags"]
        self._known: dict[str, str] = {}
        self._cut: list[int] = []
        self._tokens: list[tuple[str, ...]] = []
        self._tags: list[tuple[Cell, ...]] = []
        self.lines: list[int] = []

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """See :class:`RowCollector`."""
        tokens = self._list(row, self._tokens_field, "tokens")
        tags = self._list(row, self._tags_field, "tags")
        if not tokens:
            raise RowError(f"{quoted(self._tokens_field)} is empty")
        if len(tokens) != len(tags):
            names = f"{quoted(self._tokens_field)} and {quoted(self._tags_field)}"
            raise RowError(f"{names} have different lengths: {len(tokens)} tokens, {len(tags)} tags; give every token one")
        for at, token in enumerate(tokens, 1):
            if not isinstance(token, str) or not token or token.isspace():
                what = "empty" if isinstance(token, str) else f"a {kind_of(token)}, not a string"
                raise RowError(f"{quoted(self._tokens_field)}: token {at} is {what}")
        checked = [checked_label(tag, self._tags_field) for tag in tags]
        if len(tokens) > MAX_TOKENS:
            self._cut.append(line)
        self._tokens.append(tuple(encodable(token) for token in tokens[:MAX_TOKENS] if isinstance(token, str)))
        self._tags.append(
            tuple(self._known.setdefault(tag, tag) if isinstance(tag, str) else tag for tag in checked[:MAX_TOKENS])
        )
        self.lines.append(line)

    @staticmethod
    def _list(row: Mapping[str, object], name: str, role: str) -> list[object]:
        """A list, a JSON list in a string, or a string of words with spaces between them."""
        if name not in row:
            raise RowError(missing(row, role, name))
        value = parsed_cell(row[name])
        if isinstance(value, str):
            value = value.split()
        if not isinstance(value, list):
            raise RowError(f"{quoted(name)} is a {kind_of(value)}; a list is expected")
        return value

    def columns(self, problems: Problems) -> Columns:
        """See :class:`RowCollector`."""
        rows = self._tags
        if mixed("tags", rows, self.lines, problems):
            rows = [tuple(class_name(tag) for tag in row) for row in rows]
        distinct = ordered(set(chain.from_iterable(rows)))
        classes = tuple(class_name(tag) for tag in distinct)
        if len(classes) == 1:
            problems.fatal(f'every token has the tag "{plain(classes[0], 60)}"; at least two are needed')
        index = {tag: i for i, tag in enumerate(distinct)}
        many = f" and {len(self._cut) - 1} more rows" if len(self._cut) > 1 else ""
        return Columns(
            "tagging",
            tuple(" ".join(tokens) for tokens in self._tokens),
            classes=classes,
            tokens=tuple(self._tokens),
            tags=tuple(tuple(index[tag] for tag in row) for row in rows),
            notes=(f"line {self._cut[0]}{many}: cut to its first {MAX_TOKENS:,} tokens",) if self._cut else (),
        )
