"""Rows held out: every row once, rows that share a text on one side, classes spread evenly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import TargetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.task import Target

__all__ = ["FOLDS", "Fold", "folds_of"]

FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Rows to tune on, and rows to be scored on, both in their order."""

    tuned: NDArray[np.intp]
    held_out: NDArray[np.intp]


def folds_of(target: Target, *, seed: int = 0, folds: int = FOLDS) -> tuple[Fold, ...]:
    """Cross-validation's folds: as many as are asked for, or as there are texts.

    Rows with the same text (of qa the same context) stay together, or a passage would be learnt by heart and asked for; of
    classification the classes are dealt out evenly, as far as that lets them.

    Raises:
        TargetError: all rows share one text, so that none can be held out.
    """
    shared = target.pairs if target.task == "qa" and target.pairs is not None else target.texts
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(shared):
        groups.setdefault(" ".join(text.lower().split()), []).append(row)
    if len(groups) < 2:
        raise TargetError(target.path, "all rows share one text: none can be held out to measure on")
    members = list(groups.values())
    order = np.random.default_rng([seed, len(target)]).permutation(len(members)).tolist()
    if target.task == "classification":
        order.sort(key=lambda group: target.labels[members[group][0]])
    count = min(folds, len(members))
    where = np.empty(len(target), dtype=np.int64)
    sizes = [0] * count
    for turn, group in enumerate(order):
        # In turn, so that a class is spread; where groups differ in size, to whoever of the turn has least.
        fold = turn % count if len(members) == len(target) else int(np.argmin(sizes))
        where[members[group]] = fold
        sizes[fold] += len(members[group])
    return tuple(Fold(np.flatnonzero(where != fold), np.flatnonzero(where == fold)) for fold in range(count))
