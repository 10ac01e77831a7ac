"""hubrank's own estimators over a zoo: targets tuned as a search tunes them, and the values that a search would rank by."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import EmptyZooError
from hubrank.ranking.estimators import ESTIMATORS, default_estimator
from hubrank.ranking.merge import MethodRuns
from hubrank.ranking.rank import Yardstick, compare, measure
from hubrank.ranking.runs import Runs
from hubrank.zoo.packed_files import open_packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.ranking.first_order import Evidence
    from hubrank.ranking.search import Listener, SearchSettings
    from hubrank.target.base import BaseModel
    from hubrank.target.task import Target
    from hubrank.types import Signature, Source
    from hubrank.zoo.store import Zoo

    Numbers = NDArray[np.float64]

__all__ = ["Estimates", "SignedTarget", "Signing", "estimate_all", "measured_zoo"]


@dataclass(frozen=True, slots=True, eq=False)
class Signing:
    """A zoo under one base, and how its targets are tuned.

    Attributes:
        yardsticks: by estimator, one a method; those of the first estimator say when a run may stop.
        cache: where tuned targets are kept.
    """

    base: BaseModel
    yardsticks: Mapping[str, Sequence[Yardstick]]
    cache: Path
    settings: SearchSettings
    device: str
    dtype: str
    listener: Listener

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that targets are tuned by."""
        return tuple(yardstick.packed.method for yardstick in next(iter(self.yardsticks.values())))

    @property
    def sources(self) -> int:
        """Sources that are ranked."""
        return sum(len(yardstick.packed.sources) for yardstick in next(iter(self.yardsticks.values())))

    @property
    def bytes_per_source(self) -> float:
        """Of the packed matrices, which is all that a search reads of a source."""
        packed = [yardstick.packed for yardstick in next(iter(self.yardsticks.values()))]
        whole = sum(p.u.nbytes + p.v.nbytes + p.scales.nbytes + p.weights.nbytes + p.starts.nbytes for p in packed)
        return whole / max(1, self.sources)

    def sign(self, target: Target) -> SignedTarget:
        """Tune a target by every method and with every seed, or take what was tuned before.

        Raises:
            BaseModelError: the base cannot do the task, or cannot be tuned by a method.
            TargetError: nothing is left of the target once it is cut to what the base reads.
        """
        runs = Runs(target, self.base, self.cache, self.settings, device=self.device, dtype=self.dtype, listener=self.listener)
        first = next(iter(self.yardsticks.values()))
        seeds = range(self.settings.seed, self.settings.seed + self.settings.repeats)
        asking = {one.packed.method: one for of_one in self.yardsticks.values() for one in of_one if one.asks_rows}
        evidence = {method: runs.informed(yardstick).evidence for method, yardstick in asking.items()}
        signatures: dict[str, tuple[Signature, ...]] = {}
        for i, yardstick in enumerate(first):
            method, last = yardstick.packed.method, i == len(first) - 1
            informed = _with(yardstick, evidence)
            signatures[method] = tuple(runs.run(informed, seed, None, 1, last) for seed in seeds)
        return SignedTarget(signatures, evidence, sum(run.seconds for run in runs.done) / len(seeds))


@dataclass(frozen=True, slots=True, eq=False)
class SignedTarget:
    """What moved when a target was tuned, by method, one signature a seed; what its rows say of each method's sources, where an
    estimator asks; ``seconds`` of one seed by all methods."""

    signatures: Mapping[str, tuple[Signature, ...]]
    evidence: Mapping[str, Evidence | None]
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimates:
    """Values of an estimator: one mapping of sources to values a seed; ``seconds`` of one seed."""

    seeds: tuple[Mapping[Source, float], ...]
    seconds: float


def measured_zoo(
    zoo: Zoo, base: str, methods: Sequence[str], estimators: Sequence[str]
) -> tuple[dict[str, list[Yardstick]], tuple[str, ...]]:
    """(yardsticks by estimator, estimators that rank every one of the methods by default).

    Args:
        estimators: names; none for all that there are.

    Raises:
        EmptyZooError: the sources have no site in common.
    """
    packed = [open_packed(zoo, base, method) for method in methods]
    packed = [one for one in packed if one.sources]
    if not packed:
        raise EmptyZooError(f"the {', '.join(methods)} sources for {base} have nothing in common; there is nothing to rank by")
    names = tuple(estimators) or tuple(ESTIMATORS)
    shipped = {default_estimator(one.method) for one in packed}
    # The estimator that a search uses says when tuning may stop.
    ordered = sorted(names, key=lambda name: name not in shipped)
    yardsticks = {name: [measure(one, estimator=name) for one in packed] for name in ordered}
    return yardsticks, tuple(name for name in ordered if shipped == {name})


def estimate_all(yardsticks: Sequence[Yardstick], signed: SignedTarget) -> Estimates:
    """Values of all sources, of several methods on the common scale, as a search orders them."""
    started = time.process_time()
    counts = {len(of_method) for of_method in signed.signatures.values()}
    seeds = []
    for seed in range(min(counts)):
        runs = []
        for yardstick in yardsticks:
            try:
                found = compare(_with(yardstick, signed.evidence), signed.signatures[yardstick.packed.method][seed])
            except EmptyZooError:
                continue  # nothing of this method shares a site with the target: its sources come last
            runs.append(MethodRuns(yardstick, (found,)))
        values: dict[Source, float] = {}
        for run in runs:
            table = run.table(scores=len(yardsticks) > 1)
            sources = run.yardstick.packed.sources
            values |= {sources[row]: float(value) for row, value in zip(run.usable, table[0], strict=True)}
        seeds.append(values)
    informed = [_with(yardstick, signed.evidence).evidence for yardstick in yardsticks]
    asking = sum(one.seconds for one in informed if one is not None)
    return Estimates(tuple(seeds), (time.process_time() - started) / len(seeds) + asking)


def _with(yardstick: Yardstick, evidence: Mapping[str, Evidence | None]) -> Yardstick:
    """With what a target's rows say of the method's sources, if it asks."""
    return replace(yardstick, evidence=evidence.get(yardstick.packed.method)) if yardstick.asks_rows else yardstick
