"""The one output sink: data to stdout, everything else to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from hubrank.report.text import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

__all__ = ["Output", "SearchProgress", "SyncProgress"]

_PIPE_WIDTH = 160  # a table that goes into a file or a pipe is not cut to eighty columns


class Output:
    """Where a command prints."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose

    def text(self, text: str) -> None:
        """A finished text to stdout."""
        sys.stdout.write(text + "\n")

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

    def console(self) -> Console:
        """Rich's view of stdout."""
        return _console(error=False)

    def errors(self) -> Console:
        """Rich's view of stderr."""
        return _console(error=True)

    @property
    def unicode(self) -> bool:
        """Whether stdout can show block characters."""
        return "utf" in (sys.stdout.encoding or "").lower()


def _console(*, error: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=error, markup=False, highlight=False, emoji=False, width=width)


class SearchProgress:
    """A search's progress on stderr: a bar with the time left on a terminal, a line a stage elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def stage(self, message: str) -> None:
        """Name what is going on."""
        self._stop()
        if self._output.quiet:
            return
        if not self._output.errors().is_terminal:
            self._output.note(message)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self._output.errors(), transient=True)
        self._progress.start()
        self._task = self._progress.add_task(plain(message, 80), total=None)

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def note(self, message: str) -> None:
        """Tell the user something once."""
        self._stop()
        self._output.note(message)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class SyncProgress:
    """A sync's progress on stderr, on a terminal only; what was skipped is named when verbose."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._counts: dict[str, int] = {}
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> SyncProgress:
        if not self._output.quiet and self._output.errors().is_terminal:
            from rich.progress import Progress, SpinnerColumn, TextColumn

            self._progress = Progress(
                SpinnerColumn(), TextColumn("{task.description}", markup=False), console=self._output.errors(), transient=True
            )
            self._progress.start()
            self._task = self._progress.add_task("listing adapters", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def event(self, name: str, outcome: str, detail: str) -> None:
        """One adapter has been dealt with."""
        self._counts[outcome] = self._counts.get(outcome, 0) + 1
        if outcome == "skipped":
            self._output.detail(f"skipped {name}: {detail}")
        if self._progress is not None and self._task is not None:
            done = sum(self._counts.values())
            rate = done / max(1e-3, time.monotonic() - self._started)
            counts = ", ".join(f"{n} {outcome}" for outcome, n in self._counts.items())
            self._progress.update(self._task, description=f"{done} adapters ({counts}), {rate:.1f}/s: {plain(name, 60)}")
