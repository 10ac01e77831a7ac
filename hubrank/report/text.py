"""Text from a hub, made inert for where it goes: a terminal, Markdown, a spreadsheet."""

from __future__ import annotations

import re

from hubrank.checkpoints.card import plain

__all__ = ["csv_cell", "markdown_cell", "plain"]

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~&:@\-])")


def markdown_cell(text: str) -> str:
    """Inside a Markdown table: one line, every character that means something escaped."""
    return _MARKDOWN.sub(r"\\\1", plain(text, 300))


def csv_cell(text: str) -> str:
    """Inside a CSV file: what a spreadsheet would run as a formula gets an apostrophe in front."""
    line = plain(text, 300)
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line
