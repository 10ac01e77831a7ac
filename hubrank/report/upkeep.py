"""What pruning the zoo did, or would do, in every format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubrank.report.text import csv_table, markdown_table, plain, spoken_bytes

if TYPE_CHECKING:
    from hubrank.zoo.upkeep import Pruned

__all__ = ["pruned_text"]


def pruned_text(pruned: Pruned, style: str, *, dry_run: bool) -> str:
    """The names of the sources, a line each, under what they come to; or JSON, CSV or Markdown."""
    if style == "json":
        value = {"sources": list(pruned.sources), "skips": pruned.skips, "bytes": pruned.bytes, "dry_run": dry_run}
        return json.dumps(value, indent=2)
    if style in ("csv", "md"):
        return (csv_table if style == "csv" else markdown_table)(("source",), [(name,) for name in pruned.sources])
    lead = "would forget" if dry_run else "forgot"
    count = len(pruned.sources)
    line = f"{lead} {count:,} {'source' if count == 1 else 'sources'}"
    line += f" and {pruned.skips:,} that could not be read" if pruned.skips else ""
    freed = "" if dry_run else f"; {spoken_bytes(pruned.bytes)} freed"
    return "\n".join([line + freed, *(f"  {plain(name, 160)}" for name in pruned.sources)])
