"""``--rerank N``: the target's rows are run through the first N sources, and LogME is blended into their order.

This runs the numbers that strangers published (:mod:`hubrank.target.starts`), because the user asked for it; nothing else in
hubrank does but :mod:`hubrank.ranking.verify`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hubrank.errors import AdapterError, InputError, UsageError
from hubrank.ranking.blend import blended
from hubrank.ranking.rivals.features import logme
from hubrank.target.features import MOST_ROWS, WITH_LABELS, features_of
from hubrank.target.measured_files import Measured, measured_key, read_measured, source_facts, write_measured
from hubrank.target.starts import Start, put
from hubrank.types import Scored

if TYPE_CHECKING:
    from hubrank.ranking.beyond import Workplace
    from hubrank.target.task import TaskKind
    from hubrank.types import Source

__all__ = ["Rerank", "check_rerank", "reordered"]


def check_rerank(task: TaskKind) -> None:
    """See that the task has labels for LogME.

    Raises:
        UsageError: it has none.
    """
    if task not in WITH_LABELS:
        raise UsageError(
            f"--rerank: does not apply to {task}: LogME needs a label for every row or word ({', '.join(WITH_LABELS)}); "
            "leave it out, or measure the first sources with --verify"
        )


class Rerank:
    """LogME of the first sources, one after the other.

    ``found`` has what is known so far; whoever interrupts loses only the source at hand.
    """

    def __init__(self, place: Workplace, rows: Sequence[Scored]) -> None:
        self._place = place
        self._sources = [row.source for row in rows]
        self.found: dict[Source, Measured] = {}
        self.failed: dict[Source, str] = {}
        for source in self._sources:
            known = read_measured(place.cache, self._key(source)) if place.reuse else None
            if known is not None:
                self.found[source] = known

    @property
    def to_do(self) -> list[Source]:
        """Sources that are not known yet."""
        return [source for source in self._sources if source not in self.found]

    def seconds(self) -> float | None:
        """About how long the rest will take: a forward pass is about a third of a tuning step on as many rows."""
        pace = self._place.seconds_a_row()
        return None if pace is None else pace / 3 * min(MOST_ROWS, len(self._place.target)) * len(self.to_do)

    def run(self) -> None:
        """Measure what is not known yet. A source that cannot be run is noted in ``failed``."""
        place = self._place
        for i, source in enumerate(to_do := self.to_do, 1):
            place.listener.stage(f"rerank: running {len(place.target)} rows through {source.name}, {i} of {len(to_do)}")
            start = place.shelf.start(source)
            if start is None:
                self.failed[source] = place.shelf.failed[source]
                continue
            try:
                self.found[source] = self._measure(source, start)
            except (AdapterError, InputError) as error:
                self.failed[source] = str(error)

    def _measure(self, source: Source, start: Start) -> Measured:
        place = self._place
        started = time.perf_counter()
        model, tokenizer = place.fresh.get()
        features = features_of(
            model,
            tokenizer,
            place.target,
            start.placement,
            device=place.device,
            start=lambda attached: put(start, attached),
            on_rows=place.listener.step,
        )
        value = logme(features=features.states, labels=features.labels)
        measured = Measured(value, time.perf_counter() - started, start.placement, start.warnings)
        write_measured(place.cache, self._key(source), measured)
        return measured

    def _key(self, source: Source) -> str:
        return measured_key(
            "logme",
            target=self._place.digest,
            base=self._place.identity,
            source=source_facts(source),
            settings={"device": self._place.device.partition(":")[0]},
        )


def reordered(
    rows: Sequence[Scored], found: dict[Source, Measured], failed: dict[Source, str], *, alone: bool
) -> tuple[Scored, ...]:
    """Rows in their new order: those that were run, by the blend, on the places that they had; the others stay where they were.

    Args:
        alone: the ranking is of one method, so that values compare; of several only scores do.
    """
    bases = {row.source: row.value if alone else row.score for row in rows}
    run = [row for row in rows if row.source in found and bases[row.source] is not None]
    sums = blended([bases[row.source] or 0.0 for row in run], [found[row.source].value for row in run])
    marked = {
        row.source: replace(row, logme=found[row.source].value, rerank_score=float(total))
        for row, total in zip(run, sums, strict=True)
    }
    best_first = iter(sorted(marked.values(), key=lambda row: (-(row.rerank_score or 0.0), row.rank)))
    out = []
    for row in rows:
        if row.source in marked:
            new = next(best_first)
            out.append(replace(new, rank=row.rank, warnings=(*new.warnings, *found[new.source].warnings)))
        elif row.source in failed:
            out.append(replace(row, warnings=(*row.warnings, f"not reranked: {failed[row.source]}")))
        else:
            out.append(row)
    return tuple(out)
