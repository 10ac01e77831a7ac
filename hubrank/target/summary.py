"""What a target's rows hold, counted, and what their owner should look at before tuning on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import numpy as np

from hubrank.checkpoints.card import plain
from hubrank.target.problems import MAX_LISTED, Problem, by_line
from hubrank.target.rows import Examination
from hubrank.target.task import Target

__all__ = ["LabelCount", "Quantiles", "TargetSummary", "summarise"]

_NEAR_CONSTANT = 0.95
_NAMED = 10  # problems of one kind that are listed one by one
_TELLS = 0.9
_SHORTEST_NAME = 4  # shorter class names stand in a text by chance

Found: TypeAlias = Iterator[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class LabelCount:
    """A label and how many rows (for tagging: tokens) have it."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of a column: smallest, quartiles, 95th percentile, largest."""

    min: float
    p25: float
    median: float
    p75: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """What was understood of a target file.

    Attributes:
        examination: the file, its usable rows and their problems; here with what the rows hold together.
        labels: by count, the most frequent first; for qa ``answerable`` and ``unanswerable``, for multiple-choice the
            positions of the right choices from 0; empty where there are none.
        values: of a regression's labels.
        lengths: by role, in characters; ``tokens`` and ``choices`` in how many there are.
        repeated: rows that are the same as an earlier one, label and all.
        conflicting: rows whose input is that of an earlier one, with another label.
    """

    examination: Examination
    labels: tuple[LabelCount, ...] = ()
    values: Quantiles | None = None
    lengths: tuple[tuple[str, Quantiles], ...] = ()
    repeated: int = 0
    conflicting: int = 0


def summarise(examined: Examination) -> TargetSummary:
    """Count what the usable rows hold; where there are none, only the problems remain."""
    target = examined.target
    if target is None:
        return TargetSummary(examined)
    labels = _labels(target)
    clashes, repeated = _duplicates(target)
    kinds: list[tuple[Found, str]] = [
        (_seen_once(target, labels), "labels have a single row"),
        (iter(clashes), "rows have the same input as an earlier one, with another label"),
        (_whole_file(target, labels), ""),
    ]
    warnings: list[Problem] = []
    for found, rest in kinds:
        listed = list(found)
        warnings += [Problem(line or None, message, fatal=False) for line, message in listed[:_NAMED]]
        if len(listed) > _NAMED:
            warnings.append(Problem(None, f"{len(listed) - _NAMED} more {rest}", fatal=False))
    problems = sorted((*examined.problems, *warnings), key=lambda problem: (not problem.fatal, *by_line(problem)))
    unlisted = examined.unlisted + max(0, len(problems) - 2 * MAX_LISTED)
    return TargetSummary(
        replace(examined, problems=tuple(problems[: 2 * MAX_LISTED]), unlisted=unlisted),
        labels=labels,
        values=_quantiles(target.labels) if target.task == "regression" else None,
        lengths=_lengths(target),
        repeated=repeated,
        conflicting=len(clashes),
    )


def _labels(target: Target) -> tuple[LabelCount, ...]:
    counts: Counter[str]
    match target.task:
        case "classification":
            counts = Counter(dict.fromkeys(target.classes, 0))
            counts.update({target.classes[int(i)]: n for i, n in Counter(target.labels).items()})
        case "multi-label" | "tagging":
            counts = Counter(dict.fromkeys(target.classes, 0))
            every = Counter(chain.from_iterable(target.label_sets or target.tags))
            counts.update({target.classes[i]: n for i, n in every.items()})
        case "multiple-choice":
            counts = Counter(str(label) for label in target.labels)
        case "qa":
            counts = Counter("answerable" if answers else "unanswerable" for answers in target.answers)
        case _:
            counts = Counter()
    return tuple(LabelCount(name, n) for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _lengths(target: Target) -> tuple[tuple[str, Quantiles], ...]:
    names = dict(target.fields)
    first, second = _inputs(target, names)
    found: list[tuple[str, Quantiles]] = []
    if target.task != "tagging":
        found.append((first, _quantiles([len(text) for text in target.texts])))
    if target.pairs is not None:
        found.append((second, _quantiles([len(text) for text in target.pairs])))
    answers = [len(answer.text) for row in target.answers for answer in row]
    if answers:
        found.append(("answers", _quantiles(answers)))
    if target.outputs:
        found.append(
            ("target" if target.task == "seq2seq" else "completion", _quantiles([len(text) for text in target.outputs]))
        )
    if target.chats:
        found.append(("messages", _quantiles([len(chat) for chat in target.chats])))
    if target.tokens:
        found.append(("tokens", _quantiles([len(row) for row in target.tokens])))
    if target.choices:
        found.append(("choices", _quantiles([len(row) for row in target.choices])))
    return tuple(found)


def _inputs(target: Target, names: dict[str, str]) -> tuple[str, str]:
    """The roles of ``texts`` and ``pairs``."""
    if target.task in ("qa", "multiple-choice"):
        return "question", "context"
    if target.task == "causal-lm":
        return "prompt", ""
    return ("source" if "source" in names else "text"), "text_pair"


def _quantiles(values: Sequence[float]) -> Quantiles:
    points = np.quantile(np.asarray(values, dtype=np.float64), [0, 0.25, 0.5, 0.75, 0.95, 1])
    return Quantiles(*(float(point) for point in points))


def _duplicates(target: Target) -> tuple[list[tuple[int, str]], int]:
    """(line and message of every row that contradicts an earlier one, how many rows repeat one)."""
    output = _output(target)
    first: dict[object, int] = {}
    clashes: list[tuple[int, str]] = []
    repeated = 0
    pairs = target.pairs
    for i, text in enumerate(target.texts):
        choices = target.choices[i] if target.choices else None
        same = (text, pairs[i] if pairs is not None else None, choices)
        earlier = first.setdefault(same, i)
        if earlier == i:
            continue
        if output(earlier) == output(i):
            repeated += 1
        elif target.task not in ("causal-lm", "seq2seq", "qa"):  # those may well have several right answers
            shown = _shown(target, i), _shown(target, earlier)
            label = f" ({shown[0]} here, {shown[1]} there)" if shown[0] else ""
            clashes.append((target.lines[i], f"the same input as line {target.lines[earlier]} with another label{label}"))
    return clashes, repeated


def _output(target: Target) -> Callable[[int], object]:
    columns = (target.labels, target.label_sets, target.tags, target.answers, target.outputs)
    column = next(column for column in columns if len(column) == len(target))
    return lambda i: column[i]


def _shown(target: Target, i: int) -> str:
    if target.task == "classification":
        return f'"{plain(target.classes[int(target.labels[i])], 40)}"'
    return f"{target.labels[i]:g}" if target.task == "regression" else ""


def _seen_once(target: Target, labels: Sequence[LabelCount]) -> Found:
    if target.task not in ("classification", "multi-label", "tagging"):
        return
    index = {name: i for i, name in enumerate(target.classes)}
    once = {index[label.label] for label in labels if label.count == 1}
    if once:
        rows = target.label_sets or target.tags or [(int(label),) for label in target.labels]
        for line, row in zip(target.lines, rows, strict=True):
            for label in once.intersection(row):
                yield line, f'the only {"token" if target.tags else "row"} with the label "{plain(target.classes[label], 60)}"'
    for named in labels:
        if named.count == 0:
            yield 0, f'no row has the label "{plain(named.label, 60)}"'


def _whole_file(target: Target, labels: Sequence[LabelCount]) -> Found:
    if target.task in ("classification", "multiple-choice", "qa") and len(target) and labels:
        share = labels[0].count / len(target)
        if share >= _NEAR_CONSTANT and (share < 1 or target.task == "multiple-choice"):
            what = {"classification": "have the label", "multiple-choice": "have the right choice at", "qa": "are"}[target.task]
            yield 0, f'{share:.0%} of the rows {what} "{plain(labels[0].label, 60)}"; little can be learnt from the others'
    if target.task == "regression":
        value, n = Counter(target.labels).most_common(1)[0]
        if _NEAR_CONSTANT <= n / len(target) < 1:
            yield 0, f"{n / len(target):.0%} of the rows have the label {value:g}; little can be learnt from the others"
    if target.task == "classification" and all(len(name) >= _SHORTEST_NAME for name in target.classes):
        lowered = [name.lower() for name in target.classes]
        told = sum(lowered[int(i)] in text.lower() for text, i in zip(target.texts, target.labels, strict=True))
        if told >= _TELLS * len(target):
            yield 0, f"the label's name stands in the text of {told / len(target):.0%} of the rows; is it a leak?"
    if target.outputs:
        copies = sum(text == output for text, output in zip(target.texts, target.outputs, strict=True))
        if copies >= len(target) / 2:
            yield 0, f"{copies} of {len(target)} rows ask for what they give: the output is the input"
