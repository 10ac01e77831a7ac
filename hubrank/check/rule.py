"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hubrank.check.evidence import Evidence
from hubrank.check.findings import Level
from hubrank.check.policy import Policy

__all__ = ["Finder", "Group", "Problem", "Rule", "nothing"]

Group: TypeAlias = Literal["safe", "complete", "well-formed", "honest", "useful", "policy"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What one rule has against one adapter, and in which of its files."""

    message: str
    file: str | None = None


Finder: TypeAlias = Callable[[Evidence, Policy], Iterable[Problem]]


def nothing(evidence: Evidence, policy: Policy) -> Iterable[Problem]:  # noqa: ARG001
    """For rules that are not about one adapter: who checks targets and policies raises them."""
    return ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is asked of an adapter.

    Attributes:
        id: how policies and reports name it.
        level: what it counts as where the policy says nothing.
        reason: why it is asked, in one line.
        way_out: what to do about it, in one line.
        text: for the page in docs/rules.md: what is looked at, and where it may be wrong.
        find: a pure function of what was read.
    """

    id: str
    group: Group
    level: Level
    reason: str
    way_out: str
    text: str
    find: Finder = nothing
