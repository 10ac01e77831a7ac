"""The zoo's sources, one of them in full, and plain facts, in every format."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.report.text import Cell, bar, csv_table, markdown_table, plain
from hubrank.types import Signature, Source

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "facts_text",
    "layer_norms",
    "source_csv",
    "source_json",
    "source_markdown",
    "source_table",
    "sources_csv",
    "sources_json",
    "sources_markdown",
    "sources_table",
]

_COLUMNS = ("source", "base", "method", "rank", "task", "license", "revision")
_LAYER_COLUMNS = ("stack", "layer", "sites", "norm")
_BAR = 24


def sources_json(sources: Sequence[Source]) -> str:
    """A list of objects."""
    return json.dumps([_source_value(source) for source in sources], indent=2)


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
    shown = [name for name in _COLUMNS if name != "base" or len(bases) > 1]
    title = f"{len(sources)} sources" + (f" for {plain(next(iter(bases)), 100)}" if len(bases) == 1 else "")
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in shown:
        table.add_column(name, overflow="fold", justify="right" if name == "rank" else "left", no_wrap=name != "source")
    for source in sources:
        cells = dict(zip(_COLUMNS, _cells(source), strict=True))
        cells["revision"] = source.revision[:7] + (" (gone)" if source.gone else "")
        table.add_row(*(Text(plain(str(cells[name] or ""), 120)) for name in shown))
    return [table]


def layer_norms(signature: Signature) -> list[tuple[str, int, int, float]]:
    """(stack, layer, sites, Frobenius norm of the layer's update) in order of the layers."""
    squares: dict[tuple[str, int], list[float]] = defaultdict(list)
    for factors in signature.factors:
        squares[factors.site.stack, factors.site.layer].append(float(np.sum(factors.spectrum.astype(np.float64) ** 2)))
    return [(stack, layer, len(parts), float(np.sqrt(sum(parts)))) for (stack, layer), parts in sorted(squares.items())]


def source_json(source: Source, signature: Signature) -> str:
    """One object, with the norm of each layer."""
    layers = [{"stack": s, "layer": n, "sites": k, "norm": round(norm, 5)} for s, n, k, norm in layer_norms(signature)]
    return json.dumps({**_source_value(source), "layers": layers}, indent=2)


def source_csv(source: Source, signature: Signature) -> str:
    """A line a layer."""
    return csv_table(("source", *_LAYER_COLUMNS), ((source.name, *_rounded(row)) for row in layer_norms(signature)))


def source_markdown(source: Source, signature: Signature) -> str:
    """The facts, then the layers."""
    facts = markdown_table(("what", "value"), _facts(source))
    return f"{facts}\n\n{markdown_table(_LAYER_COLUMNS, map(_rounded, layer_norms(signature)))}"


def source_table(source: Source, signature: Signature, *, unicode: bool = True) -> list[RenderableType]:
    """The facts, then a small plot of the layers' norms, then the warnings."""
    from rich.table import Table
    from rich.text import Text

    facts = Table(box=None, pad_edge=False, show_header=False)
    for fact, value in _facts(source):
        facts.add_row(Text(str(fact), style="bold"), Text(plain(str(value), 300)))
    plot = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "sites", "norm", ""):
        plot.add_column(name, justify="right" if name else "left")
    norms = layer_norms(signature)
    most = max(norm for *_, norm in norms)
    for stack, layer, sites, norm in norms:
        label = Text(plain(f"{stack} {layer}" if layer >= 0 else "outside the layers", 40))
        plot.add_row(label, str(sites), f"{norm:.3f}", Text(bar(norm / most, _BAR, unicode=unicode), style="cyan"))
    warnings = [Text(plain(f"warning: {warning}", 300), style="yellow") for warning in source.warnings]
    return [facts, Text(), plot, *warnings]


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
    return source.name, source.base, source.method, source.rank, source.task, source.card.license, source.revision


def _rounded(row: tuple[str, int, int, float]) -> tuple[Cell, ...]:
    stack, layer, sites, norm = row
    return stack, layer, sites, round(norm, 5)


def _facts(source: Source) -> list[tuple[Cell, ...]]:
    card = source.card
    metrics = ", ".join(f"{metric.name} {metric.value:g}" for metric in card.metrics)
    values = {
        "source": source.name,
        "hub": source.hub,
        "revision": source.revision + (" (no longer on its hub)" if source.gone else ""),
        "base model": source.base,
        "method": f"{source.method}, rank {source.rank}",
        "task": card.task,
        "datasets": ", ".join(card.datasets),
        "language": ", ".join(card.languages),
        "license": card.license,
        "metrics (as its card states)": metrics,
        "tags": ", ".join(card.tags),
    }
    return [(name, value) for name, value in values.items() if value]


def _source_value(source: Source) -> dict[str, Any]:
    card = source.card
    return {
        "source": source.repo,
        "subfolder": source.subfolder,
        "revision": source.revision,
        "hub": source.hub,
        "base": source.base,
        "method": source.method,
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
