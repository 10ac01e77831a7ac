"""The zoo's sources, and plain facts, in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubrank.report.text import Cell, csv_table, markdown_table, plain
from hubrank.types import Source

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["facts_text", "source_value", "sources_csv", "sources_json", "sources_markdown", "sources_table"]

_COLUMNS = ("source", "base", "method", "rank", "task", "license", "revision", "hub", "gone")
# The columns of a terminal, and how many characters of each are shown there: a long task must not fold every name.
_TABLE = {"source": 160, "base": 60, "method": 24, "rank": 6, "task": 32, "license": 20, "revision": 16}


def sources_json(sources: Sequence[Source]) -> str:
    """A list of objects."""
    return json.dumps([source_value(source) for source in sources], indent=2)


def sources_csv(sources: Sequence[Source]) -> str:
    """A line a source."""
    return csv_table(_COLUMNS, map(_cells, sources))


def sources_markdown(sources: Sequence[Source]) -> str:
    """A row a source."""
    return markdown_table(_COLUMNS, map(_cells, sources))


def sources_table(sources: Sequence[Source]) -> list[RenderableType]:
    """A table; the base is named once where all have the same."""
    from rich.table import Table
    from rich.text import Text

    if not sources:
        return []
    bases = {source.base for source in sources}
    shown = [name for name in _TABLE if name != "base" or len(bases) > 1]
    what = "1 source" if len(sources) == 1 else f"{len(sources)} sources"
    title = what + (f" for {plain(next(iter(bases)), 100)}" if len(bases) == 1 else "")
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in shown:
        table.add_column(name, overflow="fold", justify="right" if name == "rank" else "left", no_wrap=name != "source")
    for source in sources:
        cells = dict(zip(_COLUMNS, _cells(source), strict=True))
        cells["revision"] = source.revision[:7] + (" (gone)" if source.gone else "")
        style = "dim" if source.gone else ""
        table.add_row(*(Text(plain(str(cells[name] or ""), _TABLE[name])) for name in shown), style=style)
    return [table]


def source_value(source: Source) -> dict[str, Any]:
    """What the zoo holds of one source, as a JSON object."""
    card = source.card
    return {
        "source": source.repo,
        "subfolder": source.subfolder,
        "branch": source.branch,
        "part": source.part,
        "revision": source.revision,
        "hub": source.hub,
        "base": source.base,
        "method": source.method,
        "variant": source.variant or source.method,
        "rank": source.rank,
        "task": card.task,
        "datasets": list(card.datasets),
        "license": card.license,
        "languages": list(card.languages),
        "metrics": {metric.name: metric.value for metric in card.metrics},
        "tags": list(card.tags),
        "warnings": list(source.warnings),
        "gone": source.gone,
    }


def facts_text(facts: Mapping[str, Any], style: str) -> str:
    """Named values as aligned lines, or as JSON, CSV or Markdown."""
    if style == "json":
        return json.dumps(facts, indent=2)
    flat: list[tuple[Cell, ...]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat += [(f"{name}: {plain(str(key), 120)}", count) for key, count in value.items()]
        else:
            flat.append((name, value))
    if style in ("csv", "md"):
        return (csv_table if style == "csv" else markdown_table)(("what", "value"), flat)
    width = max(len(str(name)) for name, _ in flat)
    return "\n".join(f"{name!s:<{width}}  {f'{value:,}' if isinstance(value, int) else value}" for name, value in flat)


def _cells(source: Source) -> tuple[Cell, ...]:
    card, gone = source.card, "gone" if source.gone else None
    method = source.full_method
    return source.name, source.base, method, source.rank, card.task, card.license, source.revision, source.hub, gone
