"""``--verify K``: the target is tuned from each of the first K sources and from scratch, and measured on held-out rows.

Cross-validation over the target's own rows: in each fold every start is tuned on the same rows, with the same seed, head and
order, by the recipe that the search tunes by, and scored on the rows that were held out. A gain is the mean over the folds of
the difference with a fresh adapter of the same shape. Folds share most of the rows they tune on, so that the plain standard
error would be too small: it is corrected as in Nadeau and Bengio, "Inference for the Generalization Error" (Machine Learning
2003).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import AdapterError, InputError
from hubrank.target.folds import folds_of
from hubrank.target.measured_files import Measured, measured_key, read_measured, source_facts, write_measured
from hubrank.target.methods import LEARNING_RATES
from hubrank.target.objectives import SIZES
from hubrank.target.sampling import subset
from hubrank.target.scoring import METRICS, score_of
from hubrank.target.starts import Start, put
from hubrank.target.tuning import TuningPlan, tune
from hubrank.types import Scored, Source, Verified

if TYPE_CHECKING:
    from hubrank.ranking.beyond import Workplace
    from hubrank.target.methods import Placement

__all__ = ["Verify", "shape_in_words"]


class Verify:
    """Tunes and scores, fold by fold, so that whoever interrupts is left with whole folds.

    ``failed`` says of each source that could not be tuned from, why.

    Raises:
        TargetError: no rows can be held out.
    """

    def __init__(self, place: Workplace, rows: Sequence[Scored]) -> None:
        self._place = place
        self._sources = [row.source for row in rows]
        self._folds = folds_of(place.target, seed=place.seed)
        self._scores: dict[tuple[Source | None, Placement], dict[int, float]] = {}
        self._shapes: dict[Source, Placement] = {}
        self.failed: dict[Source, str] = {}
        self.warnings: dict[Source, tuple[str, ...]] = {}
        for source in self._sources:
            self._recall(source)

    @property
    def folds(self) -> int:
        """How many there are."""
        return len(self._folds)

    @property
    def split(self) -> str:
        """How rows are held out, in words."""
        tuned, held = (round(float(np.mean([len(part) for part in parts]))) for parts in self._parts())
        return f"{len(self._folds)}-fold cross-validation, {tuned} rows tuned on and {held} held out in each"

    @property
    def to_fetch(self) -> list[Source]:
        """Sources of which not every fold is known."""
        whole = len(self._folds)
        return [
            source
            for source in self._sources
            if source not in self.failed
            and (source not in self._shapes or len(self._scores[source, self._shapes[source]]) < whole)
        ]

    def fetch(self) -> None:
        """Read what is to be tuned from, and note what cannot be."""
        for source in self.to_fetch:
            start = self._place.shelf.start(source)
            if start is None:
                self.failed[source] = self._place.shelf.failed[source]
            elif not start.tunable:
                self.failed[source] = f"a {source.full_method} has no small factors to tune on from"
            else:
                self._shapes[source] = start.placement
                self.warnings[source] = start.warnings
                self._scores.setdefault((source, start.placement), {})
        for shape in self._shapes.values():
            if (None, shape) not in self._scores:
                self._scores[None, shape] = {}
                self._recall_scores(None, shape)

    def runs(self) -> int:
        """How many runs of tuning are left."""
        return sum(len(self._folds) - len(known) for (source, _), known in self._scores.items() if source not in self.failed)

    def seconds(self) -> float | None:
        """About how long they will take, scoring included."""
        pace = self._place.seconds_a_row()
        if pace is None:
            return None
        batch = min(SIZES[self._place.target.task].batch, len(self._place.target))
        held = len(self._place.target) / len(self._folds)
        return self.runs() * pace * (self._place.steps * batch + held / 3)

    def run(self) -> None:
        """Do the runs that are left. A start that cannot be tuned from is noted in ``failed``."""
        done, runs = 0, self.runs()
        for number in range(len(self._folds)):
            for (source, shape), known in self._scores.items():
                if number in known or source in self.failed:
                    continue
                done += 1
                name = "scratch" if source is None else source.name
                self._place.listener.stage(f"verify: fold {number + 1} of {len(self._folds)} from {name}, run {done} of {runs}")
                start = None if source is None else self._place.shelf.start(source)
                if source is not None and start is None:
                    self.failed[source] = self._place.shelf.failed[source]
                    continue
                try:
                    known[number] = self._measure(source, start, shape, number)
                except (AdapterError, InputError) as error:
                    if source is None:
                        raise
                    self.failed[source] = str(error)

    def results(self) -> tuple[Verified, ...]:
        """Sources and fresh adapters, best gain first, over the folds that all of them have."""
        there = {key: known for key, known in self._scores.items() if key[0] not in self.failed}
        whole = [n for n in range(len(self._folds)) if all(n in known for known in there.values())]
        if not whole or not any(source is not None for source, _ in there):
            return ()
        found = [self._verified(source, shape, whole) for source, shape in there]
        return tuple(sorted(found, key=lambda one: -(one.gain or 0.0)))

    def _verified(self, source: Source | None, shape: Placement, whole: list[int]) -> Verified:
        metric = METRICS[self._place.target.task]
        values = np.array([self._scores[source, shape][n] for n in whole])
        gain = error = None
        if source is not None:
            differences = metric.sign * (values - np.array([self._scores[None, shape][n] for n in whole]))
            gain = float(differences.mean())
            if len(whole) > 1:
                tuned, held = (float(np.mean([len(part) for part in parts])) for parts in self._parts())
                error = math.sqrt((1 / len(whole) + held / tuned) * float(differences.var(ddof=1)))
        return Verified(
            source=source,
            shape=shape_in_words(shape),
            metric=metric.name,
            value=float(values.mean()),
            spread=float(values.std(ddof=1)) if len(whole) > 1 else None,
            gain=gain,
            gain_error=error,
            seeds=len(whole),
            steps=self._place.steps,
        )

    def _measure(self, source: Source | None, start: Start | None, shape: Placement, number: int) -> float:
        place, fold = self._place, self._folds[number]
        started = time.perf_counter()
        model, tokenizer = place.fresh.get()
        tuned = tune(
            model,
            tokenizer,
            subset(place.target, fold.tuned),
            self._plan(shape, number),
            device=place.device,
            on_step=place.listener.step,
            start=None if start is None else lambda attached: put(start, attached),
        )
        value = score_of(tuned, subset(place.target, fold.held_out))
        warnings = () if start is None else start.warnings
        measured = Measured(value, time.perf_counter() - started, shape, warnings)
        write_measured(place.cache, self._key(source, shape, number), measured)
        if source is not None and number == 0:
            write_measured(place.cache, self._key(source, None, number), measured)
        return value

    def _plan(self, shape: Placement, number: int) -> TuningPlan:
        return TuningPlan(shape, steps=self._place.steps, seed=self._place.seed + number)

    def _recall(self, source: Source) -> None:
        """What earlier searches measured of a source; its shape, too, so that it need not be fetched."""
        known = read_measured(self._place.cache, self._key(source, None, 0)) if self._place.reuse else None
        if known is not None:
            self._shapes[source] = known.placement
            self.warnings[source] = known.warnings
            self._recall_scores(source, known.placement)

    def _recall_scores(self, source: Source | None, shape: Placement) -> None:
        scores = self._scores.setdefault((source, shape), {})
        for number in range(len(self._folds)) if self._place.reuse else ():
            known = read_measured(self._place.cache, self._key(source, shape, number))
            if known is not None:
                scores[number] = known.value

    def _key(self, source: Source | None, shape: Placement | None, number: int) -> str:
        place = self._place
        settings = {
            "device": place.device.partition(":")[0],
            "steps": place.steps,
            "seed": place.seed,
            "fold": number,
            "folds": len(self._folds),
            "plan": None if shape is None else asdict(self._plan(shape, number)),
            "rates": dict(LEARNING_RATES),
            "sizes": asdict(SIZES[place.target.task]),
        }
        facts = None if source is None else source_facts(source)
        return measured_key("verify", target=place.digest, base=place.identity, source=facts, settings=settings)

    def _parts(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return [fold.tuned for fold in self._folds], [fold.held_out for fold in self._folds]


def shape_in_words(shape: Placement) -> str:
    """``lora r=8 on query, value``."""
    parts = dict.fromkeys(name.rpartition(".")[2] for name in shape.modules)
    where = f" on {', '.join(list(parts)[:6])}" if parts else ""
    size = {"lora": f" r={shape.size}", "ia3": ""}.get(shape.method, f" of {shape.size}")
    return f"{shape.variant or shape.method}{size}{where}"
