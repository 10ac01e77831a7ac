"""What a check found, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hubrank._version import VERSION
from hubrank.check.findings import LEVELS, CheckReport, Finding, Judged, TargetStanding
from hubrank.report.inert import inert, inert_json
from hubrank.report.text import Cell, csv_table, markdown_table, markdown_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["check_csv", "check_json", "check_markdown", "check_table", "counts_text", "headline"]

_COLUMNS = ("level", "rule", "adapter", "message", "file", "way out")
_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim", "off": "green"}
_MANY = 20  # of more adapters, those with nothing but notes are only counted


def headline(report: CheckReport) -> str:
    """One sentence: what was checked, and whether it passed."""
    count = len(report.adapters)
    new = f" ({len(report.new)} new in the zoo)" if report.new is not None else ""
    whole = f"{count} adapter{'' if count == 1 else 's'}{new} checked against {report.sources} sources: {counts_text(report)}"
    return f"{whole}; the check {'failed' if report.failed else 'passed'}"


def counts_text(report: CheckReport) -> str:
    """``1 error, 2 warnings``, or ``nothing found``."""
    counts = {level: sum(finding.level == level for finding in report.findings) for level in LEVELS}
    found = [f"{n} {level}{'' if n == 1 else 's'}" for level, n in counts.items() if n]
    hidden = sum(len(judged.suppressed) for judged in report.adapters)
    return (", ".join(found) or "nothing found") + (f" ({hidden} ignored by the policy)" if hidden else "")


def check_value(report: CheckReport) -> dict[str, Any]:
    """The report as JSON types; texts of a hub are as they were."""
    return {
        "hubrank": VERSION,
        "started": report.started,
        "seconds": round(report.seconds, 2),
        "policy": report.policy,
        "fail_on": "never" if report.fail_on == "off" else report.fail_on,
        "failed": report.failed,
        "counts": {level: sum(finding.level == level for finding in report.findings) for level in LEVELS},
        "zoo": {"sources": report.sources},
        "new": None if report.new is None else list(report.new),
        "adapters": [_judged(judged) for judged in report.adapters],
        "findings": [_finding(finding) for finding in report.general],
        "targets": [_target(target) for target in report.targets],
        "notes": list(report.notes),
    }


def check_json(report: CheckReport) -> str:
    """Indented ASCII JSON."""
    return inert_json(check_value(report))


def check_csv(report: CheckReport) -> str:
    """A line a finding."""
    return csv_table(_COLUMNS, _rows(report.findings))


def check_markdown(report: CheckReport) -> str:
    """The headline, who leads which target, and a table of the findings."""
    parts = [f"**{headline(report)}**"]
    if report.targets:
        columns = ("target", "best source", "score", "newcomer", "over the former best")
        parts.append(markdown_table(columns, (_target_cells(target) for target in report.targets)))
    if report.findings:
        columns = ("level", "rule", "adapter", "what", "way out")
        rows = ((f.level, f.rule, inert(f.adapter), inert(f.message), f.way_out) for f in _gravest_first(report.findings))
        parts.append(markdown_table(columns, rows))
    parts += [markdown_text(inert(note)) for note in report.notes]
    return "\n\n".join(parts)


def check_table(report: CheckReport, *, verbose: bool = False) -> list[RenderableType]:
    """What a terminal shows: adapters one by one with what was found, then the targets and the headline."""
    from rich.text import Text

    out: list[RenderableType] = []
    brief = len(report.adapters) > _MANY and not verbose
    for judged in report.adapters:
        if brief and judged.worst in ("note", "off"):
            continue
        out += [_title(judged), *_found(judged.findings), *_near(judged)]
    quiet = sum(judged.worst in ("note", "off") for judged in report.adapters) if brief else 0
    if quiet:
        out.append(Text(f"{quiet} more with at most notes; -v lists them", style="dim"))
    for target in report.targets:
        out.append(_target_line(target))
    if report.general:
        out += _found(report.general)
    out += [Text(inert(note), style="dim") for note in report.notes]
    style = "bold red" if report.failed else "green"
    return [*out, Text(headline(report)[:1].upper() + headline(report)[1:] + ".", style=style)]


def _title(judged: Judged) -> RenderableType:
    from rich.text import Text

    title = Text(inert(judged.name), style="bold")
    about = ", ".join(part for part in (judged.method, judged.base, judged.task) if part)
    title.append(f"  {inert(about)}" if about else "", style="not bold dim")
    return title


def _found(findings: Iterable[Finding]) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name in ("level", "rule", "what"):
        table.add_column(name, overflow="fold", no_wrap=name != "what")
    for finding in _gravest_first(findings):
        what = Text(inert(finding.message))
        what.append(f"\n{finding.way_out}", style="dim")
        table.add_row(Text(f"  {finding.level}", style=_COLOURS[finding.level]), Text(finding.rule), what)
    if table.row_count:
        yield table
    else:
        yield Text("  nothing found", style="green")


def _near(judged: Judged) -> Iterator[RenderableType]:
    from rich.text import Text

    if judged.nearest:
        names = ", ".join(f"{inert(one.name, 80)} ({one.similarity:.2f})" for one in judged.nearest[:3])
        yield Text(f"  nearest: {names}", style="dim")
    yield Text()


def _target_line(target: TargetStanding) -> RenderableType:
    from rich.text import Text

    score = "" if target.best_score is None else f", score {target.best_score:.2f}"
    return Text(f"{inert(target.path, 120)}: {inert(target.best or 'nothing')} comes first{score}")


def _gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (*LEVELS, "off").index(finding.level))


def _rows(findings: Iterable[Finding]) -> Iterator[tuple[Cell, ...]]:
    for f in findings:
        yield f.level, f.rule, inert(f.adapter), inert(f.message), inert(f.file or ""), f.way_out


def _target_cells(target: TargetStanding) -> tuple[Cell, ...]:
    score = None if target.best_score is None else round(target.best_score, 2)
    margin = target.lead.margin if target.lead else None
    new = ("yes" if target.lead else "no") if target.best else ""
    return inert(target.path), inert(target.best or ""), score, new, None if margin is None else round(margin, 2)


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "level": finding.level,
        "adapter": finding.adapter,
        "message": finding.message,
        "way_out": finding.way_out,
        "file": finding.file,
    }


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "adapter": judged.name,
        "revision": judged.revision,
        "base": judged.base,
        "method": judged.method,
        "task": judged.task,
        "worst": judged.worst,
        "findings": [_finding(finding) for finding in judged.findings],
        "ignored": [{**_finding(one.finding), "reason": one.reason, "until": one.until} for one in judged.suppressed],
        "strength": _rounded(judged.strength),
        "usual_strength": _rounded(judged.usual_strength),
        "nearest": [{"source": n.name, "task": n.task, "similarity": round(n.similarity, 4)} for n in judged.nearest],
        "files_read": judged.whole,
    }


def _target(target: TargetStanding) -> dict[str, Any]:
    lead = target.lead
    return {
        "path": target.path,
        "base": target.base,
        "best": target.best,
        "score": _rounded(target.best_score),
        "lead": None if lead is None else {"source": lead.source, "former": lead.former, "margin": _rounded(lead.margin)},
        "ranking": [
            {"rank": rank, "source": name, "task": task, "score": _rounded(score), "new": new}
            for rank, name, task, score, new in target.rows
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
