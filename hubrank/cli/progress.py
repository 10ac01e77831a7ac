"""How a sync or a search gets on, on stderr: a live line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from hubrank.cli.output import Output
from hubrank.report.text import plain, spoken_bytes, spoken_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hubrank.cli.live import LiveRanking
    from hubrank.ranking.runs import Snapshot
    from hubrank.zoo.sync import Event

__all__ = ["Interrupted", "SearchProgress", "SyncProgress"]

_LINE_SECONDS = 10.0  # between two lines in a log
_BAR, _NAME, _WIDE = 16, 16, 100  # columns: of the bar, of a name worth showing, of a terminal with room for the bar


class Interrupted(Exception):  # noqa: N818 -- not an error
    """The interrupt key was pressed; the message says what is kept."""


class SearchProgress:
    """A search's progress: a bar and the ranking so far on a terminal, a line a stage and snapshot elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._progress: LiveRanking | None = None
        self._task: TaskID | None = None
        self._first: list[str] = []

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def stage(self, message: str) -> None:
        """Name what is going on."""
        self._stop()
        if self._output.quiet:
            return
        if not self._output.live:
            self._output.note(message)
            return
        from hubrank.cli.live import LiveRanking

        self._progress = LiveRanking(console=self._output.errors())
        self._progress.start()
        self._task = self._progress.add_task(plain(message, 80), total=None)

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def ranking(self, snapshot: Snapshot) -> None:
        """Show the ranking as it is: under the bar, or as a line whenever its first places have changed."""
        if self._progress is not None:
            self._progress.show(snapshot)
        elif not self._output.quiet:
            from hubrank.cli.live import LINE, snapshot_line

            first = [source.name for source in snapshot.first[:LINE]]
            if first != self._first:
                self._first = first
                self._output.note(snapshot_line(snapshot))

    def note(self, message: str) -> None:
        """Tell the user something once."""
        self._stop()
        self._output.note(message)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class SyncProgress:
    """A sync's progress: adapters done, bytes, rate, time left and skips; each skip is named when verbose.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, output: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._started = self._said = clock()
        self._outcomes: Counter[str] = Counter()
        self._bytes = 0
        self._listed: dict[str, int] = {}
        self._complete = False
        self._wide = True
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> SyncProgress:
        if self._output.live and not self._output.quiet:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            # What a terminal has no room for would squeeze all columns: the bar goes first.
            self._wide = self._output.errors().width >= _WIDE
            bar = [BarColumn(bar_width=_BAR)] if self._wide else []
            columns = (SpinnerColumn(), *bar, TextColumn("{task.description}", markup=False))
            self._progress = Progress(*columns, console=self._output.errors(), transient=True, redirect_stdout=False)
            self._progress.start()
            self._task = self._progress.add_task("listing adapters", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def event(self, event: Event) -> None:
        """One adapter has been dealt with."""
        self._outcomes[event.outcome] += 1
        self._bytes += event.bytes_read
        self._listed[event.hub] = event.listed
        self._complete = event.complete
        if event.outcome == "skipped":
            self._output.detail(f"skipped {event.name}: {event.detail}")
        if self._progress is not None and self._task is not None:
            total = self._total if self._complete else None
            line = self._fitting(event.name)
            self._progress.update(self._task, completed=self._outcomes.total(), total=total, description=line)
        elif not self._output.live and self._clock() - self._said >= _LINE_SECONDS:
            self._said = self._clock()
            self._output.note(self.line())

    def note(self, message: str) -> None:
        """Tell the user something once."""
        self._output.note(message)

    def line(self) -> str:
        """How far it is, in one line."""
        done, seconds = self._outcomes.total(), max(1e-3, self._clock() - self._started)
        more = "" if self._complete else " or more"
        parts = [f"{done:,} of {self._total:,}{more} adapters"]
        parts += [spoken_bytes(self._bytes), f"{spoken_bytes(self._bytes / seconds)}/s"]
        if self._complete and 0 < done <= self._total:
            parts.append(f"{spoken_seconds(seconds / done * (self._total - done))} left")
        if self._outcomes["skipped"]:
            parts.append(f"{self._outcomes['skipped']:,} skipped")
        return ", ".join(parts)

    def _fitting(self, name: str) -> str:
        """The line, and the adapter's name where there is room for some of it."""
        line = self.line()
        room = self._output.errors().width - len(line) - (_BAR if self._wide else 0) - 6
        return f"{line}: {plain(name, room)}" if room >= _NAME else line

    @property
    def _total(self) -> int:
        """Adapters that the hubs have listed so far."""
        return sum(self._listed.values())

    def kept(self) -> str:
        """What an interrupted sync leaves in the store."""
        changed = [f"{self._outcomes[outcome]:,} {outcome}" for outcome in ("added", "updated") if self._outcomes[outcome]]
        return f"kept: {' and '.join(changed) or 'nothing new'}; the same command goes on from there"
