"""Why a source stands where it stands: its cosines with the target, taken apart by view, layer and module.

What a cosine says depends on the zoo, so everything is told in deviations: (cosine - mean) / standard deviation over the
sources that were compared with this target, the measure in which the estimators add their views, and what the rows say.
Nothing here knows which estimator made the order: it asks which views that one looks at, and shows those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.ranking.estimators import takes_off_usual
from hubrank.ranking.estimators.four_views import known_z_scores
from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.merge import MethodRuns, merge
from hubrank.ranking.profile import Profile, Strengths, profile, strengths, telling
from hubrank.ranking.standardise import usual_cosines
from hubrank.signatures.views import THREE_VIEWS
from hubrank.types import Scored, Site, Source, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray
    from hubrank.zoo.store import Zoo

__all__ = ["Explanation", "Gap", "LayerLead", "ModuleLead", "RowsLead", "ViewLead", "explain"]


@dataclass(frozen=True, slots=True)
class ViewLead:
    """One view: the source's cosine with the target, the mean over all sources, the deviations above it, and its place.

    Where the estimator takes off what is usual for each source, so do the deviations.
    """

    view: View
    cosine: float
    usual: float
    deviations: float
    place: int


@dataclass(frozen=True, slots=True)
class RowsLead:
    """What the rows say (:mod:`hubrank.ranking.first_order`): the evidence, its deviations above the mean, its place."""

    evidence: float
    deviations: float
    place: int


@dataclass(frozen=True, slots=True)
class LayerLead:
    """One layer: how many of its sites are compared, and the deviations in each of the explanation's views.

    None where the two share no site of the layer, or where all sources that have it are alike there.
    """

    stack: str
    layer: int
    sites: int
    deviations: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Over the views; None where no view says anything."""
        known = [value for value in self.deviations if value is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True, slots=True)
class ModuleLead:
    """One kind of module over all layers, and the deviations there, a mean over the views."""

    module: str
    sites: int
    deviations: float


@dataclass(frozen=True, slots=True)
class Gap:
    """What separates a source from another of the ranking: the first from the second, any other from the first.

    Every difference is this source's figure less the other's.

    Attributes:
        score: None where one of the two has none.
        views: deviations, in the order of the explanation's views; () for a source of another method.
        layer: (stack, layer) where the mean deviations differ most in the direction of the gap; None where nothing does.
        ahead: under how many of the seeds this source comes before the other.
        rows: deviations of the evidence of the rows; None where one of the two has none. ``weight`` is what one of them counts,
            where a deviation in a view counts 1.
    """

    other: Scored
    score: float | None
    views: tuple[float, ...]
    layer: tuple[str, int] | None
    ahead: int
    rows: float | None = None
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The evidence behind one row of a ranking.

    Attributes:
        estimator: name of what ordered the method's sources.
        place, of: among the compared sources of its method.
        views: those that the estimator looks at and in which sources differ.
        alike: those that it looks at and in which they do not.
        layers: of the sites that the target was tuned at, in the order of the layers, encoder before decoder.
        modules: those that the source shares with the target, most in favour first.
        shared, tuned: how many sites are compared, of how many that the target was tuned at.
        elsewhere: sites of the source that the target was not tuned at.
        seeds: by how many the target was tuned.
        profile: the source among the others of its zoo.
        near_places: places in this ranking's method of ``profile.nearest``; None for one that was not compared.
        gap: None in a ranking of one.
        rows: None where the estimator does not ask the rows, or they say nothing of this source.
        less_usual: whether the estimator takes off what is usual for each source in a view. Layers and modules are told before
            that, the views and their places after it.
    """

    row: Scored
    estimator: str
    place: int
    of: int
    views: tuple[ViewLead, ...]
    alike: tuple[View, ...]
    layers: tuple[LayerLead, ...]
    modules: tuple[ModuleLead, ...]
    shared: int
    tuned: int
    elsewhere: int
    seeds: int
    profile: Profile
    near_places: tuple[int | None, ...]
    gap: Gap | None
    rows: RowsLead | None = None
    less_usual: bool = False


def explain(results: Sequence[MethodRuns], zoo: Zoo, which: int | str) -> tuple[Explanation, ...]:
    """Explain rows of the ranking that :func:`hubrank.ranking.merge.merge` makes of some runs.

    Args:
        which: so many of the first rows, or the one source of that name; none where it was not compared.

    Raises:
        StoreError: the zoo cannot be read.
    """
    count, name = (0, which) if isinstance(which, str) else (which, "")
    rows = merge(results, top=max(2, count), also=name)
    chosen = [row for row in rows if (row.source.name == name if name else row.rank <= count)]
    fields = {result.yardstick.packed.method: _Field(result, zoo) for result in results}
    return tuple(_explanation(row, rows, fields, results) for row in chosen)


class _Field:
    """All sources of one method against the target: what is usual, view by view and layer by layer."""

    def __init__(self, result: MethodRuns, zoo: Zoo) -> None:
        self.result, self.zoo = result, zoo
        self.packed, self.usable = result.yardstick.packed, result.usable
        self.values = result.table(scores=False).mean(axis=0)
        targets = [one.target for one in result.seeds]
        self.tuned = targets[0].there
        found = [self.packed.cosines(target) for target in targets]
        cosines = {view.view: np.mean([one[view.view][self.usable] for one in found], axis=0) for view in THREE_VIEWS}
        looked_at = result.yardstick.views or list(cosines)
        self.views = telling(cosines, looked_at)
        self.alike = tuple(view for view in looked_at if view not in self.views)
        self.cosines = {view: cosines[view] for view in self.views}
        self.deviations = {view: z_scores(cosines[view] - self._usual(view)) for view in self.views}
        asked = result.yardstick.evidence
        self.evidence: FloatArray = np.full(len(self.usable), np.nan) if asked is None else asked.values[self.usable]
        self.rows = known_z_scores(self.evidence)
        self.layers = self._parts(_layer_of)
        self.modules = self._parts(_module_of)
        self._strengths: Strengths | None = None

    @property
    def strengths(self) -> Strengths:
        """Read once, and only where a source of this method is explained."""
        if self._strengths is None:
            self._strengths = strengths(self.zoo, self.result.yardstick)
        return self._strengths

    def index(self, row: Scored) -> int:
        """Of a source among the usable ones."""
        return int(np.searchsorted(self.usable, self.packed.sources.index(row.source)))

    def _usual(self, view: View) -> FloatArray | float:
        """[usable] what is usual for each source in a view, where the estimator takes that off."""
        yardstick = self.result.yardstick
        if not takes_off_usual(yardstick.estimator, view):
            return 0.0
        return usual_cosines(yardstick.mutual.cosines[view][:, self.usable])

    def rows_lead(self, i: int) -> RowsLead | None:
        """Of one source."""
        if not np.isfinite(self.evidence[i]):
            return None
        return RowsLead(float(self.evidence[i]), float(self.rows[i]), self.place(i, self.evidence))

    def place(self, i: int, values: FloatArray) -> int:
        """From 1; of equals the first."""
        return int((values > values[i]).sum()) + 1

    def _parts(self, part: Callable[[Site], Hashable]) -> Mapping[Any, FloatArray]:
        """Deviations in each part of the model, such as a layer: [views, usable], NaN where nothing can be told."""
        columns = [i for i, view in enumerate(THREE_VIEWS) if view.view in self.views]
        sums: dict[Any, Any] = defaultdict(float)
        counts: dict[Any, Any] = defaultdict(float)
        for at in np.flatnonzero(self.tuned):
            site = self.packed.sites[at]
            seeds = [self.packed.cosines_at(int(at), one.target)[columns][:, self.usable] for one in self.result.seeds]
            cosines = np.mean(seeds, axis=0, dtype=np.float64)
            key = part(site)
            sums[key] += np.nan_to_num(cosines)
            counts[key] += np.isfinite(cosines)
        nothing: FloatArray = np.zeros((0, len(self.usable)), np.float32)
        return {
            key: np.stack([_spread(s, n) for s, n in zip(sums[key], counts[key], strict=True)]) if self.views else nothing
            for key in sums
        }


def _spread(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> FloatArray:
    """Means as deviations over the sources that have any; NaN where fewer than two have, or all are alike."""
    has = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=has)
    out: FloatArray = np.full(len(sums), np.nan)
    if has.sum() > 1 and np.ptp(means[has]) > 1e-5:
        out[has] = z_scores(means[has])
    return out


def _explanation(
    row: Scored, rows: Sequence[Scored], fields: Mapping[str, _Field], results: Sequence[MethodRuns]
) -> Explanation:
    field = fields[row.source.method]
    i = field.index(row)
    there = field.packed.there[field.usable[i]]
    signature = field.zoo.signature(row.source)
    stood = profile(field.result.yardstick, int(field.usable[i]), signature, field.strengths)
    leads = [
        ViewLead(
            view, float(found[i]), float(found.mean()), float(field.deviations[view][i]), field.place(i, field.deviations[view])
        )
        for view, found in field.cosines.items()
    ]
    modules = [
        ModuleLead(name, _count(field, there, _module_of, name), float(np.nanmean(found[:, i])))
        for name, found in field.modules.items()
        if np.isfinite(found[:, i]).any()
    ]
    other = rows[1] if row.rank == 1 and len(rows) > 1 else rows[0] if row.rank > 1 else None
    return Explanation(
        row=row,
        estimator=field.result.yardstick.name,
        place=field.place(i, field.values),
        of=len(field.usable),
        views=tuple(leads),
        alike=field.alike,
        layers=tuple(_layer(field, there, where, i) for where in sorted(field.layers, key=_stack_order)),
        modules=tuple(sorted(modules, key=lambda lead: -lead.deviations)),
        shared=int((there & field.tuned).sum()),
        tuned=int(field.tuned.sum()),
        elsewhere=int((there & ~field.tuned).sum()),
        seeds=len(field.result.seeds),
        profile=stood,
        near_places=tuple(_place_of(field, near.source) for near in stood.nearest),
        gap=_gap(row, other, fields, results) if other is not None else None,
        rows=field.rows_lead(i),
        less_usual=takes_off_usual(field.result.yardstick.estimator),
    )


def _layer(field: _Field, there: NDArray[np.bool_], where: tuple[str, int], i: int) -> LayerLead:
    deviations = (float(value) if np.isfinite(value) else None for value in field.layers[where][:, i])
    return LayerLead(*where, _count(field, there, _layer_of, where), tuple(deviations))


def _count(field: _Field, there: NDArray[np.bool_], part: Callable[[Site], Hashable], name: Hashable) -> int:
    """Sites of one part of the model that are compared."""
    return sum(part(field.packed.sites[at]) == name for at in np.flatnonzero(there & field.tuned))


def _layer_of(site: Site) -> tuple[str, int]:
    return site.stack, site.layer


def _module_of(site: Site) -> str:
    return site.module


def _place_of(field: _Field, source: Source) -> int | None:
    at = np.flatnonzero(field.usable == field.packed.sources.index(source))
    return field.place(int(at[0]), field.values) if len(at) else None


def _gap(row: Scored, other: Scored, fields: Mapping[str, _Field], results: Sequence[MethodRuns]) -> Gap:
    one, two = fields[row.source.method], fields[other.source.method]
    i, j = one.index(row), two.index(other)
    scores = len(results) > 1
    ahead = int((one.result.table(scores=scores)[:, i] > two.result.table(scores=scores)[:, j]).sum())
    score = None if row.score is None or other.score is None else row.score - other.score
    if one is not two:
        return Gap(other, score, (), None, ahead)
    sign = 1.0 if row.rank < other.rank else -1.0
    ahead_at = {}
    for where, found in one.layers.items():
        known = np.isfinite(found[:, i]) & np.isfinite(found[:, j])
        if known.any():
            ahead_at[where] = sign * float(np.mean(found[known, i] - found[known, j]))
    most = max(ahead_at, key=lambda where: ahead_at[where], default=None)
    return Gap(
        other,
        score,
        tuple(float(found[i] - found[j]) for found in one.deviations.values()),
        most if most is not None and ahead_at[most] > 0 else None,
        ahead,
        float(one.rows[i] - one.rows[j]) if np.isfinite(one.evidence[[i, j]]).all() else None,
        one.result.seeds[0].spread,
    )


def _stack_order(where: tuple[str, int]) -> tuple[bool, str, int]:
    stack, layer = where
    return stack == "decoder", stack, layer
