"""Extractive question answering as in SQuAD: a question, a context, and the spans of it that answer."""

from __future__ import annotations

from collections.abc import Mapping

from hubrank.checkpoints.card import plain
from hubrank.target.fields import FieldMap
from hubrank.target.problems import Problem, Problems, RowError
from hubrank.target.task import MAX_CONTEXT, Answer
from hubrank.target.tasks.columns import Columns, Cut
from hubrank.target.values import encodable, kind_of, missing, parsed_cell, quoted, text_of, whole

__all__ = ["SpanRows"]


class SpanRows:
    """Collects questions, contexts and answers; a start that is off is put right where the answer is in the context."""

    def __init__(self, fields: FieldMap) -> None:
        self._question = fields.names["question"]
        self._context = fields.names["context"]
        self._answers_field = fields.names["answers"]
        self._start = fields.names.get("answer_start")
        self._impossible = fields.names.get("is_impossible")
        self._cut = Cut()
        self._known: dict[str, str] = {}
        self._moved: list[Problem] = []
        self._questions: list[str] = []
        self._contexts: list[str] = []
        self._answers: list[tuple[Answer, ...]] = []
        self.lines: list[int] = []

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """See :class:`RowCollector`."""
        question = text_of(row, self._question, role="question")
        context = text_of(row, self._context, role="context")
        if len(context) > MAX_CONTEXT:
            size = f"{len(context):,} characters, more than {MAX_CONTEXT:,}"
            raise RowError(f"{quoted(self._context)} has {size}; give the part that holds the answer")
        stated = self._stated(row)
        spans = [span for text, start in stated if (span := self._placed(line, context, text, start)) is not None]
        if stated and not spans:
            shown = plain(stated[0][0], 40)
            raise RowError(f'{quoted(self._answers_field)}: "{shown}" is nowhere in the context; answers must be spans of it')
        self._questions.append(self._cut(line, question))
        # Many questions share a context.
        self._contexts.append(self._known.setdefault(context, context))
        self._answers.append(tuple(dict.fromkeys(spans)))
        self.lines.append(line)

    def _stated(self, row: Mapping[str, object]) -> list[tuple[str, int | None]]:
        """(text, start or None) of every answer that the row gives."""
        name = self._answers_field
        if name not in row:
            raise RowError(missing(row, "answers", name))
        if self._impossible is not None and row.get(self._impossible) in (True, "true", "True", 1, "1"):
            return []
        value = parsed_cell(row[name])
        if isinstance(value, Mapping):
            starts = value.get("answer_start", value.get("start", []))
            value = value.get("text", [])
        else:
            starts = parsed_cell(row.get(self._start)) if self._start is not None else []
        texts = [value] if isinstance(value, str) else value
        if texts is None or texts in ([""], []):
            return []
        if not isinstance(texts, list):
            raise RowError(f"{quoted(name)} is a {kind_of(texts)}; texts with their answer_start are expected")
        if all(isinstance(text, Mapping) for text in texts):
            starts = [text.get("answer_start", text.get("start")) for text in texts]
            texts = [text.get("text") for text in texts]
        starts = starts if isinstance(starts, list) else [] if starts in (None, "") else [starts]
        if starts and len(starts) != len(texts):
            raise RowError(f"{quoted(name)} has {len(texts)} texts but {len(starts)} starts; give every text one")
        return [self._one(text, start) for text, start in zip(texts, starts or [None] * len(texts), strict=True)]

    def _one(self, text: object, start: object) -> tuple[str, int | None]:
        if not isinstance(text, str) or not text.strip():
            what = "empty" if isinstance(text, str) else f"a {kind_of(text)}, not a string"
            raise RowError(f"{quoted(self._answers_field)}: a text is {what}")
        if start is None:
            return encodable(text), None
        number = whole(start)
        if number is None:
            raise RowError(f"{quoted(self._answers_field)}: answer_start is a {kind_of(start)}; a whole number is expected")
        return encodable(text), number

    def _placed(self, line: int, context: str, text: str, start: int | None) -> Answer | None:
        if start is not None and 0 <= start <= len(context) and context.startswith(text, start):
            return Answer(text, start)
        found = _nearest(context, text, start or 0)
        shown = plain(text, 40)
        if found is None:
            self._moved.append(Problem(line, f'answer "{shown}" is nowhere in the context', fatal=False))
            return None
        if start is not None:
            message = f'answer_start {start} does not match the context; "{shown}" was found at {found}'
            self._moved.append(Problem(line, message, fatal=False))
        return Answer(text, found)

    def columns(self, problems: Problems) -> Columns:
        """See :class:`RowCollector`."""
        kept = set(self.lines)
        moved = [problem for problem in self._moved if problem.line in kept]
        for problem in moved:
            problems.warn(problem.message, problem.line)
        if self._answers and not any(self._answers):
            problems.fatal("no question has an answer; there is nothing to learn from them")
        many = f" and {len(moved) - 1} more answers" if len(moved) > 1 else ""
        notes = (f"line {moved[0].line}{many}: {moved[0].message}",) if moved else ()
        return Columns(
            "qa",
            tuple(self._questions),
            tuple(self._contexts),
            answers=tuple(self._answers),
            notes=(*self._cut.notes, *notes),
        )


def _nearest(context: str, text: str, start: int) -> int | None:
    """Where the text stands in the context, as near to ``start`` as can be."""
    start = min(max(start, 0), len(context))
    before, after = context.rfind(text, 0, start + len(text)), context.find(text, start)
    there = [at for at in (before, after) if at >= 0]
    return min(there, key=lambda at: abs(at - start), default=None)
