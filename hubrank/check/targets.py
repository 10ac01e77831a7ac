"""Which of the user's targets a newcomer would now lead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hubrank.check.findings import Finding, Lead, TargetStanding
from hubrank.check.policy import TargetPolicy
from hubrank.check.rules import RULES
from hubrank.check.seen import identity
from hubrank.ranking.rank import rank_sources
from hubrank.types import Scored, Signature

if TYPE_CHECKING:
    from hubrank.ranking.first_order import Evidence
    from hubrank.zoo.packed import Packed

__all__ = ["SignedTarget", "Signer", "stand", "target_findings"]

_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class SignedTarget:
    """A target that has been tuned: its file, the base model it was tuned on, the zoo it is compared with, what moved.

    ``evidence`` is what its rows say of the zoo's sources, as :class:`hubrank.ranking.rank.Yardstick` has it.
    """

    path: str
    base: str
    packed: Packed
    signature: Signature
    evidence: Evidence | None = None


Signer: TypeAlias = Callable[[str | Path], SignedTarget]


def stand(target: SignedTarget, newcomers: Collection[str], policy: TargetPolicy) -> TargetStanding:
    """Rank the zoo for one target, and say whether a newcomer leads it.

    Args:
        newcomers: IDs of the sources that are new (see :func:`hubrank.check.seen.identity`).

    Raises:
        EmptyZooError: no source can be compared with the target.
    """
    rows = rank_sources(target.packed, target.signature, evidence=target.evidence, top=_SHOWN).rows
    best = rows[0]
    lead = None
    if identity(best.source) in newcomers:
        former = _first_known(rows, newcomers)
        if former is None:
            former = _first_known(rank_sources(target.packed, target.signature, evidence=target.evidence).rows, newcomers)
        lead = Lead(best.source.name, best.score, former.source.name if former else None, former.score if former else None)
        if lead.margin is not None and lead.margin < policy.margin:
            lead = None
    shown = tuple((row.rank, row.source.name, row.source.task, row.score, identity(row.source) in newcomers) for row in rows)
    return TargetStanding(target.path, target.base, best.source.name, best.score, lead, shown)


def target_findings(standing: TargetStanding, policy: TargetPolicy) -> list[Finding]:
    """What is to be said of a target; levels are the rules' own."""
    name = Path(standing.path).name
    found = []
    if standing.lead is not None:
        found.append(_finding("new-best", standing, standing.lead.source, f"new #1 for {name}: {lead_text(standing.lead)}"))
    if policy.min_score is not None and (standing.best_score is None or standing.best_score < policy.min_score):
        score = "has no score, the zoo being too small" if standing.best_score is None else f"scores {standing.best_score:.2f}"
        message = f"{name}: the best source, {standing.best}, {score}; the policy asks for {policy.min_score:g}"
        found.append(_finding("target-score", standing, standing.best or "", message))
    return found


def lead_text(lead: Lead) -> str:
    """``org/name, 2.3 over the former best``."""
    if lead.former is None:
        return f"{lead.source}, with nothing before it to compare with"
    if lead.margin is None:
        return f"{lead.source}, before {lead.former}"
    return f"{lead.source}, {lead.margin:.1f} over the former best, {lead.former}"


def _finding(rule: str, standing: TargetStanding, source: str, message: str) -> Finding:
    known = RULES[rule]
    return Finding(rule, known.level, source, message, known.way_out, file=standing.path, local=True)


def _first_known(rows: Sequence[Scored], newcomers: Collection[str]) -> Scored | None:
    return next((row for row in rows if identity(row.source) not in newcomers), None)
