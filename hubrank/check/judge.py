"""Evidence and policy in, findings out. Nothing is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from hubrank.check.evidence import Evidence
from hubrank.check.findings import Finding, Judged, Suppressed
from hubrank.check.policy import Ignore, Policy
from hubrank.check.rules import RULES

__all__ = ["apply_policy", "expired", "judge", "unused"]


def judge(evidence: Evidence, policy: Policy, today: date) -> Judged:
    """Every rule over one adapter, at the levels that the policy gives, less what it ignores on that day."""
    found = []
    for rule in RULES.values():
        for problem in rule.find(evidence, policy):
            local = evidence.folder is not None
            file = f"{evidence.folder}/{problem.file}" if local and problem.file else problem.file
            found.append(Finding(rule.id, rule.level, evidence.name, problem.message, rule.way_out, file, local and bool(file)))
    kept, suppressed = apply_policy(found, policy, today)
    source, standing = evidence.source, evidence.standing
    return Judged(
        name=evidence.name,
        revision=evidence.revision,
        base=source.base if source else None,
        method=source.full_method if source else None,
        task=source.task if source else None,
        findings=kept,
        suppressed=suppressed,
        strength=standing.strength,
        usual_strength=standing.usual,
        nearest=standing.nearest,
        whole=evidence.whole,
    )


def apply_policy(
    findings: Sequence[Finding], policy: Policy, today: date
) -> tuple[tuple[Finding, ...], tuple[Suppressed, ...]]:
    """Findings at the policy's levels, without those that are off; and those that it ignores until a day to come."""
    kept, suppressed = [], []
    for finding in findings:
        level = policy.levels.get(finding.rule, finding.level)
        if level == "off":
            continue
        leveled = replace(finding, level=level)
        ignore = next((one for one in policy.ignores if one.covers(finding.rule, finding.adapter) and today <= one.until), None)
        if ignore is not None:
            suppressed.append(Suppressed(leveled, ignore.reason, ignore.until.isoformat()))
        else:
            kept.append(leveled)
    return tuple(kept), tuple(suppressed)


def expired(judged: Sequence[Judged], policy: Policy, today: date) -> list[Finding]:
    """One finding for each ignore entry whose day is past while it still covers something."""
    found = [finding for one in judged for finding in one.findings]
    return [
        _about(ignore, policy, "ignore-expired", f"ended on {ignore.until.isoformat()} ({ignore.reason})")
        for ignore in policy.ignores
        if today > ignore.until and any(ignore.covers(finding.rule, finding.adapter) for finding in found)
    ]


def unused(judged: Sequence[Judged], policy: Policy) -> list[Finding]:
    """One finding for each ignore entry that covers nothing of what was found."""
    every = [finding for one in judged for finding in (*one.findings, *(s.finding for s in one.suppressed))]
    return [
        _about(ignore, policy, "ignore-unused", f"covers nothing ({ignore.reason})")
        for ignore in policy.ignores
        if not any(ignore.covers(finding.rule, finding.adapter) for finding in every)
    ]


def _about(ignore: Ignore, policy: Policy, rule: str, what: str) -> Finding:
    known = RULES[rule]
    message = f"the exception for {ignore.rule} of {ignore.adapter} {what}"
    return Finding(rule, known.level, "", message, known.way_out, file=policy.path, local=policy.path is not None)
