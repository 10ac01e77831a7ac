"""Useful: it changes the model as adapters do, and in the way its card leads one to expect."""

from __future__ import annotations

from collections.abc import Iterator

from hubrank.check.evidence import Evidence
from hubrank.check.policy import Policy
from hubrank.check.rule import Problem, Rule

__all__ = ["ENOUGH", "FAINT", "RULES", "STRONG"]

ENOUGH = 8
"""A zoo of fewer comparable sources says nothing of what is usual."""

FAINT, STRONG = 0.05, 20.0
"""A mean norm below, or above, this many times the zoo's median is out of the ordinary."""


def _faint(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    ratio = _ratio(evidence)
    if ratio is not None and ratio < FAINT:
        yield Problem(f"its update is {ratio:.2g} times as strong as is usual in the zoo")


def _overstrong(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    ratio = _ratio(evidence)
    if ratio is not None and ratio > STRONG:
        yield Problem(f"its update is {ratio:.3g} times as strong as is usual in the zoo")


def _ratio(evidence: Evidence) -> float | None:
    standing = evidence.standing
    if standing.compared < ENOUGH or standing.strength is None or not standing.usual:
        return None
    return standing.strength / standing.usual


def _task_differs(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    standing = evidence.standing
    if standing.compared < ENOUGH or standing.same_task_rank is None or evidence.source is None:
        return
    # Where the nearest of m like ones among n comes if all orders are equally likely.
    by_chance = (standing.compared + 1) / (standing.same_task + 1)
    if standing.same_task_rank > by_chance:
        nearest = standing.nearest[0]
        yield Problem(
            f"of {standing.same_task} sources for {evidence.source.task} the nearest comes {standing.same_task_rank}. of "
            f"{standing.compared}; the nearest of all is {nearest.name} ({nearest.task or 'no task named'})",
            "README.md",
        )


RULES = (
    Rule(
        "faint",
        "useful",
        "warning",
        "an adapter that hardly moves the base model hardly helps",
        "train longer or at a higher learning rate, and look at lora_alpha",
        "The mean over sites of the update's Frobenius norm is less than a twentieth of the median of the zoo's sources of "
        "that base and method. Judged from 8 sources up.",
        _faint,
    ),
    Rule(
        "overstrong",
        "useful",
        "warning",
        "an update far stronger than any other usually overwrites what the base model knew",
        "look at lora_alpha and the learning rate",
        "The mean norm is more than twenty times the zoo's median. Judged from 8 sources up.",
        _overstrong,
    ),
    Rule(
        "task-differs",
        "useful",
        "note",
        "adapters of one task usually change the model alike",
        "look whether the right weights were uploaded, and what the card says they were trained on",
        "The zoo has sources for the task that the card names, and the nearest of them comes no sooner than chance would have "
        "it. A hint, not a proof: tasks are compared by the name that cards give them, and faint adapters resemble nothing.",
        _task_differs,
    ),
    Rule(
        "new-best",
        "useful",
        "note",
        "a newcomer is predicted to transfer better than what you use",
        "measure it on your task; `hubrank search` says how to load it",
        "With `--new --target FILE`: a newcomer comes first for that target, by at least the policy's `margin`. Scores are "
        "deviations from what the zoo's own sources get against each other.",
    ),
    Rule(
        "target-score",
        "useful",
        "error",
        "no source is as near as the policy asks for",
        "sync more sources, or lower min-score of that target",
        'The best source\'s score is below `min-score` under `[targets."FILE"]`.',
    ),
    Rule(
        "ignore-expired",
        "policy",
        "warning",
        "an exception ends on the day it was given for",
        "mend what it covered, or give it a new day and a reason",
        "An entry under `[[ignore]]` covers a finding, but its last day is past. The finding counts again.",
    ),
    Rule(
        "ignore-unused",
        "policy",
        "note",
        "an exception that covers nothing hides the next finding",
        "delete the entry",
        "An entry under `[[ignore]]` covers no finding of this check. Not judged with `--new`, which looks at newcomers alone.",
    ),
)
