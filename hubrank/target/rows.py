"""A target file on disk becomes a :class:`Target`: understood from its first rows, then checked row by row.

Every complaint names the file, the line, the field and the way out. :func:`read_target` stops at the first,
:func:`examine_target` collects them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path

from hubrank.errors import TargetError
from hubrank.target.fields import FieldMap, chosen_task, field_map, parse_fields, resolved
from hubrank.target.files import MAX_ROWS, FileFormat, opened
from hubrank.target.problems import Problem, Problems, RowError, by_line
from hubrank.target.task import MAX_CHARACTERS, MIN_ROWS, Target, TaskKind
from hubrank.target.tasks import RowCollector, collector
from hubrank.target.values import kind_of

__all__ = ["MAX_CHARACTERS", "MIN_ROWS", "Examination", "Target", "TaskKind", "examine_target", "read_target"]

_HEAD = 1_000
"""Rows that are looked at before a file's fields are settled."""

FieldsGiven = str | Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Examination:
    """A target file as far as it could be understood.

    Attributes:
        path: as the user wrote it; ``stdin`` for ``-``.
        format: what the file was read as; None where it could not even be opened as something.
        target: what the usable rows make; None where it could not be said what they are, or none is usable.
        unused: fields that play no role.
        problems: by line; those of the file as a whole last.
        unlisted: how many problems are not in that list.
    """

    path: str
    format: FileFormat | None
    target: Target | None
    unused: tuple[str, ...]
    problems: tuple[Problem, ...]
    unlisted: int

    @property
    def usable(self) -> bool:
        """Whether :func:`read_target` takes the file."""
        return not any(problem.fatal for problem in self.problems)


def read_target(path: str | Path, *, task: str | None = None, fields: FieldsGiven = None) -> Target:
    """Read a file of rows: JSONL, a JSON array, CSV or TSV with a header, each also gzipped, or Parquet; ``-`` is stdin.

    Task and fields are inferred from the first rows (docs/targets.md has the names), else as given.

    Args:
        task: one of :data:`hubrank.target.task.TASKS`.
        fields: field by role, as a mapping or as ``text=headline,label=class``.

    Raises:
        TargetError: the file cannot be read, its task cannot be told, a row cannot be used, the labels say nothing, or
            there are fewer than ``MIN_ROWS`` rows.
        UsageError: no such task or role.
    """
    examined = _examine(path, task, fields, stop=True)
    assert examined.target is not None  # else the problem was raised  # noqa: S101
    return examined.target


def examine_target(path: str | Path, *, task: str | None = None, fields: FieldsGiven = None) -> Examination:
    """As :func:`read_target`, but problems are collected, and rows that cannot be used are left out.

    Raises:
        TargetError: the file cannot be opened.
        UsageError: no such task or role.
    """
    return _examine(path, task, fields, stop=False)


def _examine(path: str | Path, task: str | None, given: FieldsGiven, *, stop: bool) -> Examination:
    asked = chosen_task(task)
    roles = parse_fields(given) if isinstance(given, str) else dict(given or {})
    shown = "stdin" if str(path) == "-" else str(path)
    problems = Problems(shown, stop=stop)
    with opened(path) as file:
        rows = _guarded(file.rows, problems)
        head = list(islice(rows, _HEAD))
        known = _understood(head, problems, asked, roles)
        target = None if known is None else _target(shown, chain(head, rows), known, problems, typed=file.typed)
        kind = file.format
    found = tuple(sorted(problems.found, key=by_line))
    return Examination(shown, kind, target, known.unused if known is not None else (), found, problems.unlisted)


def _guarded(rows: Iterator[tuple[int, object]], problems: Problems) -> Iterator[tuple[int, object]]:
    """The rows up to where the file itself is damaged."""
    try:
        yield from rows
    except TargetError as error:
        problems.fatal(error.message, error.line)


def _understood(
    head: Sequence[tuple[int, object]], problems: Problems, task: TaskKind | None, given: Mapping[str, str]
) -> FieldMap | None:
    """What the first rows say the file is; the problem has been told where they say nothing."""
    records = [(line, value) for line, value in head if isinstance(value, dict)]
    if not records:
        for line, value in head:
            problems.fatal(_unusable(value), line)
        if not problems.found:
            problems.fatal("is empty; give one JSON object a line with a text and a label, or a table with a header line")
        return None
    try:
        return field_map([value for _, value in records], task, given)
    except RowError as error:
        for line, value in head:
            if not isinstance(value, dict):
                problems.fatal(_unusable(value), line)
        problems.fatal(str(error), records[0][0])
        return None


def _target(
    path: str, rows: Iterator[tuple[int, object]], known: FieldMap, problems: Problems, *, typed: bool
) -> Target | None:
    collected = collector(known, typed=typed)
    _collect(collected, rows, known, problems)
    count = len(collected.lines)
    if count < MIN_ROWS:
        many = f"only {count} row{'' if count == 1 else 's'}"
        problems.fatal(f"{many}; at least {MIN_ROWS} labelled rows are needed to tell a task")
    if not count:
        return None
    columns = collected.columns(problems)
    values = {part.name: getattr(columns, part.name) for part in fields(columns)}
    target = Target(path, "", **values, fields=tuple(known.names.items()), lines=_compact(collected.lines))
    return replace(target, sha256=target.digest())


def _collect(collected: RowCollector, rows: Iterator[tuple[int, object]], known: FieldMap, problems: Problems) -> None:
    joined = [name for name in known.names.values() if "." in name or "+" in name]
    seen = 0
    for line, value in rows:
        seen += 1
        if seen > MAX_ROWS:
            problems.fatal(f"more than {MAX_ROWS:,} rows; a few thousand are plenty: `head -n 20000`", line)
            return
        if not isinstance(value, dict):
            problems.fatal(_unusable(value), line)
            continue
        try:
            collected.add(line, resolved(value, joined) if joined else value)
        except RowError as error:
            problems.fatal(str(error), line)


def _unusable(value: object) -> str:
    if isinstance(value, RowError):
        return str(value)
    return f"a JSON {kind_of(value)}, where an object with a text and a label is expected"


def _compact(lines: list[int]) -> Sequence[int]:
    """Line numbers without gaps as a range: a million of them are one object then."""
    whole = range(lines[0], lines[-1] + 1)
    return whole if len(whole) == len(lines) and list(whole) == lines else tuple(lines)
