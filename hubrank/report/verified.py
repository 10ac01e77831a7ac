"""What was measured from the first sources and from scratch, for a terminal, Markdown, CSV and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubrank.report.page import Section, table, text
from hubrank.report.text import Cell, markdown_table, markdown_text, plain
from hubrank.types import Ranking, Scored, Verified

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "added_cells",
    "added_columns",
    "verified_markdown",
    "verified_section",
    "verified_sentence",
    "verified_table",
]

_MEASURED = ("logme", "rerank_score")
_VERIFIED = ("metric", "value", "spread", "gain", "gain_error", "seeds")
_COLUMNS = ("tuned from", "shape", *_VERIFIED)
_CLEAR = 2.0  # standard errors


def verified_sentence(ranking: Ranking) -> str:
    """The fact that the user leaves with, of the best start; empty where nothing was measured."""
    best = next((one for one in ranking.verified if one.source is not None and one.gain is not None), None)
    if best is None or best.source is None or best.gain is None:
        return ""
    what = f"{_signed(best.gain)} {best.metric}" if best.metric != "loss" else f"{_signed(-best.gain)} loss"
    if best.gain_error is None:
        return f"Starting from {plain(best.source.name, 200)} gave {what} over no transfer, in one fold."
    if best.gain > _CLEAR * best.gain_error:
        verdict = "a clear gain"
    elif best.gain < -_CLEAR * best.gain_error:
        verdict = "clearly worse"
    else:
        verdict = "no clear difference"
    folds = f"over {best.seeds} folds of {best.steps} steps"
    return (
        f"Starting from {plain(best.source.name, 200)}: {what} (± {best.gain_error:.3f}) over no transfer, {folds}: {verdict}."
    )


def added_columns(ranking: Ranking) -> tuple[str, ...]:
    """What rerank and verify add to a line a source; nothing where neither was asked for."""
    return (*(_MEASURED if _reranked(ranking) else ()), *(_VERIFIED if ranking.verified else ()))


def added_cells(ranking: Ranking, row: Scored) -> tuple[Cell, ...]:
    """The same of one row."""
    measured = (_rounded(row.logme), _rounded(row.rerank_score)) if _reranked(ranking) else ()
    if not ranking.verified:
        return measured
    found = next((one for one in ranking.verified if one.source == row.source), None)
    return (*measured, *((None,) * len(_VERIFIED) if found is None else _figures(found)))


def verified_markdown(ranking: Ranking) -> str:
    """The sentence and a table, under a blank line; empty where nothing was measured."""
    if not ranking.verified:
        return ""
    rows = [(_start(one), one.shape, *_figures(one)) for one in ranking.verified]
    return f"\n\n{markdown_text(verified_sentence(ranking), 600)}\n\n{markdown_table(_COLUMNS, rows)}"


def verified_table(ranking: Ranking) -> list[RenderableType]:
    """What a terminal shows of it."""
    from rich.table import Table
    from rich.text import Text

    if not ranking.verified:
        return []
    first = ranking.verified[0]
    title = f"Measured: {first.metric} on held-out rows, {first.seeds} folds of {first.steps} steps"
    drawn = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("tuned from", "shape", first.metric, "over no transfer"):
        drawn.add_column(name, justify="right" if name not in ("tuned from", "shape") else "left", overflow="fold")
    for one in ranking.verified:
        value = _with_error(f"{one.value:.3f}", one.spread)
        gain = "" if one.gain is None else _with_error(_signed(one.gain), one.gain_error)
        drawn.add_row(Text(plain(_start(one), 200)), Text(plain(one.shape, 80)), Text(value), Text(gain))
    return [Text(), drawn, Text(), Text(verified_sentence(ranking))]


def verified_section(ranking: Ranking) -> Section | None:
    """The part of the page; None where nothing was measured."""
    if not ranking.verified:
        return None
    columns = ["tuned from", "shape", "metric", "value", "over no transfer", "folds"]
    rows = []
    for one in ranking.verified:
        gain = "" if one.gain is None else _with_error(_signed(one.gain), one.gain_error)
        value = _with_error(f"{one.value:.3f}", one.spread)
        rows.append([text(_start(one)), text(one.shape), text(one.metric), text(value), text(gain), str(one.seeds)])
    drawn = table(columns, rows, label="What was measured", right=("value", "over no transfer", "folds"))
    note = (
        '<p class="soft">Each start was tuned on the same rows and scored on rows held out. Value: mean and standard deviation '
        "over the folds. Over no transfer: mean gain over a fresh adapter of the same shape, with its standard error, "
        "corrected for folds that share rows.</p>"
    )
    return Section("measured", "Measured on your rows", f"<p>{text(verified_sentence(ranking), 600)}</p>{drawn}{note}")


def _reranked(ranking: Ranking) -> bool:
    return any(row.logme is not None for row in ranking.rows)


def _figures(one: Verified) -> tuple[Cell, ...]:
    numbers = (_rounded(number) for number in (one.value, one.spread, one.gain, one.gain_error))
    return one.metric, *numbers, one.seeds


def _start(one: Verified) -> str:
    return "(from scratch)" if one.source is None else one.source.name


def _signed(number: float) -> str:
    """With its sign, and no minus before a zero."""
    return f"{round(number, 3) + 0.0:+.3f}"


def _with_error(number: str, error: float | None) -> str:
    return number if error is None else f"{number} ± {error:.3f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
