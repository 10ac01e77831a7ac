"""What a sync did, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubrank.report.text import Cell, csv_table, markdown_table, plain
from hubrank.types import SyncReport

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["sync_csv", "sync_json", "sync_markdown", "sync_table"]

_COLUMNS = ("what", "adapters")


def sync_json(report: SyncReport) -> str:
    """The JSON that DESIGN.md promises."""
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
    }
    return json.dumps(value, indent=2)


def sync_csv(report: SyncReport) -> str:
    """One line an outcome."""
    return csv_table(_COLUMNS, _rows(report))


def sync_markdown(report: SyncReport) -> str:
    """One row an outcome."""
    return markdown_table(_COLUMNS, _rows(report))


def sync_table(report: SyncReport) -> list[RenderableType]:
    """One line, and one more for each reason to skip."""
    from rich.text import Text

    counts = ", ".join(f"{n} {what}" for what, n in _rows(report)[:4] if n or what == "added")
    line = f"{counts} in {report.seconds:.1f} s; {report.bytes_read / 1e6:.1f} MB read"
    if report.requests:
        line += f" in {report.requests} requests"
    skipped = [Text(plain(f"skipped {n}: {reason}", 120), style="yellow") for reason, n in report.skipped.items()]
    return [Text(line), *skipped]


def _rows(report: SyncReport) -> list[tuple[Cell, ...]]:
    counts = (
        ("added", report.added),
        ("updated", report.updated),
        ("removed", report.removed),
        ("unchanged", report.unchanged),
    )
    return [*counts, *((f"skipped: {reason}", n) for reason, n in report.skipped.items())]
