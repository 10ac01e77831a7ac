"""From one adapter's similarities with a packed zoo to an ordered list with its evidence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import EmptyZooError
from hubrank.ranking.background import Background, compare_sources, estimate, measure_background
from hubrank.ranking.estimators import ESTIMATORS, default_estimator, wanted
from hubrank.signatures.basis import Projection, energy_kept, of_views, project
from hubrank.types import Scored, Signature, Verdict, View

if TYPE_CHECKING:
    from hubrank.zoo.packed import Packed

__all__ = ["Ranked", "judge", "rank_sources"]

_FEW = 0.5  # a source that shares fewer than half of the target's sites is marked


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows best first, the reasons for which packed sources could not be compared, the energy kept, and the verdict."""

    rows: tuple[Scored, ...]
    compared: int
    skipped: dict[str, int]
    energy: float
    verdict: Verdict


def rank_sources(packed: Packed, signature: Signature, *, estimator: str | None = None, top: int | None = None) -> Ranked:
    """Order the sources of a packed zoo by an estimator's value for one adapter.

    Similarities, layers and energy are means over the views that the estimator looks at.

    Args:
        estimator: a name of :data:`hubrank.ranking.estimators.ESTIMATORS`; None for the method's own.
        top: only so many rows; None for all.

    Raises:
        EmptyZooError: no source shares a site with the adapter.
    """
    target = project(signature, packed.basis)
    cosines = packed.cosines(target)
    usable = np.flatnonzero(np.isfinite(cosines["compute"]))
    if not len(usable):
        raise EmptyZooError("no source in the zoo changes the layers that the target was tuned at")
    chosen = ESTIMATORS[estimator or default_estimator(packed.method)]
    views = [view for view in cosines if view in wanted(chosen)]
    mutual = compare_sources(packed, all_sources="zoo" in wanted(chosen))
    values = estimate(chosen, cosines, mutual, usable)
    background = measure_background(mutual, chosen)
    scores = background.scores(values) if background is not None else None
    # The store's int8 leaves columns a little longer or shorter than 1, so that a twin could be nearer than near.
    raw = np.clip(np.mean([cosines[view][usable] for view in views], axis=0), -1.0, 1.0)
    coverage = packed.coverage(target)[usable]
    rows = []
    for rank, i in enumerate(np.argsort(-values, kind="stable")[:top], 1):
        source = packed.sources[usable[i]]
        warnings = [*source.warnings, *(["no longer on its hub"] if source.gone else [])]
        if coverage[i] < _FEW:
            warnings.append(f"compared on {coverage[i]:.0%} of the target's sites")
        row = Scored(
            rank=rank,
            source=source,
            value=float(values[i]),
            score=float(scores[i]) if scores is not None else None,
            similarity=float(raw[i]),
            layers=_layers(packed, int(usable[i]), target, views),
            coverage=float(coverage[i]),
            warnings=tuple(warnings),
        )
        rows.append(row)
    missing = len(packed.sources) - len(usable)
    skipped = Counter(packed.left_out) + Counter({"no comparable sites": missing})
    energy = energy_kept(target, views)
    verdict = judge(background, float(np.max(cosines["compute"][usable])))
    return Ranked(tuple(rows), len(usable), dict(skipped), energy, verdict)


def judge(background: Background | None, nearest: float) -> Verdict:
    """Whether the nearest source is as near as sources of this zoo are to each other.

    A target tuned for a few steps lies further from everything than a finished adapter does, so the bar is low: half of
    the median, over the zoo's sources, of the compute cosine with their nearest other source.
    """
    if background is None:
        return Verdict(relevant=True, why="the zoo is too small to tell related from unrelated; compare the scores with care")
    usual = float(np.median(background.nearest))
    relevant = nearest >= usual / 2
    relation = "within" if relevant else "far below"
    why = (
        f"the nearest source has a cosine of {nearest:.2f} with the target, {relation} what sources of this zoo have with "
        f"their nearest ({usual:.2f} in the median)"
    )
    return Verdict(relevant=relevant, why=why)


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
