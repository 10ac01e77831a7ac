"""Why a source stands where it stands, in sentences and a small plot; every sentence follows from a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.ranking.explain import Explanation, Gap, LayerLead
from hubrank.report.inert import inert
from hubrank.report.profile import near_sentence, profile_value, strength_sentence
from hubrank.report.text import Cell, bar, markdown_table, markdown_text
from hubrank.report.words import BY_VIEW, OF_ROWS, VERBS, in_ascii, layer_words, layers_words, listed, ordinal

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hubrank.types import Source

__all__ = ["explanation_markdown", "explanation_table", "explanation_value", "heading", "sentences"]

STANDS_OUT = 1.0
"""Deviations above the mean of the sources from which a layer is named."""

_AGREE, _DISAGREE = 0.1, 0.33  # of the sources: how far apart the places by single views may, and may not, lie
_TELLING = 0.5  # deviations by which one thing has to be ahead of another to be named
_ROWS, _BAR, _FULL = 16, 16, 4.0  # of the plot: rows at most, characters of a bar, deviations that fill it
_NAME = 120


def heading(explanation: Explanation) -> str:
    """``1. org/name (task), lora``."""
    row = explanation.row
    return f"{row.rank}. {_named(row.source)}, {inert(row.source.full_method, 40)}"


def sentences(explanation: Explanation) -> list[str]:
    """What there is to say, most telling first. Names in it are inert on a terminal."""
    return [
        *_views(explanation),
        *_rows(explanation),
        *_layers(explanation),
        *_modules(explanation),
        *_coverage(explanation),
        *_seeds(explanation),
        *_gap(explanation),
        *strength_sentence(explanation.profile),
        *near_sentence(explanation.profile, explanation.near_places),
    ]


def explanation_value(explanation: Explanation) -> dict[str, Any]:
    """The JSON value: the sentences, and the numbers behind them."""
    row, gap = explanation.row, explanation.gap
    return {
        "rank": row.rank,
        "source": row.source.repo,
        "subfolder": row.source.subfolder,
        "estimator": explanation.estimator,
        "place": explanation.place,
        "of": explanation.of,
        "sentences": sentences(explanation),
        "views": [_rounded(asdict(lead)) for lead in explanation.views],
        "alike": list(explanation.alike),
        "rows": None if explanation.rows is None else _rounded(asdict(explanation.rows)),
        "layers": [_rounded(asdict(lead)) for lead in explanation.layers],
        "modules": [_rounded(asdict(lead)) for lead in explanation.modules],
        "sites": {"shared": explanation.shared, "tuned": explanation.tuned, "elsewhere": explanation.elsewhere},
        "seeds": explanation.seeds,
        "profile": profile_value(explanation.profile),
        "gap": None if gap is None else _gap_value(gap),
    }


def explanation_markdown(explanation: Explanation) -> str:
    """A heading, a list of sentences, and the layers as a table."""
    columns = ("layer", "sites", *(VERBS[lead.view] for lead in explanation.views))
    rows: list[tuple[Cell, ...]] = [
        (band.label, band.sites, *(_signed(value) for value in band.deviations)) for band in _bands(explanation.layers)
    ]
    rows += [(name, None, *values) for name, values in _totals(explanation)]
    said = "\n".join(f"- {markdown_text(sentence, 1000)}" for sentence in sentences(explanation))
    return f"### {markdown_text(heading(explanation))}\n\n{said}\n\n{markdown_table(columns, rows)}"


def explanation_table(explanation: Explanation, *, unicode: bool = True) -> list[RenderableType]:
    """What a terminal shows: a heading, the sentences, the plot."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(), Text(in_ascii(heading(explanation), unicode=unicode), style="bold")]
    parts += [Padding(Text(in_ascii(sentence, unicode=unicode)), (0, 0, 0, 2)) for sentence in sentences(explanation)]
    if not explanation.views:
        return parts
    title = f"deviations over the mean of the {explanation.of} sources"
    title += "; in all, less what is usual for each" if explanation.less_usual else ""
    plot = Table(title=Text(title, style="dim"), title_justify="left", box=None, pad_edge=True, header_style="bold")
    for name in ("layer", *(VERBS[lead.view] for lead in explanation.views)):
        plot.add_column(name, justify="right")
    plot.add_column("")
    for band in _bands(explanation.layers):
        mean = band.mean
        length = 0.0 if mean is None else mean / _FULL
        plot.add_row(band.label, *map(_signed, band.deviations), Text(bar(length, _BAR, unicode=unicode), style="cyan"))
    overall = float(np.mean([lead.deviations for lead in explanation.views]))
    drawn = Text(bar(overall / _FULL, _BAR, unicode=unicode), style="cyan")
    for name, values in _totals(explanation):
        plot.add_row(name, *values, drawn if name == "all" else "", style="bold" if name == "all" else "dim")
    return [*parts, plot]


def _totals(explanation: Explanation) -> list[tuple[str, list[str]]]:
    """Under the layers: the views as wholes, the cosines that those are, and what the mean source has."""
    leads = explanation.views
    return [
        ("all", [_signed(lead.deviations) for lead in leads]),
        ("cosine", [f"{lead.cosine:.3f}" for lead in leads]),
        ("mean source", [f"{lead.usual:.3f}" for lead in leads]),
    ]


@dataclass(frozen=True, slots=True)
class _Band:
    """A row of the plot: a layer, or neighbours of a deep model."""

    label: str
    sites: int
    deviations: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        known = [value for value in self.deviations if value is not None]
        return float(np.mean(known)) if known else None


def _bands(layers: Sequence[LayerLead]) -> list[_Band]:
    step = -(-len(layers) // _ROWS) or 1
    bands = []
    for stack in dict.fromkeys(lead.stack for lead in layers):
        mine = [lead for lead in layers if lead.stack == stack]
        for start in range(0, len(mine), step):
            some = mine[start : start + step]
            known = [[v for v in column if v is not None] for column in zip(*(lead.deviations for lead in some), strict=True)]
            label = layer_words(some[0].stack, some[0].layer)
            if len(some) > 1:
                label += f" to {some[-1].layer}"
            means = tuple(float(np.mean(values)) if values else None for values in known)
            bands.append(_Band(label, sum(lead.sites for lead in some), means))
    return bands


def _views(explanation: Explanation) -> list[str]:
    leads, of = explanation.views, explanation.of
    said = []
    if len(leads) > 1:
        places = [lead.place for lead in leads]
        apart = max(places) - min(places)
        lead_in = "The views agree: it is" if apart <= max(1, _AGREE * of) else "It is"
        if apart > _DISAGREE * of:
            lead_in = "The views disagree: it is"
        said.append(f"{lead_in} {listed([f'{ordinal(lead.place)} by {BY_VIEW[lead.view]}' for lead in leads])}, of {of}.")
    elif leads:
        said.append(f"It is {ordinal(leads[0].place)} of {of} by {BY_VIEW[leads[0].view]}.")
    if explanation.alike:
        what = listed([BY_VIEW[view] for view in explanation.alike])
        said.append(f"By {what} all {of} sources are alike, so that tells nothing here.")
    if explanation.place != explanation.row.rank:
        said.append(f"Among the {of} {inert(explanation.row.source.method, 20)} sources it is {ordinal(explanation.place)}.")
    return said


def _rows(explanation: Explanation) -> list[str]:
    lead = explanation.rows
    if lead is None:
        return []
    where = f"{ordinal(lead.place)} of {explanation.of}, {_over(lead.deviations)} the mean source"
    return [f"By how well {OF_ROWS} explains their labels it is {where}."]


def _layers(explanation: Explanation) -> list[str]:
    leads = [(lead, lead.mean) for lead in explanation.layers]
    known = [(lead, mean) for lead, mean in leads if mean is not None]
    if not known:
        return []
    if len(known) == 1:
        ((lead, mean),) = known
        return [f"All that is compared lies in {_where([lead])}: {_over(mean)} the mean source."]
    high = [(lead, mean) for lead, mean in known if mean >= STANDS_OUT]
    low = [lead for lead, mean in known if mean <= -STANDS_OUT]
    said = []
    if len(high) > 1:
        most, mean = max(high, key=lambda pair: pair[1])
        which = f"all {len(high)} layers" if len(high) == len(explanation.layers) else _where([lead for lead, _ in high])
        said.append(f"It stands out in {which}, most in {_where([most])}: {_over(mean)} the mean source.")
    elif high:
        said.append(f"It stands out in {_where([high[0][0]])} alone: {_over(high[0][1])} the mean source.")
    else:
        most, mean = max(known, key=lambda pair: pair[1])
        together = " over its views together" if len(explanation.views) > 1 else ""
        said.append(f"In no layer does it stand out{together}: at most {_over(mean)} the mean source, in {_where([most])}.")
    if low:
        said.append(f"In {_where(low)} it is further from the target than most.")
    return said


def _modules(explanation: Explanation) -> list[str]:
    leads = explanation.modules
    if len(leads) < 2 or leads[0].deviations - leads[-1].deviations < _TELLING:
        return []
    first, last = leads[0], leads[-1]
    most = f"{inert(first.module, 60)} speaks most for it ({_signed(first.deviations)} deviations)"
    return [f"Of its modules {most}, {inert(last.module, 60)} least ({_signed(last.deviations)})."]


def _coverage(explanation: Explanation) -> list[str]:
    said = []
    if explanation.shared < explanation.tuned:
        without = [lead for lead in explanation.layers if not lead.sites]
        lacking = f"; {_where(without)} {'is' if len(without) == 1 else 'are'} not among them" if without else ""
        said.append(f"It shares {explanation.shared} of the {explanation.tuned} sites that the target was tuned at{lacking}.")
    if explanation.elsewhere:
        sites = "1 site" if explanation.elsewhere == 1 else f"{explanation.elsewhere} sites"
        said.append(f"It also changes {sites} that the target was not tuned at: they were not compared.")
    return said


def _seeds(explanation: Explanation) -> list[str]:
    interval = explanation.row.interval
    if interval is None:
        return []
    best, worst = interval
    if best == worst:
        return [f"Under each of {explanation.seeds} seeds it comes {ordinal(best)}."]
    return [
        f"The {explanation.seeds} seeds disagree: it comes {ordinal(best)} under the kindest, {ordinal(worst)} under another."
    ]


def _gap(explanation: Explanation) -> list[str]:
    gap = explanation.gap
    if gap is None:
        return []
    ahead = explanation.row.rank < gap.other.rank
    side = "ahead of" if ahead else "behind"
    how = f"by {abs(gap.score):.2f} of score" if gap.score is not None else "in order"
    said = f"It is {side} place {gap.other.rank}, {_named(gap.other.source)}, {how}"
    by = _gap_views(explanation, gap, 1.0 if ahead else -1.0)
    where = (
        f"; the gap is widest in {layer_words(*gap.layer, word=True)}"
        if gap.layer is not None and len(explanation.layers) > 1
        else ""
    )
    seeds = f"; under {gap.ahead} of {explanation.seeds} seeds it comes before it" if explanation.seeds > 1 else ""
    return [f"{said}{by}{where}{seeds}."]


def _gap_views(explanation: Explanation, gap: Gap, sign: float) -> str:
    views = explanation.views if gap.views else ()
    named = [(BY_VIEW[lead.view], size, abs(size)) for lead, size in zip(views, gap.views, strict=True)]
    if gap.rows is not None:
        named.append((OF_ROWS, gap.rows, gap.weight * abs(gap.rows)))
    if len(named) < 2:
        return ""
    with_it = sorted((one for one in named if sign * one[1] > 0), key=lambda one: -one[2])
    against = [one for one in named if sign * one[1] < 0]
    parts = []
    if with_it:
        name, size, _ = with_it[0]
        parts.append(f"most by {name} ({_signed(size)} deviations)")
    if against:
        names = [f"{name} ({_signed(size)})" for name, size, _ in against]
        parts.append(f"though {'behind' if sign > 0 else 'ahead'} by {listed(names)}")
    return f": {', '.join(parts)}" if parts else ""


def _gap_value(gap: Gap) -> dict[str, Any]:
    source = gap.other.source
    layer = None if gap.layer is None else {"stack": gap.layer[0], "layer": gap.layer[1]}
    score = None if gap.score is None else round(gap.score, 4)
    views = [round(value, 4) for value in gap.views]
    return {
        "rank": gap.other.rank,
        "source": source.repo,
        "subfolder": source.subfolder,
        "score": score,
        "views": views,
        "rows": None if gap.rows is None else round(gap.rows, 4),
        "layer": layer,
        "seeds_ahead": gap.ahead,
    }


def _named(source: Source) -> str:
    task = f" ({inert(source.task, 40)})" if source.task else ""
    return f"{inert(source.name, _NAME)}{task}"


def _where(leads: Sequence[LayerLead]) -> str:
    return layers_words([(lead.stack, lead.layer) for lead in leads])


def _over(mean: float) -> str:
    return f"{abs(mean):.1f} deviations {'over' if mean >= 0 else 'under'}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
