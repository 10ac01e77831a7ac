"""What a check found as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubrank._version import VERSION
from hubrank.check.findings import LEVELS, CheckReport, Finding, Judged, TargetStanding
from hubrank.ranking.zoo_map import ZooMap
from hubrank.report.checking import headline
from hubrank.report.figures import HeatRow, bar_svg, heatmap_svg
from hubrank.report.page import Section, page, table, text
from hubrank.report.search_page import map_section, run_section
from hubrank.report.source import layer_norms

__all__ = ["check_page"]

_SHOWN = 200  # adapters in full; of more, those that have something against them come first
_HEAT = 25
_NEAR = 3


def check_page(report: CheckReport, drawn: ZooMap | None, *, command: str, versions: Sequence[tuple[str, str]]) -> str:
    """The document.

    Args:
        drawn: the map of the zoo with the checked adapters in it, where there is one.
        command: the exact command, as a shell takes it.
        versions: of what made it, by name.
    """
    kind = "error" if report.failed else "good"
    verdict = "Failed" if report.failed else "Passed"
    lead = f'<p class="lead"><strong class="{kind}">{verdict}.</strong> {text(_sentence(headline(report)))}</p>'
    anchors = {judged.name: f"adapter-{i}" for i, judged in enumerate(_in_order(report)[:_SHOWN])}
    sections = [Section("overview", "Overview", _overview(report, anchors))]
    if report.targets:
        sections.append(Section("targets", "Targets", "".join(map(_target, report.targets))))
    sections.append(Section("findings", "Findings", _findings(report, anchors)))
    heat = _heat(report.adapters, anchors)
    if heat:
        sections.append(Section("layers", "Layer by layer", heat))
    if drawn is not None:
        near = [near.name for judged in report.adapters for near in judged.nearest[:_NEAR]][:12]
        sections.append(map_section(drawn, anchors, near, "the checked adapters"))
    sections.append(Section("skipped", "What was left out", _left_out(report)))
    made = {
        "policy": report.policy or "none: every rule at its own level",
        "fails on": "nothing" if report.fail_on == "off" else f"{report.fail_on} or graver",
        "started": report.started,
        "took": f"{report.seconds:.1f} s",
        "zoo": f"{report.sources} sources",
    }
    sections.append(run_section(command, made, versions, report.notes))
    footer = f"Made by hubrank {VERSION}. No adapter was run. This page loads nothing and runs nothing."
    return page("What hubrank check found", lead, sections, footer=footer)


def _overview(report: CheckReport, anchors: dict[str, str]) -> str:
    rows = []
    for judged in _in_order(report)[:_SHOWN]:
        counts = [sum(finding.level == level for finding in judged.findings) for level in LEVELS]
        name = f'<a href="#{anchors[judged.name]}">{text(judged.name)}</a>{_new(report, judged.name)}'
        strength = "" if judged.strength is None else f"{judged.strength:.2f}"
        if judged.strength is not None and judged.usual_strength:
            strength += bar_svg(judged.strength / judged.usual_strength / 2, width=60)
        nearest = judged.nearest[0] if judged.nearest else None
        near = f"{text(nearest.name)} <span class='soft'>{nearest.similarity:.2f}</span>" if nearest else ""
        shown = [_count(n, level) for n, level in zip(counts, LEVELS, strict=True)]
        rows.append([name, text(judged.method or "not read"), text(judged.task or ""), strength, near, *shown])
    columns = ["adapter", "method", "task", "strength", "nearest source", "errors", "warnings", "notes"]
    more = f"<p>{len(report.adapters) - _SHOWN} more are not listed.</p>" if len(report.adapters) > _SHOWN else ""
    listed = table(columns, rows, label="Overview", right=("strength", "errors", "warnings", "notes"))
    note = "Strength: mean norm of the update over its sites; a bar of half its length is the median of the zoo."
    return f'{listed}<p class="soft">{note}</p>{more}' if rows else "<p>No adapter was judged.</p>"


def _count(number: int, level: str) -> str:
    return f'<span class="{level}">{number}</span>' if number else '<span class="soft">0</span>'


def _new(report: CheckReport, name: str) -> str:
    return ' <span class="new">new</span>' if report.new is not None and name in report.new else ""


def _findings(report: CheckReport, anchors: dict[str, str]) -> str:
    parts = []
    for judged in _in_order(report)[:_SHOWN]:
        about = ", ".join(part for part in (judged.method, judged.base, judged.task) if part)
        parts.append(
            f'<h3 id="{anchors[judged.name]}">{text(judged.name)}</h3><p class="soft">{text(about)}'
            f"{' · ' if about else ''}revision {text(judged.revision[:12] or 'unknown')}</p>"
        )
        parts.append(_table(judged.findings, judged.name) if judged.findings else '<p class="good">Nothing found.</p>')
        if judged.suppressed:
            said = "; ".join(f"{s.finding.rule} until {s.until} ({s.reason})" for s in judged.suppressed)
            parts.append(f'<p class="soft">Ignored by the policy: {text(said, 1000)}</p>')
        if judged.nearest:
            near = "; ".join(f"{n.name} ({n.task or 'no task'}, {n.similarity:.2f})" for n in judged.nearest)
            parts.append(f'<p class="soft">Nearest sources: {text(near, 1000)}</p>')
    if report.general:
        parts.append(f"<h3>Targets and policy</h3>{_table(report.general, 'targets and policy')}")
    return "".join(parts)


def _table(findings: Iterable[Finding], label: str) -> str:
    ordered = sorted(findings, key=lambda finding: LEVELS.index(finding.level))
    rows = [
        [
            f'<span class="level {f.level}">{f.level}</span>',
            f"<code>{text(f.rule)}</code>",
            f'{text(f.message)}<br><span class="soft">{text(f.way_out)}</span>',
            f"<code>{text(f.file)}</code>" if f.file else "",
        ]
        for f in ordered
    ]
    return table(["level", "rule", "what, and the way out", "file"], rows, label=f"Findings: {label}")


def _target(target: TargetStanding) -> str:
    rows = []
    most = max((score for _, _, _, score, _ in target.rows if score is not None), default=0.0)
    for rank, name, task, score, new in target.rows:
        marked = f"{text(name)}{' <span class=new>new</span>' if new else ''}"
        bar = bar_svg(score / most) if score is not None and most > 0 else ""
        rows.append([str(rank), marked, text(task or ""), ("" if score is None else f"{score:.2f}") + bar])
    lead = target.lead
    said = "No newcomer leads."
    if lead is not None:
        over = f", {lead.margin:.1f} over the former best, {text(lead.former)}" if lead.margin is not None else ""
        said = f'<span class="new">New #1:</span> {text(lead.source)}{over}.'
    listed = table(["#", "source", "task", "score"], rows, label=f"Ranking for {target.path}", right=("#", "score"))
    return f"<h3>{text(target.path)}</h3><p>{said}</p>{listed}"


def _heat(adapters: Sequence[Judged], anchors: dict[str, str]) -> str:
    rows, names = [], set[tuple[str, int]]()
    norms = [
        (judged, {(norm.stack, norm.layer): norm.norm for norm in layer_norms(judged.signature)})
        for judged in adapters
        if judged.signature is not None
    ][:_HEAT]
    for _, by_layer in norms:
        names |= {place for place in by_layer if place[1] >= 0}
    columns = sorted(names, key=lambda place: (place[0] == "decoder", place))
    if not columns:
        return ""
    stacks = {stack for stack, _ in columns}
    for judged, by_layer in norms:
        rows.append(HeatRow(judged.name, anchors.get(judged.name), [by_layer.get(place) for place in columns]))
    titles = [f"{stack[:1]}{layer}" if len(stacks) > 1 else str(layer) for stack, layer in columns]
    figure = heatmap_svg(rows, titles, label="Strength of each layer's update", digits=2)
    note = "Frobenius norm of the update of each layer: how strongly each adapter changes the model, and where."
    region = f'<div class="scroll" role="region" tabindex="0" aria-label="Figure">{figure}</div>'
    return f"<figure>{region}<figcaption>{note}</figcaption></figure>"


def _left_out(report: CheckReport) -> str:
    unread = [(judged.name, "; ".join(f.message for f in judged.findings if f.rule in _UNREAD)) for judged in report.adapters]
    rows = [[text(name), text(why)] for name, why in unread if why]
    ignored = sum(len(judged.suppressed) for judged in report.adapters)
    parts = [f"<p>{ignored} findings are ignored by the policy; they are listed with their adapters.</p>"] if ignored else []
    if rows:
        parts.append(table(["adapter", "not compared, because"], rows, label="What was left out"))
    return "".join(parts) or "<p>Nothing: every adapter was read and compared.</p>"


_UNREAD = ("config", "weights", "damaged", "unjudged", "base-missing", "all-zero", "not-finite", "shapes", "unsafe-pickle")


def _in_order(report: CheckReport) -> list[Judged]:
    """Gravest first, otherwise as they were checked."""
    return sorted(report.adapters, key=lambda judged: (*LEVELS, "off").index(judged.worst))


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
