"""A benchmark as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hubrank._version import VERSION
from hubrank.benchmark.facts import BenchReport
from hubrank.benchmark.judge import MEASURES, Cost, Judged, paired
from hubrank.report.inert import inert_json
from hubrank.report.text import Cell, csv_table, markdown_table, markdown_text, plain, spoken_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hubrank.ranking.measures import Interval

__all__ = ["bench_csv", "bench_json", "bench_markdown", "bench_table", "bench_value"]

_PERCENT = ("regret@1", "regret@3", "regret@5", "gain")
_HEADS = {"ndcg": "NDCG", "rank_ndcg": "NDCG by rank", "spearman": "Spearman"}
_UNMATCHED = 5


def bench_value(report: BenchReport) -> dict[str, Any]:
    """The report as JSON types: parts of 1, not percent; null where a figure says nothing."""
    return {
        "hubrank": VERSION,
        "transfer": report.transfer,
        "zoo": report.zoo,
        "base": report.base,
        "methods": list(report.methods),
        "kin": report.kin,
        "sources": {"in_file": report.sources, "matched": report.matched},
        "unmatched": [{"source": name, "why": why} for name, why in report.unmatched],
        "targets": [
            {
                "target": target.name,
                "metric": target.metric or None,
                "sources": target.sources,
                "seeds": target.seeds,
                "best": target.best,
                "best_value": _rounded(target.best_value),
                "no_transfer": _rounded(target.no_transfer),
            }
            for target in report.targets
        ],
        "rankings": [_line(line, _default(report)) for line in report.lines],
        "left_out": [{"ranking": name, "why": why} for name, why in report.left_out],
        "notes": list(report.notes),
        "seconds": round(report.seconds, 2),
    }


def bench_json(report: BenchReport) -> str:
    """Indented ASCII JSON."""
    return inert_json(bench_value(report))


def bench_csv(report: BenchReport) -> str:
    """A line a ranking: each measure's mean with its bounds, then the costs."""
    columns = ["ranking", "kind", "default", "targets"]
    for measure in MEASURES:
        columns += [measure, f"{measure} low", f"{measure} high"]
    costs = ["tunes the target", "tuning seconds", "passes a source", "bytes a source", "seconds", "seconds before"]
    rows = []
    for line in report.lines:
        row: list[Cell] = [line.name, line.kind, "yes" if line.default else "", len(line.per_target)]
        for measure in MEASURES:
            one = line.figures[measure]
            row += [_rounded(one.mean), _rounded(one.low), _rounded(one.high)]
        cost = line.cost
        row += ["yes" if cost.tunes else "", _rounded(cost.tuning_seconds), cost.passes, _rounded(cost.bytes)]
        row += [_rounded(cost.seconds), _rounded(cost.before)]
        rows.append(row)
    return csv_table([*columns, *costs], rows)


def bench_markdown(report: BenchReport) -> str:
    """What was judged, a table of the rankings, what was left out."""
    columns = ("ranking", *(_HEADS.get(measure, measure) for measure in MEASURES), *_COSTS)
    rows = [
        (_name(line), *(_figure(measure, one) for measure, one in line.figures.items()), *_costs(line.cost))
        for line in report.lines
    ]
    parts = [f"**{markdown_text(_headline(report))}**", markdown_table(columns, rows), markdown_text(_LEGEND, 1000)]
    parts += [markdown_text(sentence, 1000) for sentence in _sentences(report)]
    return "\n\n".join(parts)


def bench_table(report: BenchReport) -> list[RenderableType]:
    """What a terminal shows: figures with their intervals, then what each ranking costs."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_headline(report)), title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("ranking", overflow="fold")
    for measure in MEASURES:
        table.add_column(_HEADS.get(measure, measure), justify="right", no_wrap=True)
    for line in report.lines:
        style = "green" if line.default else "dim" if line.kind == "reference" else ""
        figures = (Text(_figure(measure, one)) for measure, one in line.figures.items())
        table.add_row(Text(plain(_name(line), 80)), *figures, style=style)
    costs = Table(title=Text("What each costs"), title_justify="left", box=None, pad_edge=False, header_style="bold")
    costs.add_column("ranking", overflow="fold")
    for head in _COSTS:
        costs.add_column(head, justify="left" if head == "needs" else "right")
    for line in report.lines:
        if line.kind != "reference":
            costs.add_row(Text(plain(_name(line), 80)), *(Text(plain(str(cell), 80)) for cell in _costs(line.cost)))
    out: list[RenderableType] = [table, Text(_LEGEND, style="dim"), Text()]
    out += [costs, Text()] if costs.row_count else []
    return out + [Text(plain(sentence, 1000), style="dim") for sentence in _sentences(report)]


_LEGEND = (
    "regret and gain in percent; mean over targets, 95 % bootstrap interval over targets in brackets; "
    "gain: over no transfer, of the source that comes first"
)
_COSTS = ("tunes the target", "tuning", "passes a source", "bytes a source", "ranking", "once a source", "needs")


def _headline(report: BenchReport) -> str:
    base = f" of {plain(report.base, 80)}" if report.base else ""
    kin = "" if report.kin else ", without sources of a target's own task or corpus"
    return f"{report.matched} sources{base} on {len(report.targets)} targets{kin}"


def _name(line: Judged) -> str:
    return f"{line.name} (default)" if line.default else line.name


def _figure(measure: str, one: Interval) -> str:
    if math.isnan(one.mean):
        return ""
    scale, digits = (100, 1) if measure in _PERCENT else (1, 3)
    mean, low, high = (f"{scale * value:.{digits}f}" for value in (one.mean, one.low, one.high))
    return f"{mean} [{low}, {high}]"


def _costs(cost: Cost) -> tuple[str, ...]:
    return (
        "yes" if cost.tunes else "no",
        _if_known(cost.tuning_seconds, _seconds),
        str(cost.passes),
        _if_known(cost.bytes, spoken_bytes),
        _if_known(cost.seconds, _seconds),
        _if_known(cost.before, _seconds),
        cost.needs,
    )


def _if_known(value: float | None, spoken: Callable[[float], str]) -> str:
    return "" if value is None or math.isnan(value) else spoken(value)


def _seconds(value: float) -> str:
    return f"{1000 * value:.2g} ms" if value < 0.1 else f"{value:.1f} s"


def _sentences(report: BenchReport) -> Iterator[str]:
    if report.unmatched:
        shown = ", ".join(f"{name} ({why})" for name, why in report.unmatched[:_UNMATCHED])
        more = f" and {len(report.unmatched) - _UNMATCHED} more" if len(report.unmatched) > _UNMATCHED else ""
        yield f"not judged, {len(report.unmatched)} of {report.sources} sources in {report.transfer}: {shown}{more}"
    yield from (f"{line.name}: {line.note}" for line in report.lines if line.note)
    few = ((line.name, len(line.per_target)) for line in report.lines if line.kind != "reference")
    yield from (f"{name}: on {n} of {len(report.targets)} targets" for name, n in few if n < len(report.targets))
    yield from (f"{name} is not judged: {why}" for name, why in report.left_out)
    yield from report.notes


def _default(report: BenchReport) -> Judged | None:
    return next((line for line in report.lines if line.default), None)


def _line(line: Judged, default: Judged | None) -> dict[str, Any]:
    cost = line.cost
    return {
        "ranking": line.name,
        "kind": line.kind,
        "default": line.default,
        "note": line.note,
        "figures": {measure: _interval(one) for measure, one in line.figures.items()},
        "minus_default": _minus(line, default),
        "targets": {
            target: {measure: _rounded(value) for measure, value in found.items()} for target, found in line.per_target.items()
        },
        "cost": {
            "tunes_target": cost.tunes,
            "tuning_seconds": _rounded(cost.tuning_seconds),
            "passes_per_source": cost.passes,
            "bytes_per_source": _rounded(cost.bytes),
            "seconds": _rounded(cost.seconds),
            "seconds_before_per_source": _rounded(cost.before),
            "needs": cost.needs,
        },
    }


def _minus(line: Judged, default: Judged | None) -> dict[str, Any] | None:
    """What it is worse or better than the ranking of a search, target by target."""
    if default is None or default is line:
        return None
    return {measure: _interval(paired(line, default, measure)) for measure in MEASURES}


def _interval(one: Interval) -> dict[str, float | None]:
    return {"mean": _rounded(one.mean), "low": _rounded(one.low), "high": _rounded(one.high)}


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 5)
