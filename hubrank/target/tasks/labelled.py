"""Texts or pairs with a label (classification), a value (regression) or several labels (multi-label)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hubrank.checkpoints.card import plain
from hubrank.target.fields import FieldMap
from hubrank.target.problems import Problems, RowError
from hubrank.target.task import TaskKind
from hubrank.target.tasks.columns import Cell, Columns, Cut, class_name, mixed, ordered
from hubrank.target.values import encodable, kind_of, missing, parsed_cell, quoted, text_of

__all__ = ["LabelledRows", "checked_label"]

_LARGEST_LABEL = 1e15  # whole numbers up to here are exact in a float; NaN fails the comparison too
_NUMBER = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_SEPARATORS = re.compile(r"[|;,]")
_MOSTLY = 0.9


class LabelledRows:
    """Collects rows of a text, perhaps a second one, and what is said of them."""

    def __init__(self, fields: FieldMap, *, typed: bool) -> None:
        self._task: TaskKind | None = fields.task if fields.asked else None
        self._text = fields.names["text"]
        self._pair = fields.names.get("text_pair")
        self._absent = fields.absent
        self._label = fields.names["label"]
        self._typed = typed
        self._cut = Cut()
        self._known: dict[str, str] = {}
        self._no_pair: int | None = None
        self._texts: list[str] = []
        self._pairs: list[str] = []
        self._labels: list[Cell | tuple[Cell, ...]] = []
        self.lines: list[int] = []

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """See :class:`RowCollector`."""
        text = text_of(row, self._text)
        pair = None
        if self._pair is not None:
            value = row.get(self._pair)
            if value is None or (value == "" and not self._typed):
                raise RowError("this row has no second text, but others do; give every row both")
            pair = text_of(row, self._pair)
        for name in self._absent:
            if row.get(name) is not None and (row[name] or self._typed):
                text_of(row, name)
                raise RowError(f"{quoted(name)} is a second text, but most rows have none; give every row both")
        if self._label not in row:
            raise RowError(missing(row, "label", self._label))
        label = self._labels_of(row[self._label])
        if pair is not None:
            self._pairs.append(self._cut(line, pair))
        self._texts.append(self._cut(line, text))
        self._labels.append(label)
        self.lines.append(line)

    def _labels_of(self, value: object) -> Cell | tuple[Cell, ...]:
        if type(value) is str:
            known = self._known.get(value)
            if known is not None and self._task != "multi-label":
                return known
        value = parsed_cell(value) if not self._typed or self._task == "multi-label" else value
        if isinstance(value, list | tuple):
            return self._several(list(value))
        if self._task == "multi-label":
            if value is None or value == "":
                return ()
            parts = _SEPARATORS.split(value) if isinstance(value, str) else [value]
            return self._several([part.strip() if isinstance(part, str) else part for part in parts])
        label = checked_label(value, self._label)
        if isinstance(label, str):
            label = self._known.setdefault(label, label)
        return label

    def _several(self, values: Sequence[object]) -> tuple[Cell, ...]:
        if self._task not in (None, "multi-label"):
            raise RowError(f"{quoted(self._label)} is a list, where {self._task} takes one label a row; see --task multi-label")
        labels = [checked_label(value, self._label) for value in values]
        return tuple(self._known.setdefault(label, label) if isinstance(label, str) else label for label in labels)

    def columns(self, problems: Problems) -> Columns:
        """See :class:`RowCollector`."""
        texts = tuple(self._texts)
        pairs = tuple(self._pairs) if self._pair is not None else None
        lists = [isinstance(label, tuple) for label in self._labels]
        if any(lists):
            if not all(lists):
                odd = lists.index(not lists[0])
                here, there = ("one label", "a list") if lists[0] else ("a list", "one label")
                message = f"{quoted(self._label)} is {here} here, {there} in line {self.lines[0]}; use one form"
                problems.fatal(message, self.lines[odd])
            sets = [label if isinstance(label, tuple) else (label,) for label in self._labels]
            classes, label_sets, notes = _label_sets(sets, self.lines, problems)
            return Columns(
                "multi-label", texts, pairs, classes=classes, label_sets=label_sets, notes=(*self._cut.notes, *notes)
            )
        singles = [label for label in self._labels if not isinstance(label, tuple)]
        labels = self._of_one_kind(singles, problems)
        if self._is_regression(labels):
            values = tuple(float(label) for label in labels)
            if values and max(values) == min(values):
                problems.fatal(f"every row has the label {values[0]:g}; there is nothing to learn from it")
            return Columns("regression", texts, pairs, values, notes=self._cut.notes)
        return self._classification(texts, pairs, labels, problems)

    def _classification(
        self, texts: tuple[str, ...], pairs: tuple[str, ...] | None, labels: list[Cell], problems: Problems
    ) -> Columns:
        distinct = ordered(labels)
        classes = tuple(class_name(label) for label in distinct)
        if len(classes) == 1:
            problems.fatal(f'every row has the label "{plain(classes[0], 60)}"; at least two classes are needed')
        if len(classes) == len(labels) > 1:
            problems.fatal("every row has a label of its own; is the label field really a class?")
        index = {label: i for i, label in enumerate(distinct)}
        indices = tuple(index[label] for label in labels)
        return Columns("classification", texts, pairs, indices, classes, notes=self._cut.notes)

    def _is_regression(self, labels: list[Cell]) -> bool:
        if self._task is not None:
            return self._task == "regression"
        return any(type(label) is float and not label.is_integer() for label in labels)

    def _of_one_kind(self, labels: list[Cell], problems: Problems) -> list[Cell]:
        """Labels of one type: what a table holds as strings becomes numbers where all of them are."""
        if self._task == "regression":
            return _values(labels, self.lines, self._label, problems)
        if not self._typed and {str(label).lower() for label in set(labels)} <= {"true", "false"}:
            return [str(label).lower() == "true" for label in labels]
        if not self._typed and self._task is None:
            numbers = {label: _number(label) for label in set(labels) if isinstance(label, str)}
            share = sum(numbers.get(str(label)) is not None for label in labels) / max(1, len(labels))
            if share >= _MOSTLY:
                labels = [label if (n := numbers.get(str(label))) is None else n for label in labels]
        elif not self._typed and all(_number(label) is not None for label in set(labels)):
            labels = [_number(label) or 0 for label in labels]
        several = len({type(label) for label in labels}) > 1
        if several and mixed("labels", ((label,) for label in labels), self.lines, problems):
            return [class_name(label) for label in labels]
        return labels


def checked_label(value: object, name: str) -> Cell:
    """A label by itself.

    Raises:
        RowError: it is no string, number or boolean, or empty, or not a number that can be told from its neighbours.
    """
    if isinstance(value, str):
        if not value or value.isspace():
            raise RowError(f"{quoted(name)} is empty")
        return value if value.isascii() else encodable(value)
    if not isinstance(value, int | float):
        raise RowError(f"{quoted(name)} is a {kind_of(value)}; a string or a number is expected")
    if not abs(value) <= _LARGEST_LABEL:
        raise RowError(f"{quoted(name)} is not a number between -1e15 and 1e15")
    return value


def _number(label: Cell) -> int | float | None:
    if not isinstance(label, str):
        return None
    text = label.strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if not abs(value) <= _LARGEST_LABEL:
        return None
    return int(value) if value.is_integer() else value


def _values(labels: list[Cell], lines: list[int], name: str, problems: Problems) -> list[Cell]:
    values: list[Cell] = []
    for line, label in zip(lines, labels, strict=True):
        value = _number(label) if isinstance(label, str) else label
        if value is None or isinstance(value, bool):
            problems.fatal(f"{quoted(name)} is a {kind_of(label)}, where regression takes a number", line)
            value = 0.0
        values.append(value)
    return values


def _label_sets(
    sets: list[tuple[Cell, ...]], lines: list[int], problems: Problems
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """(classes, rising indices of each row, notes); zeros and ones side by side are taken for indicators."""
    if _are_indicators(sets):
        # Every position is a class, also one that no row has.
        note = "labels are zeros and ones: taken for indicators, classes named by position from 0"
        indicated = tuple(tuple(i for i, one in enumerate(row) if one) for row in sets)
        return tuple(str(i) for i in range(len(sets[0]))), _told_apart(indicated, problems), (note,)
    if mixed("labels", sets, lines, problems):
        sets = [tuple(class_name(label) for label in row) for row in sets]
    distinct = ordered({label for row in sets for label in row})
    if len(distinct) < 2:
        held = f'no label but "{plain(class_name(distinct[0]), 60)}"' if distinct else "no label at all"
        problems.fatal(f"the rows have {held}; at least two are needed")
    index = {label: i for i, label in enumerate(distinct)}
    label_sets = tuple(tuple(sorted({index[label] for label in row})) for row in sets)
    return tuple(class_name(label) for label in distinct), _told_apart(label_sets, problems), ()


def _told_apart(label_sets: tuple[tuple[int, ...], ...], problems: Problems) -> tuple[tuple[int, ...], ...]:
    if len(set(label_sets)) == 1:
        problems.fatal("every row has the same labels; there is nothing to learn from them")
    return label_sets


def _are_indicators(sets: list[tuple[Cell, ...]]) -> bool:
    width = len(sets[0])
    if width < 2 or any(len(row) != width for row in sets):
        return False
    if any(isinstance(label, str) or label not in (0, 1) for row in sets for label in row):
        return False
    # Indices into classes name none twice.
    return any(len(set(row)) < width for row in sets)
