"""What the doctor found, in every format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubrank.report.text import csv_table, markdown_table, plain

if TYPE_CHECKING:
    from hubrank.diagnosis import Finding

__all__ = ["findings_text"]

_COLUMNS = ("what", "level", "detail")


def findings_text(findings: Sequence[Finding], style: str) -> str:
    """Aligned lines, or JSON, CSV or Markdown."""
    rows = [(finding.what, finding.level, finding.detail) for finding in findings]
    if style == "json":
        return json.dumps([dict(zip(_COLUMNS, row, strict=True)) for row in rows], indent=2)
    if style in ("csv", "md"):
        return (csv_table if style == "csv" else markdown_table)(_COLUMNS, rows)
    width = max(len(what) for what, *_ in rows)
    return "\n".join(f"{level:<4}  {what:<{width}}  {plain(detail, 300)}" for what, level, detail in rows)
