"""What GitHub Actions reads: annotations on stdout, the job's summary, and a step's outputs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping

from hubrank.check.findings import CheckReport, Finding
from hubrank.report.checking import check_markdown, headline
from hubrank.report.inert import inert, workflow_message, workflow_property

__all__ = ["SUMMARY_BYTES", "github_annotations", "github_outputs", "github_summary", "outputs_text"]

SUMMARY_BYTES = 1024 * 1024
"""What GitHub takes of a step's summary; of a longer one it shows nothing."""

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
_CUT = "\n\n(cut: the whole report is in the job's log)\n"
_MOST = 50  # GitHub shows ten of a kind a step, and fifty a job


def github_annotations(report: CheckReport) -> str:
    """A workflow command a finding, and a plain line with the headline; new leads come as notices."""
    findings = [f for level in _COMMANDS for f in report.findings if f.level == level]
    lines = [_annotation(finding) for finding in findings[:_MOST]]
    if len(findings) > _MOST:
        lines.append(f"{len(findings) - _MOST} more findings are not annotated; the summary has them")
    return "\n".join([*lines, inert(headline(report))])


def _annotation(finding: Finding) -> str:
    properties = {"title": f"hubrank {finding.rule}"}
    if finding.local and finding.file:
        properties = {"file": finding.file, **properties}
    about = f"{finding.adapter}: " if finding.adapter else ""
    given = ",".join(f"{name}={workflow_property(value)}" for name, value in properties.items())
    return f"::{_COMMANDS[finding.level]} {given}::{workflow_message(f'{about}{finding.message}; {finding.way_out}')}"


def github_summary(report: CheckReport, *, room: int = SUMMARY_BYTES) -> str:
    """Markdown for the job's summary, cut at the end of a line to what is left of GitHub's limit."""
    text = f"## hubrank check\n\n{check_markdown(report)}\n"
    data = text.encode()
    if len(data) <= room:
        return text
    kept = data[: max(0, room - len(_CUT.encode()))]
    kept = kept[: kept.rfind(b"\n") + 1]
    return kept.decode() + _CUT if kept else ""


def github_outputs(report: CheckReport) -> dict[str, str]:
    """A step's outputs.

    ``new``: newcomers' names, one a line. ``failed``: how many findings fail the check. ``best_source`` and ``best_score``:
    who comes first for the first target, empty without one.
    """
    best = report.targets[0] if report.targets else None
    return {
        "new": "\n".join(inert(name) for name in report.new or ()),
        "failed": str(len(report.failures)),
        "best_source": inert(best.best or "") if best else "",
        "best_score": f"{best.best_score:.4f}" if best and best.best_score is not None else "",
    }


def outputs_text(outputs: Mapping[str, str]) -> str:
    """Outputs for GITHUB_OUTPUT, each between delimiters that no value can guess."""
    return "".join(_output(name, value) for name, value in outputs.items())


def _output(name: str, value: str) -> str:
    delimiter = next(_delimiters(value))
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def _delimiters(value: str) -> Iterator[str]:
    while True:
        delimiter = f"hubrank_{secrets.token_hex(16)}"
        if delimiter not in value:
            yield delimiter
