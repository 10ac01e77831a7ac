"""What a sync did, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubrank.report.text import Cell, csv_table, markdown_table, plain, spoken_bytes
from hubrank.types import SyncReport

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["sync_csv", "sync_json", "sync_markdown", "sync_table"]

_COLUMNS = ("what", "adapters")


def sync_json(report: SyncReport) -> str:
    """The fields that the README promises, in their order; then which hubs failed or were not asked, and what bases cost."""
    value = {
        "added": report.added,
        "updated": report.updated,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "skipped": dict(report.skipped),
        "requests": report.requests,
        "bytes_read": report.bytes_read,
        "bytes_whole": report.bytes_whole,
        "seconds": round(report.seconds, 3),
        "failed": dict(report.failed),
        "not_asked": list(report.not_asked),
        "base_requests": report.base_requests,
        "base_bytes": report.base_bytes,
    }
    return json.dumps(value, indent=2)


def sync_csv(report: SyncReport) -> str:
    """One line an outcome."""
    return csv_table(_COLUMNS, _rows(report))


def sync_markdown(report: SyncReport) -> str:
    """One row an outcome."""
    return markdown_table(_COLUMNS, _rows(report))


def sync_table(report: SyncReport) -> list[RenderableType]:
    """What was done and what it took in one line, then a table of what was skipped."""
    from rich.table import Table
    from rich.text import Text

    counts = ", ".join(f"{n:,} {what}" for what, n in _outcomes(report) if n or what == "added")
    line = f"{counts} in {report.seconds:.1f} s; {spoken_bytes(report.bytes_read)} read"
    if report.bytes_whole > report.bytes_read:
        line += f" of {spoken_bytes(report.bytes_whole)}"
    if report.requests:
        line += f" in {report.requests:,} requests"
    if report.base_requests:
        line += f" ({spoken_bytes(report.base_bytes)} in {report.base_requests:,} of base models)"
    if not report.skipped:
        return [Text(line)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("skipped", justify="right", style="yellow")
    table.add_column("because")
    for reason, n in report.skipped.items():
        table.add_row(f"{n:,}", Text(plain(reason, 120)))
    return [Text(line), table]


def _outcomes(report: SyncReport) -> tuple[tuple[str, int], ...]:
    return (
        ("added", report.added),
        ("updated", report.updated),
        ("removed", report.removed),
        ("unchanged", report.unchanged),
    )


def _rows(report: SyncReport) -> list[tuple[Cell, ...]]:
    return [*_outcomes(report), *((f"skipped: {reason}", n) for reason, n in report.skipped.items())]
