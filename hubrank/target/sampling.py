"""The rows that a run will use: those beyond are never tokenised."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.task import Target

__all__ = ["chosen_rows", "subset"]

_COLUMNS = ("texts", "pairs", "labels", "label_sets", "choices", "tokens", "tags", "answers", "outputs", "chats")


def chosen_rows(rows: int, most: int, seed: int) -> NDArray[np.intp]:
    """At most so many of a target's rows, at random, in their order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng([seed, rows]).permutation(rows)[:most])


def subset(target: Target, rows: NDArray[np.intp]) -> Target:
    """A target of some of the rows; its classes stay those of the whole."""
    columns: dict[str, Any] = {}
    for name in _COLUMNS:
        column = getattr(target, name)
        if column:
            columns[name] = tuple(column[row] for row in rows)
    if len(target.lines) == len(target):
        columns["lines"] = tuple(target.lines[row] for row in rows)
    return replace(target, **columns)
