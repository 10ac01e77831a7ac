"""What is wrong with a target file, line by line: the first thing raised, or all of it collected."""

from __future__ import annotations

from dataclasses import dataclass

from hubrank.errors import TargetError

__all__ = ["MAX_LISTED", "Problem", "Problems", "RowError", "by_line"]

MAX_LISTED = 100
"""So many problems are kept; the others are counted."""


class RowError(ValueError):
    """One row cannot be used; the message names its field, and whoever reads the rows knows file and line."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the file that its owner should know.

    Attributes:
        line: where, from 1; None where it is about the file as a whole.
        message: one line.
        fatal: the file cannot be used as it is.
    """

    line: int | None
    message: str
    fatal: bool


def by_line(problem: Problem) -> tuple[bool, int]:
    """A sort key: by line, those of the file as a whole last."""
    return problem.line is None, problem.line or 0


class Problems:
    """The problems of one file. With ``stop``, the first fatal one is raised as a :class:`TargetError`."""

    def __init__(self, path: str, *, stop: bool) -> None:
        self.path = path
        self.stop = stop
        self.found: list[Problem] = []
        self.unlisted = 0

    def fatal(self, message: str, line: int | None = None) -> None:
        """The file cannot be used. Returns only where problems are collected.

        Raises:
            TargetError: with ``stop``.
        """
        if self.stop:
            raise TargetError(self.path, message, line=line)
        # What makes the file unusable is never crowded out by mere warnings.
        if sum(problem.fatal for problem in self.found) < MAX_LISTED:
            self.found.append(Problem(line, message, fatal=True))
        else:
            self.unlisted += 1

    def warn(self, message: str, line: int | None = None) -> None:
        """The file can be used, but its owner should know this."""
        if len(self.found) < MAX_LISTED:
            self.found.append(Problem(line, message, fatal=False))
        else:
            self.unlisted += 1
