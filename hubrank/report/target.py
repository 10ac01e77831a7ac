"""What was understood of a target file, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from hubrank._version import VERSION
from hubrank.report.text import Cell, bar, csv_table, markdown_table, plain
from hubrank.target.problems import Problem
from hubrank.target.summary import Quantiles, TargetSummary

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["target_csv", "target_json", "target_markdown", "target_table"]

_BAR = 16
_SHOWN = 12
_MOST_LABELS = 1_000
_COUNTED = ("tokens", "choices", "messages")
_LENGTHS = ("field", "unit", "min", "p25", "median", "p75", "p95", "max")


def target_json(summary: TargetSummary) -> str:
    """One object, ASCII only; ``problems`` has ``line`` (null for the file as a whole), ``message`` and ``level``."""
    examined, target = summary.examination, summary.examination.target
    value = {
        "hubrank": VERSION,
        "path": examined.path,
        "format": examined.format,
        "usable": examined.usable,
        "task": target.task if target is not None else None,
        "rows": len(target) if target is not None else 0,
        "fields": dict(target.fields) if target is not None else {},
        "unused_fields": list(examined.unused),
        "labels": [asdict(label) for label in summary.labels[:_MOST_LABELS]],
        "classes": len(target.classes) if target is not None else 0,
        "values": asdict(summary.values) if summary.values is not None else None,
        "lengths": {role: {"unit": _unit(role), **asdict(lengths)} for role, lengths in summary.lengths},
        "duplicates": {"repeated": summary.repeated, "conflicting": summary.conflicting},
        "notes": list(target.notes) if target is not None else [],
        "problems": [{"line": p.line, "message": p.message, "level": _level(p)} for p in examined.problems],
        "unlisted_problems": examined.unlisted,
        "sha256": target.sha256 if target is not None else None,
    }
    return json.dumps(value, indent=2, allow_nan=False)


def target_csv(summary: TargetSummary) -> str:
    """A line a fact: what, which, value."""
    rows: list[tuple[Cell, ...]] = [(what, "", value) for what, value in _facts(summary)]
    rows += [("label", label.label, label.count) for label in summary.labels[:_MOST_LABELS]]
    for role, lengths in summary.lengths:
        rows += [(f"length in {_unit(role)}", f"{role} {name}", _rounded(value)) for name, value in asdict(lengths).items()]
    rows += [(_level(p), p.line, p.message) for p in summary.examination.problems]
    return csv_table(("what", "which", "value"), rows)


def target_markdown(summary: TargetSummary) -> str:
    """Tables of facts, labels, lengths and problems."""
    parts = [markdown_table(("what", "value"), _facts(summary))]
    if summary.labels:
        parts.append(
            markdown_table(("label", "count"), [(label.label, label.count) for label in summary.labels[:_MOST_LABELS]])
        )
    if summary.lengths:
        parts.append(markdown_table(_LENGTHS, [_length_row(role, lengths) for role, lengths in summary.lengths]))
    if summary.examination.problems:
        rows = [(_level(p), p.line, p.message) for p in summary.examination.problems]
        parts.append(markdown_table(("level", "line", "message"), rows))
    return "\n\n".join(parts)


def target_table(summary: TargetSummary, *, unicode: bool = True) -> list[RenderableType]:
    """The facts, the most frequent labels with their bars, the lengths, the problems."""
    from rich.table import Table
    from rich.text import Text

    facts = Table(box=None, pad_edge=False, show_header=False)
    for fact, value in _facts(summary):
        facts.add_row(Text(str(fact), style="bold"), Text(plain(str(value), 300)))
    out: list[RenderableType] = [facts]
    out += _label_parts(summary, unicode=unicode)
    if summary.lengths:
        out += [Text(), _length_part(summary)]
    problems = summary.examination.problems
    shown = [Text(_line(p), style="bold red" if p.fatal else "yellow") for p in problems[: 2 * _SHOWN]]
    hidden = len(problems) - len(shown) + summary.examination.unlisted
    if hidden:
        shown.append(Text(f"and {hidden} more problems", style="yellow"))
    return [*out, *([Text(), *shown] if shown else [])]


def _label_parts(summary: TargetSummary, *, unicode: bool) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    if not summary.labels:
        return []
    labels = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("label", "count", ""):
        labels.add_column(name, justify="right" if name == "count" else "left")
    most = max(1, summary.labels[0].count)
    for label in summary.labels[:_SHOWN]:
        length = bar(label.count / most, _BAR, unicode=unicode)
        labels.add_row(Text(plain(label.label, 60)), Text(f"{label.count:,}"), Text(length, style="cyan"))
    hidden = len(summary.labels) - _SHOWN
    more = [Text(f"and {hidden} more (all with --format json)", style="dim")] if hidden > 0 else []
    return [Text(), labels, *more]


def _length_part(summary: TargetSummary) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    lengths = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("length of", *_LENGTHS[1:]):
        lengths.add_column(name, justify="left" if name in ("length of", "unit") else "right")
    for role, quantiles in summary.lengths:
        cells = _length_row(role, quantiles)
        lengths.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in cells))
    return lengths


def _facts(summary: TargetSummary) -> list[tuple[Cell, ...]]:
    examined, target = summary.examination, summary.examination.target
    facts: list[tuple[Cell, ...]] = [("file", examined.path), ("format", examined.format)]
    if target is None:
        return [*facts, ("task", "not understood")]
    facts += [("task", target.task), ("rows", len(target))]
    facts.append(("fields", ", ".join(f"{role}={plain(name, 60)}" for role, name in target.fields)))
    if examined.unused:
        facts.append(("fields not used", ", ".join(plain(name, 60) for name in examined.unused[:_SHOWN])))
    if target.classes:
        facts.append(("classes", len(target.classes)))
    if summary.values is not None:
        quantiles = summary.values
        facts.append(("labels", f"{quantiles.min:g} to {quantiles.max:g}, median {quantiles.median:g}"))
    facts.append(("duplicates", f"{summary.repeated} repeated, {summary.conflicting} conflicting"))
    return [*facts, *(("note", note) for note in target.notes)]


def _length_row(role: str, lengths: Quantiles) -> tuple[Cell, ...]:
    return role, _unit(role), *(_rounded(value) for value in asdict(lengths).values())


def _unit(role: str) -> str:
    return role if role in _COUNTED else "characters"


def _rounded(value: float) -> int | float:
    return int(value) if value.is_integer() else round(value, 2)


def _level(problem: Problem) -> str:
    return "error" if problem.fatal else "warning"


def _line(problem: Problem) -> str:
    where = f"line {problem.line}: " if problem.line is not None else ""
    return plain(f"{_level(problem)}: {where}{problem.message}", 500)
