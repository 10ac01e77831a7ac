"""A question, perhaps a context, several choices, and which of them is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubrank.checkpoints.card import plain
from hubrank.target.fields import FieldMap
from hubrank.target.problems import Problems, RowError
from hubrank.target.tasks.columns import Columns, Cut
from hubrank.target.values import encodable, kind_of, missing, parsed_cell, quoted, text_of, whole

__all__ = ["ChoiceRows"]

_MOST = 100


class ChoiceRows:
    """Collects questions with choices."""

    def __init__(self, fields: FieldMap) -> None:
        self._question = fields.names["question"]
        self._choices_field = fields.names["choices"]
        self._right = fields.names["label"]
        self._context = fields.names.get("context")
        self._cut = Cut()
        self._texts: list[str] = []
        self._contexts: list[str] = []
        self._choices: list[tuple[str, ...]] = []
        self._answers: list[int] = []
        self._counted: list[bool] = []  # whether the answer is a number, which may count from 0 or from 1
        self.lines: list[int] = []

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """See :class:`RowCollector`."""
        question = text_of(row, self._question, role="question")
        context = text_of(row, self._context, role="context") if self._context is not None else None
        choices, keys = self._choices_of(row)
        named = self._named(row, choices, keys)
        answer = self._number(row, len(choices)) if named is None else named
        if context is not None:
            self._contexts.append(self._cut(line, context))
        self._texts.append(self._cut(line, question))
        self._choices.append(tuple(self._cut(line, choice) for choice in choices))
        self._answers.append(answer)
        self._counted.append(named is None)
        self.lines.append(line)

    def _choices_of(self, row: Mapping[str, object]) -> tuple[list[str], list[str]]:
        """The texts of the choices, and the keys they are called by where they have some (ARC's ``label``)."""
        name = self._choices_field
        if name not in row:
            raise RowError(missing(row, "choices", name))
        value = parsed_cell(row[name])
        keys: object = []
        if isinstance(value, Mapping):
            keys, value = value.get("label", []), value.get("text")
        if not isinstance(value, list):
            raise RowError(f"{quoted(name)} is a {kind_of(value)}; a list of texts is expected")
        if value and all(isinstance(choice, Mapping) for choice in value):
            keys, value = [choice.get("label", "") for choice in value], [choice.get("text") for choice in value]
        if not 2 <= len(value) <= _MOST:
            raise RowError(f"{quoted(name)} has {len(value)} choices; from 2 to {_MOST} are expected")
        for at, choice in enumerate(value, 1):
            if not isinstance(choice, str) or not choice.strip():
                what = "empty" if isinstance(choice, str) else f"a {kind_of(choice)}, not a string"
                raise RowError(f"{quoted(name)}: choice {at} is {what}")
        named = isinstance(keys, list) and len(keys) == len(value)
        return [encodable(choice) for choice in value], [str(key) for key in keys] if named and isinstance(keys, list) else []

    def _named(self, row: Mapping[str, object], choices: Sequence[str], keys: Sequence[str]) -> int | None:
        """Where the right choice stands, if it is given by its key, its text or its letter."""
        if self._right not in row:
            raise RowError(missing(row, "label", self._right))
        value = row[self._right]
        if not isinstance(value, str):
            return None
        text = encodable(value).strip()
        if text in keys:
            return keys.index(text)
        # The text before the letter: choices may be letters.
        same = [i for i, choice in enumerate(choices) if choice.strip() == text]
        if len(same) == 1:
            return same[0]
        letter = ord(text.upper()) - ord("A") if len(text.upper()) == 1 else -1
        return letter if 0 <= letter < len(choices) else None

    def _number(self, row: Mapping[str, object], choices: int) -> int:
        value = row[self._right]
        number = whole(value.strip() if isinstance(value, str) else value)
        if number is None:
            held = f'"{plain(value, 40)}"' if isinstance(value, str) else f"a {kind_of(value)}"
            raise RowError(f"{quoted(self._right)} is {held}: neither one of the choices nor its number or letter")
        if not 0 <= number <= choices:
            raise RowError(f"{quoted(self._right)} is {number}, but there are {choices} choices")
        return number

    def columns(self, problems: Problems) -> Columns:
        """See :class:`RowCollector`."""
        notes = list(self._cut.notes)
        rows = list(zip(self._answers, self._counted, self._choices, self.lines, strict=True))
        beyond = [(line, len(choices)) for answer, counted, choices, line in rows if counted and answer == len(choices)]
        from_one = bool(beyond) and not any(counted and answer == 0 for answer, counted, *_ in rows)
        if from_one:
            notes.append("labels count the choices from 1")
        else:
            for line, count in beyond:
                message = f"{quoted(self._right)} is {count}, but the {count} choices count from 0, as other rows show"
                problems.fatal(message, line)
        labels = tuple(answer - 1 if from_one and counted else answer for answer, counted, *_ in rows)
        return Columns(
            "multiple-choice",
            tuple(self._texts),
            tuple(self._contexts) if self._context is not None else None,
            labels,
            choices=tuple(self._choices),
            notes=tuple(notes),
        )
