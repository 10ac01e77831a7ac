"""What the collectors of all tasks share: their interface, the columns they give, cutting, and classes by value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from hubrank.target.problems import Problems
from hubrank.target.task import MAX_CHARACTERS, Answer, TaskKind, Turn

__all__ = ["Cell", "Columns", "Cut", "RowCollector", "class_name", "mixed", "ordered"]

Cell: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a Target, by the same names; see there."""

    task: TaskKind
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    labels: tuple[int, ...] | tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    label_sets: tuple[tuple[int, ...], ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    tags: tuple[tuple[int, ...], ...] = ()
    answers: tuple[tuple[Answer, ...], ...] = ()
    outputs: tuple[str, ...] = ()
    chats: tuple[tuple[Turn, ...], ...] = ()
    notes: tuple[str, ...] = ()


class RowCollector(Protocol):
    """Takes the rows of one file."""

    lines: list[int]

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """Check a row and keep what the task needs of it.

        Raises:
            RowError: it cannot be used; nothing of it has been kept.
        """

    def columns(self, problems: Problems) -> Columns:
        """What the rows that were kept say together; what is wrong with all of them goes to ``problems``."""


class Cut:
    """Cuts texts at ``MAX_CHARACTERS`` and remembers where."""

    def __init__(self) -> None:
        self._first = self._last = self._rows = 0

    def __call__(self, line: int, text: str) -> str:
        """The text, no longer than that."""
        if len(text) <= MAX_CHARACTERS:
            return text
        if line != self._last:
            self._first = self._first or line
            self._rows += 1
            self._last = line
        return text[:MAX_CHARACTERS]

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence, or none."""
        if not self._rows:
            return ()
        many = f" and {self._rows - 1} more rows" if self._rows > 1 else ""
        return (f"line {self._first}{many}: text cut to its first {MAX_CHARACTERS:,} characters",)


def ordered(labels: Sequence[Cell] | set[Cell]) -> list[Cell]:
    """Distinct labels by value, not by name, so that integer classes keep their order (2 before 10)."""
    return sorted(set(labels), key=lambda label: (isinstance(label, str), label))


def class_name(label: Cell) -> str:
    """What a class is called."""
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def mixed(what: str, rows: Iterable[Iterable[Cell]], lines: Sequence[int], problems: Problems) -> bool:
    """Whether labels of several types stand in one file; the problem has been told then."""
    kinds: dict[str, int] = {}
    for line, row in zip(lines, rows, strict=True):
        for label in row:
            kinds.setdefault(_kind(label), line)
    if len(kinds) < 2:
        return False
    (kind, line), (other, other_line) = sorted(kinds.items(), key=lambda item: item[1])[:2]
    problems.fatal(f"{what} of mixed types: a {other} here, a {kind} in line {line}; use one type throughout", other_line)
    return True


def _kind(label: Cell) -> str:
    if isinstance(label, bool):
        return "boolean"
    return "string" if isinstance(label, str) else "number"
