"""Text from a hub, made inert for where it goes: a terminal, Markdown, a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from hubrank.checkpoints.card import plain

__all__ = ["Cell", "bar", "csv_table", "markdown_table", "markdown_text", "plain", "spoken_bytes", "spoken_seconds"]

Cell: TypeAlias = str | int | float | None

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#!|~&:@])")
_LONGEST = 300
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def csv_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A header line and a line a row; what a spreadsheet would run as a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(cell) for cell in row])
    return out.getvalue().rstrip("\n")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A Markdown table; in texts every character that means something is escaped."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_markdown_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def markdown_text(text: str, limit: int = _LONGEST) -> str:
    """One line of Markdown in which every character that means something is escaped."""
    return _MARKDOWN.sub(r"\\\1", plain(text, limit))


def bar(part: float, width: int, *, unicode: bool) -> str:
    """A bar for a part from 0 to 1, in eighths of a character where the terminal can show them."""
    eighths = round(min(1.0, max(0.0, part)) * width * 8)
    if not unicode:
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def spoken_bytes(count: float) -> str:
    """``512 bytes``, ``3.4 kB``, ``12.5 MB``, ``1.2 GB``: powers of 1000."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        # What would be rounded up to 1000.0 of a unit is 1.0 of the next.
        if count >= 999.95 * 1000 ** (power - 1):
            return f"{count / 1000**power:,.1f} {unit}"
    return f"{count:.0f} bytes"


def spoken_seconds(seconds: float) -> str:
    """``8 s``, ``2 min 5 s``, ``1 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _csv_cell(cell: Cell) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    line = plain(cell, _LONGEST)
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


def _markdown_cell(cell: Cell) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    return markdown_text(cell)
