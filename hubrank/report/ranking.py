"""A ranking as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hubrank._version import VERSION
from hubrank.report.explain import explanation_markdown, explanation_table, explanation_value
from hubrank.report.snippet import loading_lines
from hubrank.report.text import Cell, bar, csv_table, markdown_table, plain
from hubrank.report.verified import added_cells, added_columns, verified_markdown, verified_table
from hubrank.types import MethodRun, Ranking, Scored, Verified

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["ranking_csv", "ranking_json", "ranking_markdown", "ranking_table", "ranking_value"]

_BAR = 8
_COLUMNS = ("rank", "source", "task", "method", "score", "similarity", "warnings")


def ranking_value(ranking: Ranking) -> dict[str, Any]:
    """The JSON value; numbers rounded to what they carry."""
    target = ranking.target
    return {
        "hubrank": VERSION,
        "base": ranking.base,
        "methods": list(ranking.methods),
        "estimator": ranking.estimator,
        "target": {
            "path": target.path,
            "examples": target.examples,
            "task": target.task,
            "labels": target.labels,
            "steps": target.steps,
            "seconds": round(target.seconds, 2),
            "device": target.device,
        },
        "zoo": {"sources": ranking.sources, "compared": ranking.compared, "skipped": dict(ranking.skipped)},
        "ranking": [_row(row) for row in ranking.rows],
        "verdict": {
            "relevant": ranking.verdict.relevant,
            "why": ranking.verdict.why,
            "prominence": _rounded(ranking.verdict.prominence),
        },
        "energy": round(ranking.energy, 4),
        "notes": list(ranking.notes),
        "runs": [_run(run) for run in ranking.runs],
        "verified": [_verified(one) for one in ranking.verified],
        "explanations": [explanation_value(one) for one in ranking.explanations],
    }


def ranking_json(ranking: Ranking) -> str:
    """Indented JSON, ASCII only, so that nothing in a name can act on a terminal."""
    return json.dumps(ranking_value(ranking), indent=2, allow_nan=False)


def ranking_csv(ranking: Ranking) -> str:
    """A header line and one line a source."""
    columns = (*_COLUMNS, *added_columns(ranking))
    return csv_table(columns, ((*_cells(row), *added_cells(ranking, row)) for row in ranking.rows))


def ranking_markdown(ranking: Ranking) -> str:
    """A Markdown table under the verdict, and under it what was measured and explained."""
    columns = (*_COLUMNS, *added_columns(ranking))
    table = markdown_table(columns, ((*_cells(row), *added_cells(ranking, row)) for row in ranking.rows))
    parts = [f"**{_headline(ranking)}**\n\n{table}{verified_markdown(ranking)}"]
    return "\n\n".join([*parts, *(explanation_markdown(one) for one in ranking.explanations)])


def ranking_table(ranking: Ranking, *, unicode: bool = True) -> list[RenderableType]:
    """What a terminal shows: the table, the verdict, what was explained, and how to load the winner."""
    from rich.table import Table
    from rich.text import Text

    target = ranking.target
    labels = f", {target.labels} classes" if target.labels else ""
    title = f"{ranking.compared} sources for {plain(target.path, 60)} ({target.examples} rows, {target.task}{labels})"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, right in (("#", True), ("source", False), ("task", False), ("method", False), ("score", True), ("", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "source", overflow="fold")
    table.add_column("similarity", justify="right")
    repeated = any(row.interval is not None for row in ranking.rows)
    if repeated:
        table.add_column("places", justify="right")
    reranked = any(row.logme is not None for row in ranking.rows)
    if reranked:
        table.add_column("LogME", justify="right")
        table.add_column("reranked", justify="right")
    warned = any(row.warnings for row in ranking.rows)
    if warned:
        table.add_column("warnings", overflow="fold", style="yellow")
    most = max((row.score for row in ranking.rows if row.score is not None), default=0.0)
    for row in ranking.rows:
        source = row.source
        cells = [Text(plain(source.name, 200)), Text(plain(source.task or "", 32)), Text(source.method)]
        score = "" if row.score is None else f"{row.score:.2f}"
        length = 0.0 if row.score is None or most <= 0 else row.score / most
        cells += [Text(score), Text(bar(length, _BAR, unicode=unicode), style="green")]
        places = "" if row.interval is None else f"{row.interval[0]}-{row.interval[1]}"
        cells += [
            Text(f"{row.similarity:.3f}"),
            *([Text(places)] if repeated else []),
            *([Text(_number(row.logme)), Text(_number(row.rerank_score))] if reranked else []),
            *([Text(plain("; ".join(row.warnings), 200))] if warned else []),
        ]
        table.add_row(str(row.rank), *cells)
    verdict = Text(_headline(ranking), style="green" if ranking.verdict.relevant else "bold yellow")
    out: list[RenderableType] = [table, Text(), verdict, *verified_table(ranking)]
    for explanation in ranking.explanations:
        out += explanation_table(explanation, unicode=unicode)
    if ranking.rows:
        first, second = loading_lines(ranking.rows[0].source, ranking.base_folder)
        out += [Text(), Text("Load the first:"), Text(f"    {first}", no_wrap=True), Text(f"    {second}", no_wrap=True)]
    return out


def _headline(ranking: Ranking) -> str:
    lead = "Related sources found" if ranking.verdict.relevant else "No related source found"
    return f"{lead}: {ranking.verdict.why}."


def _row(row: Scored) -> dict[str, Any]:
    source = row.source
    return {
        "rank": row.rank,
        "source": source.repo,
        "revision": source.revision,
        "subfolder": source.subfolder,
        "method": source.method,
        "task": source.task,
        "score": None if row.score is None else round(row.score, 4),
        "similarity": round(row.similarity, 5),
        "layers": [None if layer is None else round(layer, 5) for layer in row.layers],
        "warnings": list(row.warnings),
        "hub": source.hub,
        "coverage": round(row.coverage, 4),
        "interval": None if row.interval is None else list(row.interval),
        "evidence": _rounded(row.evidence),
        "logme": _rounded(row.logme),
        "rerank_score": _rounded(row.rerank_score),
    }


def _verified(one: Verified) -> dict[str, Any]:
    source = one.source
    return {
        "source": None if source is None else source.repo,
        "revision": None if source is None else source.revision,
        "subfolder": None if source is None else source.subfolder,
        "shape": one.shape,
        "metric": one.metric,
        "value": _rounded(one.value),
        "spread": _rounded(one.spread),
        "gain": _rounded(one.gain),
        "gain_error": _rounded(one.gain_error),
        "seeds": one.seeds,
        "steps": one.steps,
    }


def _run(run: MethodRun) -> dict[str, Any]:
    return {
        "method": run.method,
        "seed": run.seed,
        "sources": run.sources,
        "steps": run.steps,
        "planned": run.planned,
        "stopped": run.stopped,
        "cached": run.cached,
        "seconds": round(run.seconds, 2),
        "overlap": _rounded(run.overlap),
        "energy": _rounded(run.energy),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _cells(row: Scored) -> tuple[Cell, ...]:
    source = row.source
    score = None if row.score is None else round(row.score, 3)
    return row.rank, source.name, source.task, source.method, score, round(row.similarity, 4), "; ".join(row.warnings)
