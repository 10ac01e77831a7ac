"""What a check found as SARIF 2.1.0, which code scanning on GitHub and elsewhere reads."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from hubrank._version import VERSION
from hubrank.check.findings import CheckReport, Finding, Suppressed
from hubrank.check.rule import Rule
from hubrank.check.rules import RULES
from hubrank.report.inert import inert_json
from hubrank.report.text import plain

__all__ = ["check_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_HOME = "https://github.com/hubrank/hubrank"
_LEVELS = {"error": "error", "warning": "warning", "note": "note", "off": "none"}
_LONGEST = 1000


def check_sarif(report: CheckReport) -> str:
    """One run: every rule with its help, a result a finding; what the policy ignores is marked as suppressed."""
    found = [(finding, None) for finding in report.findings]
    ignored = [(one.finding, one) for judged in report.adapters for one in judged.suppressed]
    index = {rule: i for i, rule in enumerate(RULES)}
    run = {
        "tool": {
            "driver": {
                "name": "hubrank",
                "semanticVersion": _semantic(VERSION),
                "informationUri": _HOME,
                "rules": [_rule(rule) for rule in RULES.values()],
            }
        },
        "invocations": [{"executionSuccessful": True, "startTimeUtc": f"{report.started[:19]}Z"}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index[finding.rule], one) for finding, one in (*found, *ignored)],
    }
    return inert_json({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.reason},
        "fullDescription": {"text": rule.text},
        "help": {"text": f"Way out: {rule.way_out}"},
        "helpUri": f"{_HOME}/blob/main/docs/rules.md#{rule.id}",
        "defaultConfiguration": {"level": _LEVELS[rule.level]},
        "properties": {"tags": [rule.group]},
    }


def _result(finding: Finding, index: int, suppressed: Suppressed | None) -> dict[str, Any]:
    about = f"{finding.adapter}: " if finding.adapter else ""
    # Code scanning takes no result without a place: a repository of the Hub is a place of its own.
    place = finding.file if finding.local and finding.file else f"{finding.adapter or 'hubrank'}/{finding.file or ''}"
    same = hashlib.sha256(f"{finding.rule}\0{finding.adapter}\0{place}".encode("utf-8", "replace")).hexdigest()
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.level],
        "message": {"text": plain(f"{about}{finding.message}; {finding.way_out}", _LONGEST)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(place)}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"hubrankFinding/v1": same[:32]},
    }
    if suppressed is not None:
        why = plain(f"{suppressed.reason} (until {suppressed.until})", _LONGEST)
        result["suppressions"] = [{"kind": "external", "justification": why}]
    return result


def _uri(place: str) -> str:
    """A path as a relative URI reference, or a file's own; nothing in it is a scheme."""
    quoted = quote(place.replace("\\", "/").rstrip("/"), safe="/", errors="replace")
    return f"file://{quoted}" if quoted.startswith("/") else quoted


def _semantic(version: str) -> str:
    numbers = version.split("+", maxsplit=1)[0].split(".")[:3]
    return ".".join(n if n.isdigit() else "0" for n in [*numbers, "0", "0"][:3])
