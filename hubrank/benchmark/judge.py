"""Rankings against measured transfer: every measure for every target, its mean with an interval over the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.measures import Interval, bootstrap, gain, ndcg, rank_ndcg, regret, spearman
from hubrank.ranking.rivals.priors import source_prior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.benchmark.transfer import MeasuredTarget

    Numbers = NDArray[np.float64]

__all__ = ["MEASURES", "Cost", "Judged", "ceiling", "chance", "judge", "no_transfer", "paired", "prior", "restricted"]

Measure = Callable[["Numbers", "MeasuredTarget"], float]

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "regret@1": lambda values, target: regret(values, target.truth, 1),
        "regret@3": lambda values, target: regret(values, target.truth, 3),
        "regret@5": lambda values, target: regret(values, target.truth, 5),
        "ndcg": lambda values, target: ndcg(values, target.truth),
        "rank_ndcg": lambda values, target: rank_ndcg(values, target.truth),
        "spearman": lambda values, target: spearman(values, target.truth),
        # Each source's own no-transfer row is taken off, for adapters of another shape start elsewhere.
        "gain": lambda values, target: gain(values, target.truth - target.scratch, 0.0),
    }
)
"""Measures of a ranking's values [n] for one target; see :mod:`hubrank.ranking.measures`."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a ranking asks for. None: nobody measured it.

    Attributes:
        tunes: whether the target is tuned first, and ``tuning_seconds`` how long that took, mean over targets.
        passes: how often each source's model is run over the target's rows.
        bytes: kept a source.
        seconds: of ranking all sources for one target, without tuning.
        before: seconds a source, once, before any target comes.
        needs: what it needs beside the adapters and the target's rows.
    """

    tunes: bool = False
    tuning_seconds: float | None = None
    passes: int = 0
    bytes: float | None = None
    seconds: float | None = None
    before: float | None = None
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """One line of the benchmark.

    Attributes:
        kind: ``estimator``, ``rival`` or ``reference``.
        figures: mean over targets of each measure, with the bootstrap's bounds; NaN where it says nothing.
        per_target: measure by target.
        default: whether ``search`` ranks by it.
        note: what a reader must know, such as which sources it cannot place.
    """

    name: str
    kind: str
    figures: Mapping[str, Interval]
    per_target: Mapping[str, Mapping[str, float]]
    cost: Cost = Cost()
    default: bool = False
    note: str = ""


def judge(
    name: str,
    values: Mapping[str, Sequence[Numbers]],
    targets: Sequence[MeasuredTarget],
    *,
    kind: str = "rival",
    cost: Cost | None = None,
    default: bool = False,
    note: str = "",
) -> Judged:
    """Every measure of a ranking.

    Args:
        values: by target, one [n] a seed of the ranking; its figures are means over them. NaN: a source that it cannot place,
            which comes last. A target that is not there is left out.
    """
    per_target = {
        target.name: {
            measure: float(np.mean([of(np.asarray(one, dtype=np.float64), target) for one in values[target.name]]))
            for measure, of in MEASURES.items()
        }
        for target in targets
        if target.name in values
    }
    return _judged(name, kind, per_target, cost=cost or Cost(), default=default, note=note)


def chance(targets: Sequence[MeasuredTarget]) -> Judged:
    """The expectation over all orders."""
    values = {target.name: [np.zeros(target.seeds.shape[1])] for target in targets}
    return judge("chance", values, targets, kind="reference")


def no_transfer(targets: Sequence[MeasuredTarget]) -> Judged | None:
    """Tuning from no source: what it loses to the best one; None where that was not measured."""
    per_target = {}
    for target in targets:
        truth, fresh = target.truth, target.scratch[target.there]
        if np.isfinite(fresh).any():
            best = float(np.nanmax(truth))
            lost = (best - float(np.nanmean(fresh))) / best if best else 0.0
            nothing = dict.fromkeys(MEASURES, float("nan"))
            per_target[target.name] = nothing | {"regret@1": lost, "gain": 0.0}
    if not per_target:
        return None
    return _judged("no transfer", "reference", per_target, note="adapters of the sources' shapes, from a fresh start")


def prior(targets: Sequence[MeasuredTarget]) -> Judged | None:
    """Each source's mean transfer to the other targets; None where there are no others."""
    if len(targets) < 2:
        return None
    truths = np.stack([target.truth for target in targets])
    values = {target.name: [source_prior(others=np.delete(truths, i, axis=0))] for i, target in enumerate(targets)}
    cost = Cost(bytes=8, needs="the transfer of every source to other targets")
    return judge("source prior, leave one target out", values, targets, kind="reference", cost=cost)


def ceiling(targets: Sequence[MeasuredTarget]) -> Judged | None:
    """One seed's measured values as the ranking, the mean of the others as the truth; None where no target has two seeds.

    What noise leaves: by these runs no ranking can be shown to be better.
    """
    per_target = {}
    for target in targets:
        seeds = target.complete
        if len(seeds) < 2 or np.isnan(seeds[:, target.there]).any():
            continue
        parts = []
        for i, one in enumerate(seeds):
            rest = replace(target, seeds=np.delete(seeds, i, axis=0))
            parts.append({measure: of(one, rest) for measure, of in MEASURES.items()})
        per_target[target.name] = {measure: float(np.mean([part[measure] for part in parts])) for measure in MEASURES}
    if not per_target:
        return None
    note = f"of the {len(per_target)} targets with several seeds" if len(per_target) < len(targets) else ""
    return _judged("noise ceiling", "reference", per_target, note=note)


def paired(line: Judged, other: Judged, measure: str) -> Interval:
    """Mean over the targets of both of ``line``'s figure minus the other's, with the bootstrap's bounds over the pairs.

    Targets differ far more than rankings do, so that two intervals overlap where one ranking is better on every target.
    """
    both = [target for target in line.per_target if target in other.per_target]
    return bootstrap([line.per_target[target][measure] - other.per_target[target][measure] for target in both])


def restricted(target: MeasuredTarget, kept: NDArray[np.bool_], *, kin: bool) -> MeasuredTarget:
    """A target with fewer sources measured: those of ``kept`` [n], and without ``kin`` none of the target's own kind."""
    stays = kept if kin else kept & ~target.kin
    return replace(target, seeds=np.where(stays, target.seeds, np.nan))


def _judged(
    name: str,
    kind: str,
    per_target: Mapping[str, Mapping[str, float]],
    *,
    cost: Cost | None = None,
    default: bool = False,
    note: str = "",
) -> Judged:
    figures = {measure: bootstrap([one[measure] for one in per_target.values()]) for measure in MEASURES}
    return Judged(name, kind, figures, per_target, cost or Cost(), default=default, note=note)
