"""A ranking as one self-contained page: who comes first, layer by layer, where it lies in the zoo, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence

from hubrank._version import VERSION
from hubrank.ranking.explain import Explanation
from hubrank.ranking.zoo_map import ZooMap
from hubrank.report.explain import heading, sentences
from hubrank.report.figures import HeatRow, bar_svg, heatmap_svg, map_svg
from hubrank.report.page import Section, facts, page, table, text
from hubrank.report.snippet import loading_lines
from hubrank.report.verified import verified_section
from hubrank.types import Ranking, Scored

__all__ = ["layer_names", "map_section", "run_section", "search_page"]

_NEAR = 5
_HEAT = 25


def search_page(ranking: Ranking, drawn: ZooMap | None, *, command: str, versions: Sequence[tuple[str, str]]) -> str:
    """The document.

    Args:
        drawn: the map of the zoo with the target in it, where there is one.
        command: the exact command, as a shell takes it.
        versions: of what made it, by name.
    """
    target = ranking.target
    name = target.path.replace("\\", "/").rpartition("/")[2]
    verdict = "Related sources found" if ranking.verdict.relevant else "No related source found"
    kind = "good" if ranking.verdict.relevant else "warning"
    classes = f", {target.labels} classes" if target.labels else ""
    lead = (
        f'<p class="lead"><strong class="{kind}">{verdict}.</strong> {text(_sentence(ranking.verdict.why))}</p>'
        f'<p class="soft">{target.examples} rows, {text(target.task)}{classes}; {ranking.compared} of {ranking.sources} '
        f"sources compared; base model {text(ranking.base)}</p>"
    )
    anchors = {row.source.name: f"row-{row.rank}" for row in ranking.rows}
    measured = verified_section(ranking)
    sections = [Section("ranking", "Ranking", _ranking(ranking)), *([measured] if measured is not None else [])]
    sections.append(Section("layers", "Layer by layer", _layers(ranking)))
    if ranking.explanations:
        sections.append(Section("why", "Why they stand where they stand", "".join(map(_why, ranking.explanations))))
    if drawn is not None:
        near = [row.source.name for row in ranking.rows[:_NEAR]]
        sections.append(map_section(drawn, anchors, near, "the target"))
    skipped = list(ranking.skipped.items())
    sections.append(Section("skipped", "What was not compared", _skipped(skipped, ranking.compared, ranking.sources)))
    made = {
        "estimator": ranking.estimator,
        "base model": ranking.base,
        "methods": ", ".join(ranking.methods),
        "tuned": f"{target.steps} steps in {target.seconds:.1f} s on {target.device}",
        "energy kept": f"{ranking.energy:.2f} of the target's own norm lies in the zoo's basis",
    }
    sections.append(run_section(command, made, versions, ranking.notes))
    return page(f"Which published adapter helps {name}?", lead, sections, footer=_footer())


def map_section(drawn: ZooMap, anchors: dict[str, str], near: Sequence[str], whose: str) -> Section:
    """The map with what it shows in words."""
    shown = sum(not place.guest for place in drawn.places)
    of = f"{shown} of {drawn.sources}" if shown < drawn.sources else f"all {shown}"
    note = (
        f"Classical scaling of the compute cosines between {of} {text(drawn.method)} sources for {text(drawn.base)}. Two "
        f"dimensions hold {drawn.held:.0%} of the spread: points close together may be far apart, not the other way round. "
        f"Diamonds: {whose}. Large dots: the nearest sources."
    )
    figure = map_svg(drawn, anchors=anchors, near=near, label=f"Map of the zoo with {whose} in it")
    return Section("map", "Map of the zoo", _figure(figure, note))


def run_section(command: str, made: dict[str, str], versions: Sequence[tuple[str, str]], notes: Sequence[str]) -> Section:
    """The command, the settings and the versions, so that it can be made again."""
    said = "".join(f"<p>{text(note)}.</p>" for note in notes)
    body = f"<pre><code>{text(command, 4000)}</code></pre>{facts({**made, **dict(versions)})}{said}"
    return Section("made", "How this was made", body)


def layer_names(count: int, layers: int | None = None) -> list[str]:
    """Columns of a heatmap over layers: plain numbers, or e and d in front where two stacks follow each other."""
    if layers is None or layers >= count:
        return [str(i) for i in range(count)]
    return [f"e{i}" if i < layers else f"d{i - layers}" for i in range(count)]


def _ranking(ranking: Ranking) -> str:
    most = max((row.score for row in ranking.rows if row.score is not None), default=0.0)
    columns = ["#", "source", "task", "method", "score", "similarity", "coverage"]
    reranked = any(row.logme is not None for row in ranking.rows)
    warned = any(row.warnings for row in ranking.rows)
    rows = [_row(row, most, reranked=reranked, warned=warned) for row in ranking.rows]
    listed = table(
        [*columns, *(["LogME", "reranked"] if reranked else []), *(["warnings"] if warned else [])],
        rows,
        label="The ranking",
        right=("#", "score", "similarity", "coverage", "LogME", "reranked"),
    )
    note = (
        '<p class="soft">Score: deviations from the median of what the zoo\'s own sources get against each other. Similarity: '
        "mean cosine over the views and sites. Coverage: the part of the target's sites that the source has.</p>"
    )
    if any(row.evidence is not None for row in ranking.rows):
        note += '<p class="soft">The score also counts what the source makes of the target\'s rows, to first order.</p>'
    if reranked:
        note += (
            '<p class="soft">LogME: how well the target\'s labels follow from what the source makes of its rows. Reranked: the '
            "estimator's value and LogME, each in standard deviations over the sources run, summed; it orders them.</p>"
        )
    how = ""
    if ranking.rows:
        first, second = loading_lines(ranking.rows[0].source, ranking.base_folder)
        how = f"<h3>Load the first</h3><pre><code>{text(first, 1000)}\n{text(second, 2000)}</code></pre>"
    return listed + note + how


def _row(row: Scored, most: float, *, reranked: bool, warned: bool) -> list[str]:
    source = row.source
    score = "" if row.score is None else f"{row.score:.2f}"
    bar = bar_svg(row.score / most) if row.score is not None and most > 0 else ""
    name = f'<span id="row-{row.rank}">{text(source.name)}</span><br><span class="soft">{text(source.revision[:12])}</span>'
    cells = [str(row.rank), name, text(source.task or ""), text(source.full_method), score + bar]
    cells += [f"{row.similarity:.3f}", f"{row.coverage:.0%}"]
    if reranked:
        cells += ["" if number is None else f"{number:.3f}" for number in (row.logme, row.rerank_score)]
    return [*cells, *([text("; ".join(row.warnings))] if warned else [])]


def _layers(ranking: Ranking) -> str:
    rows = [HeatRow(row.source.name, f"row-{row.rank}", row.layers) for row in ranking.rows[:_HEAT]]
    count = max((len(row.values) for row in rows), default=0)
    if not count:
        return '<p class="soft">No source shares a layer with the target.</p>'
    figure = heatmap_svg(rows, layer_names(count), label="Similarity with the target, layer by layer")
    note = "Mean similarity of each layer, from the first to the last, encoder before decoder; dashed where no site is shared."
    return _figure(figure, note)


def _why(explanation: Explanation) -> str:
    said = "".join(f"<li>{text(sentence, 1000)}</li>" for sentence in sentences(explanation))
    return f"<h3>{text(heading(explanation))}</h3><ul>{said}</ul>"


def _skipped(reasons: Sequence[tuple[str, int]], compared: int, sources: int) -> str:
    if not reasons:
        return f"<p>Nothing: all {sources} sources of the zoo were compared.</p>"
    rows = [[text(reason), str(count)] for reason, count in reasons]
    return f"<p>{compared} of {sources} sources were compared.</p>" + table(
        ["reason", "sources"], rows, label="What was not compared", right=("sources",)
    )


def _figure(svg: str, note: str) -> str:
    region = f'<div class="scroll" role="region" tabindex="0" aria-label="Figure">{svg}</div>'
    return f"<figure>{region}<figcaption>{note}</figcaption></figure>"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _footer() -> str:
    return f"Made by hubrank {VERSION} on the reader's own machine. This page loads nothing and runs nothing."
