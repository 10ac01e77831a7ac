"""A search on a terminal: the bar, and below it the ranking as it settles. Imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hubrank.ranking.runs import Snapshot
from hubrank.report.text import plain

__all__ = ["LINE", "LiveRanking", "snapshot_line"]

LINE = 3
"""Sources that a line names."""


class LiveRanking(Progress):
    """A progress display with the first sources of the latest snapshot under its bar."""

    def __init__(self, **options: object) -> None:
        self._shown: Table | None = None
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, transient=True, **options)  # type: ignore[arg-type]

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the ranking."""
        yield from super().get_renderables()
        if self._shown is not None:
            yield self._shown

    def show(self, snapshot: Snapshot) -> None:
        """Replace the ranking."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for rank, source in enumerate(snapshot.first, 1):
            table.add_row(Text(str(rank)), Text(plain(source.name, 80)), Text(plain(source.task or "", 32), style="dim"))
        if snapshot.overlap is not None:
            table.add_row("", Text(f"agrees with the last by {snapshot.overlap:.2f}", style="dim"), "")
        self._shown = table
        self.refresh()


def snapshot_line(snapshot: Snapshot) -> str:
    """The same in one line."""
    first = ", ".join(source.name for source in snapshot.first[:LINE])
    agrees = "" if snapshot.overlap is None else f" (agrees with the last by {snapshot.overlap:.2f})"
    return f"{snapshot.method} after {snapshot.step} of {snapshot.total} steps: {first}{agrees}"
