"""What a check found as JUnit XML: a suite an adapter, a case a rule, a failure where a finding fails the check."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from hubrank.check.findings import CheckReport, Finding, reaches
from hubrank.check.rules import RULES
from hubrank.report.text import plain

__all__ = ["check_junit"]

_LONGEST = 1000
# What XML 1.0 cannot hold, written out or not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GENERAL = "targets and policy"


def check_junit(report: CheckReport) -> str:
    """XML that the schema of Jenkins's xUnit plugin accepts; findings short of failing are a case's output."""
    names = [judged.name for judged in report.adapters]
    suites = [(name, judged.findings) for name, judged in zip(names, report.adapters, strict=True)]
    if report.general or report.targets or not suites:
        suites.append((_GENERAL, report.general))
    root = ET.Element("testsuites", name="hubrank check", time=f"{report.seconds:.3f}")
    total = failures = 0
    for name, findings in suites:
        suite, failed = _suite(name, findings, report)
        total, failures = total + len(suite.findall("testcase")), failures + failed
        root.append(suite)
    root.set("tests", str(total))
    root.set("failures", str(failures))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    # No line may look like a runner's command; as references the characters are the same to who parses it.
    text = text.replace("::", "&#58;&#58;").replace("##[", "#&#35;[")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'


def _suite(name: str, findings: Sequence[Finding], report: CheckReport) -> tuple[ET.Element, int]:
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_rule[finding.rule].append(finding)
    about_adapters = name != _GENERAL
    rules = [rule for rule in RULES.values() if rule.id in by_rule or (about_adapters and rule.group != "policy")]
    suite = ET.Element("testsuite", name=_text(name), time="0", timestamp=report.started[:19])
    failures = 0
    for rule in rules:
        found = by_rule.get(rule.id, [])
        case = ET.SubElement(suite, "testcase", name=rule.id, classname=f"hubrank.{rule.group}", time="0")
        failing = [finding for finding in found if reaches(finding.level, report.fail_on)]
        if failing:
            failures += 1
            message = "; ".join(finding.message for finding in failing)
            failure = ET.SubElement(case, "failure", message=_text(message), type=failing[0].level)
            failure.text = _text(f"{rule.reason}; {rule.way_out}")
        elif found:
            out = ET.SubElement(case, "system-out")
            out.text = _text("; ".join(f"{finding.level}: {finding.message}" for finding in found))
    suite.set("tests", str(len(rules)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    return suite, failures


def _text(text: str) -> str:
    return _FORBIDDEN.sub("", plain(text, _LONGEST))
