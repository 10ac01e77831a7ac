"""What a team asks of its adapters, as data; :mod:`hubrank.check.policy_file` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase

from hubrank.check.findings import Level

__all__ = ["Ignore", "Policy", "TargetPolicy"]


@dataclass(frozen=True, slots=True)
class Ignore:
    """Findings that are known and accepted until a day, and why.

    Attributes:
        rule: id of a rule, or ``*``.
        adapter: name of an adapter; ``*`` and ``?`` match as in a shell.
        until: the last day on which it counts.
    """

    rule: str
    adapter: str
    until: date
    reason: str

    def covers(self, rule: str, adapter: str) -> bool:
        """Whether it is about a rule and an adapter, whatever the day."""
        return self.rule in ("*", rule) and fnmatchcase(adapter, self.adapter)


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """What is asked of one target: its best source scores at least ``min_score``; a newcomer leads from ``margin`` up."""

    min_score: float | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Levels by rule, what is allowed (empty: everything), what is ignored, and from which level on the check fails."""

    path: str | None = None
    fail_on: Level = "error"
    levels: Mapping[str, Level] = field(default_factory=dict)
    licenses: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    orgs: tuple[str, ...] = ()
    ignores: tuple[Ignore, ...] = ()
    targets: Mapping[str, TargetPolicy] = field(default_factory=dict)

    def target(self, path: str) -> TargetPolicy:
        """What is asked of a target file, by its path or by its name alone."""
        name = path.replace("\\", "/").rpartition("/")[2]
        return self.targets.get(path) or self.targets.get(name) or TargetPolicy()


def allowed(value: str, patterns: tuple[str, ...]) -> bool:
    """Whether a text matches one of the patterns, whatever the case; no pattern allows everything."""
    return not patterns or any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)
