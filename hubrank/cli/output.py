"""The one output sink: data to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hubrank.report.text import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Output"]

_PIPE_WIDTH = 160  # a table that goes into a file or a pipe is not cut to eighty columns


class Output:
    """Where a command prints."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._errors: Console | None = None

    def text(self, text: str) -> None:
        """A finished text to stdout."""
        sys.stdout.write(text + "\n")

    def command_lines(self, text: str) -> None:
        """Commands for the runner of a CI job to stderr, which it reads as it does stdout; quiet or not."""
        sys.stderr.write(text + "\n")

    def render(self, parts: Iterable[RenderableType]) -> None:
        """Rich renderables to stdout."""
        console = self.console()
        for part in parts:
            # What must stay in one line to be copied is left to the terminal to wrap.
            console.print(part, soft_wrap=getattr(part, "no_wrap", None) is True)

    def note(self, message: str) -> None:
        """A sentence to stderr, unless quiet."""
        if not self.quiet:
            self.errors().print(plain(message, 2000), style="dim", soft_wrap=True)

    def detail(self, message: str) -> None:
        """A sentence to stderr, only when verbose."""
        if self.verbose:
            self.errors().print(plain(message, 2000), style="dim", soft_wrap=True)

    def fault(self, message: str) -> None:
        """Something that went wrong while the command went on, to stderr, quiet or not, as :mod:`hubrank.cli` says it."""
        self.errors().print(f"hubrank: {plain(message, 2000)}", soft_wrap=True)

    def console(self) -> Console:
        """Rich's view of stdout."""
        return _console(error=False)

    def errors(self) -> Console:
        """Rich's view of stderr, one for all: what is printed while a live line is on goes above it."""
        if self._errors is None:
            self._errors = _console(error=True)
        return self._errors

    @property
    def live(self) -> bool:
        """Whether stderr is a terminal that can redraw a line; a log that asks for colours is none."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def unicode(self) -> bool:
        """Whether stdout can show block characters."""
        return "utf" in (sys.stdout.encoding or "").lower()


def _console(*, error: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=error, markup=False, highlight=False, emoji=False, width=width)
