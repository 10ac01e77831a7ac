"""What a check finds, as frozen dataclasses that the reports read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hubrank.types import Signature

__all__ = ["LEVELS", "CheckReport", "Finding", "Judged", "Lead", "Level", "Neighbour", "Suppressed", "TargetStanding"]

Level: TypeAlias = Literal["error", "warning", "note", "off"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""The levels that are reported, gravest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that one adapter, or one target, does not meet.

    Attributes:
        rule: id of the rule, such as ``card-license``.
        adapter: name of the adapter; for a finding about a target, the source that it concerns, or empty.
        message: what is wrong, in one sentence without the rule's general reason.
        way_out: what to do about it.
        file: the file it concerns: for a folder its path from the current folder, for a repository its name in it.
        local: whether ``file`` lies on this machine, so that an annotation can point at it.
    """

    rule: str
    level: Level
    adapter: str
    message: str
    way_out: str
    file: str | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A finding that the policy's ignore list covers, and the reason that it gives."""

    finding: Finding
    reason: str
    until: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A source of the zoo that changes the model alike. ``similarity`` is the mean compute cosine over shared sites."""

    name: str
    task: str | None
    similarity: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One adapter and what was found.

    Attributes:
        revision: commit sha, or for a folder the sha1 of its files.
        base, method: None where the adapter could not be read.
        strength: mean over its sites of the Frobenius norm of the update; None where it could not be read.
        usual_strength: the median of the same over the zoo's sources of that base and method.
        nearest: the nearest sources of the zoo, nearest first.
        whole: whether its files were read; otherwise it was judged from what the zoo keeps of it.
        signature: what it changes, of the first adapters of a check, for who draws them.
    """

    name: str
    revision: str
    base: str | None
    method: str | None
    task: str | None
    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...] = ()
    strength: float | None = None
    usual_strength: float | None = None
    nearest: tuple[Neighbour, ...] = ()
    whole: bool = True
    signature: Signature | None = field(default=None, compare=False, repr=False)

    @property
    def worst(self) -> Level:
        """The gravest level found; ``off`` where nothing was."""
        found = {finding.level for finding in self.findings}
        return next((level for level in LEVELS if level in found), "off")


@dataclass(frozen=True, slots=True)
class Lead:
    """A newcomer that comes first for a target. ``former`` is None where nothing was there to compare with."""

    source: str
    score: float | None
    former: str | None
    former_score: float | None

    @property
    def margin(self) -> float | None:
        """By how much the newcomer's score is over the former best's."""
        return None if self.score is None or self.former_score is None else self.score - self.former_score


@dataclass(frozen=True, slots=True)
class TargetStanding:
    """How the zoo stands to one target: who comes first, and whether that is a newcomer.

    ``rows`` are (rank, source, task, score, newcomer), best first.
    """

    path: str
    base: str
    best: str | None
    best_score: float | None
    lead: Lead | None
    rows: tuple[tuple[int, str, str | None, float | None, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        adapters: in the order they were asked for or, of newcomers, by name.
        general: findings about targets and about the policy itself.
        fail_on: findings of this level or graver fail the check; ``off`` for none.
        new: names of the newcomers, with ``--new``.
        policy: path of the policy that was used, or None.
        notes: what the user should know of the run, one sentence each.
        started: when, in UTC, as ISO 8601.
    """

    adapters: tuple[Judged, ...]
    general: tuple[Finding, ...] = ()
    targets: tuple[TargetStanding, ...] = ()
    fail_on: Level = "error"
    new: tuple[str, ...] | None = None
    policy: str | None = None
    notes: tuple[str, ...] = ()
    sources: int = 0
    started: str = ""
    seconds: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings that are not suppressed: those about adapters, then the general ones."""
        return (*(finding for judged in self.adapters for finding in judged.findings), *self.general)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that fail the check."""
        return tuple(finding for finding in self.findings if reaches(finding.level, self.fail_on))

    @property
    def failed(self) -> bool:
        """Whether the check found something that counts."""
        return bool(self.failures)


def reaches(level: Level, bar: Level) -> bool:
    """Whether a level is as grave as a bar; nothing reaches ``off``."""
    return bar in LEVELS and level in LEVELS and LEVELS.index(level) <= LEVELS.index(bar)
