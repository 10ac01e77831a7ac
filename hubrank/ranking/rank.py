"""From one adapter's similarities with a packed zoo to an ordered list with its evidence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import EmptyZooError
from hubrank.ranking.background import (
    Background,
    Mutual,
    against,
    asks_every_source,
    compare_sources,
    estimate,
    measure_background,
)
from hubrank.ranking.estimators import ESTIMATORS, Estimator, default_estimator, wanted
from hubrank.ranking.standardise import usual_cosines
from hubrank.ranking.verdict import CANDIDATES, judge, usual_scatter
from hubrank.signatures.basis import Projection, energy_kept, of_views, project
from hubrank.types import Scored, Signature, Verdict, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.ranking.first_order import Evidence
    from hubrank.types import FloatArray
    from hubrank.zoo.packed import Packed

__all__ = ["Compared", "Ranked", "Yardstick", "compare", "measure", "rank_sources", "scored"]

_FEW = 0.5  # a source that shares fewer than half of the target's sites is marked
_LEADING = 32  # directions on which the target's energy says something: all of them hold nearly anything


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows best first, the reasons for which packed sources could not be compared, the energy kept, and the verdict."""

    rows: tuple[Scored, ...]
    compared: int
    skipped: dict[str, int]
    energy: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """A packed zoo, an estimator, and how the zoo's sources stand to each other: measured once a search.

    ``evidence`` is what the rows of the target at hand say of each source (:mod:`hubrank.ranking.first_order`); None where
    there are no rows, they say nothing, or the estimator does not ask.
    """

    packed: Packed
    name: str
    estimator: Estimator
    mutual: Mutual
    background: Background | None
    evidence: Evidence | None = None

    @property
    def views(self) -> list[View]:
        """The views that the estimator looks at."""
        return [view for view in self.mutual.cosines if view in wanted(self.estimator)]

    @property
    def asks_rows(self) -> bool:
        """Whether the estimator wants to know what the target's rows say of the sources."""
        return "evidence" in wanted(self.estimator)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One adapter against a zoo; k of its n sources share a site with it.

    Attributes:
        usable: [k] their rows in the packed zoo.
        values, similarity, coverage: [k] each.
        scores: [k] values on the common scale; None for a zoo too small to have one.
        evidence: [k] what the target's rows say of each source; None where the estimator does not ask, or they say nothing.
        spread: standard deviation of what that adds to the values; 0 without.
        energy: kept by the whole basis.
    """

    target: Projection
    usable: NDArray[np.intp]
    values: FloatArray
    scores: FloatArray | None
    evidence: FloatArray | None
    spread: float
    similarity: FloatArray
    coverage: FloatArray
    energy: float
    judge: Callable[[], Verdict]

    @property
    def verdict(self) -> Verdict:
        """Made when it is asked for: in a large zoo it takes as long as all else here, and the snapshots of a run need none."""
        return self.judge()

    def order(self) -> NDArray[np.intp]:
        """Rows of the packed zoo, best first."""
        return self.usable[np.argsort(-self.values, kind="stable")]


def measure(packed: Packed, *, estimator: str | None = None) -> Yardstick:
    """Compare the zoo with itself.

    Args:
        estimator: a name of :data:`hubrank.ranking.estimators.ESTIMATORS`; None for the method's own.
    """
    name = estimator or default_estimator(packed.method)
    chosen = ESTIMATORS[name]
    mutual = compare_sources(packed, all_sources=asks_every_source(chosen), few="zoo" not in wanted(chosen))
    return Yardstick(packed, name, chosen, mutual, measure_background(mutual, chosen))


def compare(yardstick: Yardstick, signature: Signature) -> Compared:
    """Every source's value for one adapter.

    Similarities and energy are means over the views that the estimator looks at.

    Raises:
        EmptyZooError: no source shares a site with the adapter.
    """
    packed, mutual, background = yardstick.packed, yardstick.mutual, yardstick.background
    target = project(signature, packed.basis)
    cosines = packed.cosines(target)
    usable = np.flatnonzero(np.isfinite(cosines["compute"]))
    if not len(usable):
        raise EmptyZooError("no source in the zoo changes the layers that the target was tuned at")
    evidence = yardstick.evidence
    values = estimate(yardstick.estimator, cosines, mutual, usable, strength=target.strength, evidence=evidence)
    spread = 0.0
    if evidence is not None:
        spread = float(np.std(values - estimate(yardstick.estimator, cosines, mutual, usable, strength=target.strength)))
    # The store's int8 leaves columns a little longer or shorter than 1, so that a twin could be nearer than near.
    raw = np.clip(np.mean([cosines[view][usable] for view in yardstick.views], axis=0), -1.0, 1.0)
    return Compared(
        target=target,
        usable=usable,
        values=values,
        scores=background.scores(values, spread=spread) if background is not None else None,
        evidence=None if evidence is None else evidence.values[usable],
        spread=spread,
        similarity=raw,
        coverage=packed.coverage(target)[usable],
        energy=energy_kept(target, yardstick.views),
        judge=partial(_verdict, yardstick, target, cosines["compute"], usable),
    )


def _verdict(yardstick: Yardstick, target: Projection, cosines: FloatArray, usable: NDArray[np.intp]) -> Verdict:
    candidates = usable[np.argsort(-cosines[usable], kind="stable")[:CANDIDATES]]
    scatter = usual_scatter(yardstick.mutual) if yardstick.background is not None else None
    usual = (
        usual_cosines(against(yardstick.packed, yardstick.mutual, candidates)) if scatter is not None else cosines[candidates]
    )
    leading = replace(target, u=target.u[:, :_LEADING], v=target.v[:, :_LEADING])
    energy = energy_kept(leading, yardstick.views)
    return judge(cosines[candidates], usual, scatter, sources=len(usable), energy=energy)


def rank_sources(
    packed: Packed,
    signature: Signature,
    *,
    evidence: Evidence | None = None,
    estimator: str | None = None,
    top: int | None = None,
) -> Ranked:
    """Order the sources of a packed zoo by an estimator's value for one adapter.

    Args:
        evidence: of the rows that the adapter was tuned on, as :class:`Yardstick` has it.
        estimator: a name of :data:`hubrank.ranking.estimators.ESTIMATORS`; None for the method's own.
        top: only so many rows; None for all.

    Raises:
        EmptyZooError: no source shares a site with the adapter.
    """
    yardstick = replace(measure(packed, estimator=estimator), evidence=evidence)
    found = compare(yardstick, signature)
    rows = [scored(yardstick, found, int(i), rank) for rank, i in enumerate(np.argsort(-found.values, kind="stable")[:top], 1)]
    return Ranked(tuple(rows), len(found.usable), skipped(packed, found), found.energy, found.verdict)


def skipped(packed: Packed, found: Compared) -> dict[str, int]:
    """Why sources of the packed zoo were not compared."""
    return dict(Counter(packed.left_out) + Counter({"no comparable sites": len(packed.sources) - len(found.usable)}))


def scored(yardstick: Yardstick, found: Compared, i: int, rank: int) -> Scored:
    """The row of the i-th usable source, with its evidence layer by layer."""
    packed, row = yardstick.packed, int(found.usable[i])
    source = packed.sources[row]
    warnings = [*source.warnings, *(["no longer on its hub"] if source.gone else [])]
    if found.coverage[i] < _FEW:
        warnings.append(f"compared on {found.coverage[i]:.0%} of the target's sites")
    return Scored(
        rank=rank,
        source=source,
        value=float(found.values[i]),
        score=float(found.scores[i]) if found.scores is not None else None,
        evidence=_told(found, i),
        similarity=float(found.similarity[i]),
        layers=_layers(packed, row, found.target, yardstick.views),
        coverage=float(found.coverage[i]),
        warnings=tuple(warnings),
    )


def _told(found: Compared, i: int) -> float | None:
    return float(found.evidence[i]) if found.evidence is not None and np.isfinite(found.evidence[i]) else None


def _layers(packed: Packed, row: int, target: Projection, views: Sequence[View]) -> tuple[float | None, ...]:
    """Mean over the views and the sites of each layer, from layer 0 to the adapter's last; encoder before decoder."""
    cosines = np.clip(of_views(packed.site_cosines(row, target), views).mean(axis=1), -1.0, 1.0)
    layers: dict[tuple[str, int], list[float]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for site, cosine, mine in zip(packed.sites, cosines, target.there, strict=True):
        if mine and site.layer >= 0:
            counts[site.stack] = max(counts[site.stack], site.layer + 1)
            layers[site.stack, site.layer] += [float(cosine)] if np.isfinite(cosine) else []
    stacks = sorted(counts, key=lambda stack: (stack == "decoder", stack))
    means = (layers[stack, layer] for stack in stacks for layer in range(counts[stack]))
    return tuple(float(np.mean(found)) if found else None for found in means)
