"""Several methods and several seeds become one list: by score, which is on one scale, with an interval for each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.rank import Compared, Yardstick, scored
from hubrank.types import Scored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["MethodRuns", "merge"]


@dataclass(frozen=True, slots=True, eq=False)
class MethodRuns:
    """What a method's zoo says to the target, tuned once for each seed."""

    yardstick: Yardstick
    seeds: tuple[Compared, ...]

    @property
    def usable(self) -> NDArray[np.intp]:
        """Rows of the packed zoo that are compared under every seed."""
        rows = self.seeds[0].usable
        for one in self.seeds[1:]:
            rows = np.intersect1d(rows, one.usable)
        return rows

    def table(self, *, scores: bool) -> FloatArray:
        """[seeds, usable] scores, or values where there are none or the method is alone."""
        rows = self.usable
        out = []
        for one in self.seeds:
            found = one.scores if scores else one.values
            # Without a scale a method's sources come after all that have one.
            everything = np.full(len(one.usable), -np.inf) if found is None else found
            out.append(everything[np.searchsorted(one.usable, rows)])
        return np.stack(out)


def merge(runs: Sequence[MethodRuns], *, top: int | None = None, also: str = "") -> tuple[Scored, ...]:
    """One list over all methods, best first, cut after ``top`` rows but for the source named ``also``.

    Ordered by the mean over the seeds: of the values where there is one method, of the scores where there are several. With
    several seeds a row's interval are the best and the worst place that it has under any of them.
    """
    alone = len(runs) == 1
    tables = [run.table(scores=not alone) for run in runs]
    whole = np.concatenate(tables, axis=1)
    where = [(m, i) for m, table in enumerate(tables) for i in range(table.shape[1])]
    wanted = _columns_of(runs, also) if also else ()
    places = _places(whole)
    rows = []
    for rank, column in enumerate(np.argsort(-whole.mean(axis=0), kind="stable"), 1):
        m, i = where[column]
        if top is not None and rank > top and column not in wanted:
            continue
        interval = (int(places[:, column].min()), int(places[:, column].max())) if len(whole) > 1 else None
        rows.append(replace(_row(runs[m], i, rank), interval=interval))
    return tuple(rows)


def _columns_of(runs: Sequence[MethodRuns], name: str) -> tuple[int, ...]:
    """Where the source of that name is among all usable ones; () where it was not compared."""
    sources = (run.yardstick.packed.sources[row] for run in runs for row in run.usable)
    return tuple(column for column, source in enumerate(sources) if source.name == name)


def _places(whole: FloatArray) -> NDArray[np.intp]:
    """[seeds, sources] the place of each source under each seed, from 1."""
    places = np.empty(whole.shape, dtype=np.intp)
    for seed, values in enumerate(whole):
        places[seed, np.argsort(-values, kind="stable")] = np.arange(1, whole.shape[1] + 1)
    return places


def _row(run: MethodRuns, i: int, rank: int) -> Scored:
    """A source's row: evidence by the first seed, figures as means over all of them."""
    at = [int(np.searchsorted(one.usable, run.usable[i])) for one in run.seeds]
    row = scored(run.yardstick, run.seeds[0], at[0], rank)
    if len(run.seeds) == 1:
        return row
    scores = [one.scores[j] for one, j in zip(run.seeds, at, strict=True) if one.scores is not None]
    return replace(
        row,
        value=float(np.mean([one.values[j] for one, j in zip(run.seeds, at, strict=True)])),
        score=float(np.mean(scores)) if scores else None,
        similarity=float(np.mean([one.similarity[j] for one, j in zip(run.seeds, at, strict=True)])),
    )
