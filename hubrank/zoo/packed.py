"""The zoo of one base and method, packed for search: every source projected on the zoo's own basis, in int8.

Per site, the projected columns of all sources lie one after another, so that comparing a target is two matrix products a
site over memory-mapped bytes, whatever the ranks of the sources. A column costs 2 p + 20 bytes: with p = 128, a LoRA of
rank 8 on 12 sites takes 26 kB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.signatures.basis import (
    Basis,
    Projection,
    is_something,
    learn_basis,
    overlaps,
    project,
    projected_cosines,
    strengths,
)
from hubrank.signatures.canonical import SHIFT
from hubrank.signatures.encoding import quantise
from hubrank.signatures.views import BY_POWER, THREE_VIEWS, WeightedView
from hubrank.types import Signature, Site, Source, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray, Int8Array

__all__ = ["Packed", "choose_p", "is_compared", "pack", "views_of"]

_SIZES = (256, 128, 64, 32, 16)
_SOURCE_BYTES = 512 * 1024
_ALL_BYTES = 2 * 1024**3
_RARE = 0.1  # sites that fewer of the sources have are never tuned on a target, so never compared
_CHUNK = 8192  # columns that are widened to float32 at a time
# Whether a method is compared by its shifts alone or by its updates alone; the others by both. LoRA's and bottlenecks' three
# views mean nothing at a shift, which reads one constant; of a prompt, the token mean ranks better than the token Gram.
_BY_SHIFTS = {"lora": False, "bottleneck": False, "prompt": True}

_VIEWS = {"bottleneck": BY_POWER}


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The packed zoo of one base and method; n sources, T columns in all.

    Attributes:
        starts: [sites, n + 1] the columns of source j at site i are ``starts[i, j]`` to ``starts[i, j + 1]``.
        u, v: [T, p] int8 projected columns of U and V, times ``scales`` [T, 2].
        weights: [T, 3] what each column weighs in each of the three views.
        norms: [n, sites] float64 Frobenius norm of each source's update, before projection; 0 where it lacks the site.
        learned_on: how many sources the basis was learned on.
        left_out: sources of this base and method that could not be packed, by reason.
    """

    base: str
    method: str
    generation: int
    sources: tuple[Source, ...]
    basis: Basis
    starts: NDArray[np.int64]
    u: Int8Array
    v: Int8Array
    scales: FloatArray
    weights: FloatArray
    norms: NDArray[np.float64]
    learned_on: int
    left_out: Mapping[str, int]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that are compared."""
        return tuple(self.basis.sites)

    @property
    def there(self) -> NDArray[np.bool_]:
        """[n, sites] which sites a source has."""
        return (np.diff(self.starts, axis=1) > 0).T

    @property
    def strengths(self) -> NDArray[np.float64]:
        """[n] root mean square of a source's norms over the sites that it has."""
        return strengths(self.norms)

    def source(self, row: int) -> Projection:
        """One source as a projection, float32."""
        alone = self.subset(np.array([row]))
        return Projection(
            starts=np.append(alone.starts[:, 0], len(alone.u)),
            u=alone.u.astype(np.float32) * alone.scales[:, :1],
            v=alone.v.astype(np.float32) * alone.scales[:, 1:],
            weights=alone.weights,
            norms=alone.norms[0],
        )

    def subset(self, rows: NDArray[np.intp]) -> Packed:
        """The zoo as if it held only these sources, on the same basis."""
        spans = [[slice(*starts[row : row + 2]) for row in rows] for starts in self.starts]
        counts = np.array([[span.stop - span.start for span in site] for site in spans], dtype=np.int64)
        index = np.concatenate([np.arange(span.start, span.stop) for site in spans for span in site])
        return replace(
            self,
            sources=tuple(self.sources[row] for row in rows),
            starts=_running(counts),
            u=self.u[index],
            v=self.v[index],
            scales=self.scales[index],
            weights=self.weights[index],
            norms=self.norms[rows],
        )

    def cosines(self, target: Projection) -> dict[View, FloatArray]:
        """Mean cosine of one adapter with every source: [n] per view, over the sites that both have; NaN with none."""
        return {view: found[0] for view, found in self.cosines_of([target]).items()}

    def cosines_of(self, targets: Sequence[Projection]) -> dict[View, FloatArray]:
        """Mean cosine of m adapters with every source: [m, n] per view, over the sites that both have; NaN with none."""
        has = np.stack([target.there for target in targets])
        sums = np.zeros((len(THREE_VIEWS), len(targets), len(self.sources)))
        for site in np.flatnonzero(has.any(axis=0)):
            sums += self._at(int(site), targets)
        shared = has.astype(np.float32) @ self.there.T
        means = np.divide(sums, shared, out=np.full(sums.shape, np.nan), where=shared > 0).astype(np.float32)
        return {view.view: means[i] for i, view in enumerate(THREE_VIEWS)}

    def site_cosines(self, row: int, target: Projection) -> FloatArray:
        """Cosine of one adapter with one source: [sites, 3], one a view, NaN at sites that either lacks."""
        return projected_cosines(self.source(row), target)

    def cosines_at(self, site: int, target: Projection) -> FloatArray:
        """Cosine of one adapter with every source at one site: [3, n], one row a view; NaN where either lacks the site."""
        if not target.there[site]:
            return np.full((len(THREE_VIEWS), len(self.sources)), np.nan, np.float32)
        found: FloatArray = np.where(self.there[:, site], self._at(site, [target])[:, 0], np.nan).astype(np.float32)
        return found

    def coverage(self, target: Projection) -> FloatArray:
        """[n] part of the adapter's sites that each source has too."""
        shared = self.there @ target.there.astype(np.float32)
        return (shared / max(1, int(target.there.sum()))).astype(np.float32)

    def _at(self, site: int, targets: Sequence[Projection]) -> NDArray[np.float64]:
        """Cosines with every source at one site: [3, m, n]; 0 where one of the two lacks it."""
        spans = [slice(*target.starts[site : site + 2]) for target in targets]
        t_u, t_v, t_weights = (
            np.concatenate([getattr(target, name)[span] for target, span in zip(targets, spans, strict=True)])
            for name in ("u", "v", "weights")
        )
        edges = np.concatenate([[0], np.cumsum([span.stop - span.start for span in spans])])
        starts = self.starts[site]
        out = np.zeros((len(THREE_VIEWS), len(targets), len(self.sources)))
        first = 0
        while first < len(self.sources):
            # Whole sources, so that what a piece leaves is small: as many as fit, and at least one.
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + _CHUNK, side="right")) - 1)
            rows = slice(starts[first], starts[last])
            gu = (self.u[rows].astype(np.float32) @ t_u.T) * self.scales[rows, :1]
            gv = (self.v[rows].astype(np.float32) @ t_v.T) * self.scales[rows, 1:]
            shared = overlaps(gu, gv, t_weights) * self.weights[rows].T[:, :, None]
            by_target = _sums(shared, edges, axis=2)
            out[:, :, first:last] = _sums(by_target, starts[first : last + 1] - starts[first], axis=1).swapaxes(1, 2)
            first = last
        return out


def _sums(values: NDArray[Any], edges: NDArray[np.int64], *, axis: int) -> NDArray[np.float64]:
    """Sums of the runs between edges along an axis, as differences of one running sum: runs may be empty."""
    running = np.cumsum(values, axis=axis, dtype=np.float64)
    nothing = np.zeros_like(running, shape=[1 if i == axis else n for i, n in enumerate(running.shape)])
    return np.diff(np.concatenate([nothing, running], axis=axis).take(edges, axis=axis), axis=axis)


def is_compared(site: Site, method: str) -> bool:
    """Whether adapters of a method are compared at a site: prompts at shifts, LoRA and bottlenecks elsewhere, others at all."""
    by_shifts = _BY_SHIFTS.get(method)
    return by_shifts is None or site.module.endswith(SHIFT) == by_shifts


def views_of(method: str) -> tuple[WeightedView, ...]:
    """The views that adapters of a method are compared in: compute, read and write, each with its power."""
    return _VIEWS.get(method, THREE_VIEWS)


def choose_p(columns: int, sources: int) -> int:
    """Directions a side: the most that keep a source of so many columns under 512 kB and all under 2 GB; at least 16."""
    for p in _SIZES:
        size = columns * 2 * p
        if size <= _SOURCE_BYTES and size * sources <= _ALL_BYTES:
            return p
    return _SIZES[-1]


def pack(
    base: str,
    method: str,
    generation: int,
    zoo: Sequence[tuple[Source, Signature]],
    *,
    p: int | None = None,
    basis: Basis | None = None,
) -> Packed:
    """Project the sources of one base and method.

    Args:
        zoo: at least one source with its signature.
        p: directions a side; chosen by :func:`choose_p` if None.
        basis: one learned before, to project on instead of learning one.
    """
    if basis is None:
        signatures = [signature for _, signature in zoo]
        shapes = _shapes(signatures, method)
        columns = sum(len(f.s) for signature in signatures for f in signature.factors if f.site in shapes)
        basis = learn_basis(signatures, shapes, p or choose_p(-(-columns // len(zoo)), len(zoo)), views=views_of(method))
    kept: list[Source] = []
    projections: list[Projection] = []
    left_out = Counter[str]()
    for source, signature in zoo:
        projection = project(signature, basis)
        if projection.there.any():
            kept.append(source)
            projections.append(projection)
        else:
            left_out["no comparable sites"] += 1
    sites, n = len(basis.sites), len(kept)
    counts = np.array([np.diff(projection.starts) for projection in projections], dtype=np.int64).reshape(n, sites)
    # Site by site, in each source by source.
    runs = [(one, slice(*one.starts[site : site + 2])) for site in range(sites) for one in projections]
    u, u_scale = _codes([one.u[run] for one, run in runs], basis.p)
    v, v_scale = _codes([one.v[run] for one, run in runs], basis.p)
    weights = np.concatenate([np.zeros((0, len(THREE_VIEWS)), np.float32), *(one.weights[run] for one, run in runs)])
    return Packed(
        base=base,
        method=method,
        generation=generation,
        sources=tuple(kept),
        basis=basis,
        starts=_running(counts.T),
        u=u,
        v=v,
        scales=np.stack([u_scale, v_scale], axis=1),
        weights=weights,
        norms=np.array([one.norms for one in projections], dtype=np.float64).reshape(n, sites),
        learned_on=len(zoo),
        left_out=dict(left_out),
    )


def _running(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[sites, n] columns of each source at each site to [sites, n + 1] where they start, one site after another."""
    sites, n = counts.shape
    running = np.concatenate([[0], np.cumsum(counts.ravel())]).astype(np.int64)
    starts: NDArray[np.int64] = running[np.arange(sites)[:, None] * n + np.arange(n + 1)]
    return starts


def _codes(parts: Sequence[FloatArray], p: int) -> tuple[Int8Array, FloatArray]:
    """Projected columns [T, p] as int8, and their scales [T]."""
    codes, scales = quantise(np.concatenate([np.zeros((0, p), np.float32), *parts]).T)
    return np.ascontiguousarray(codes.T), scales


def _shapes(signatures: Sequence[Signature], method: str) -> dict[Site, tuple[int, int]]:
    """The sites worth comparing, each with the shape that most sources have there."""
    found: dict[Site, Counter[tuple[int, int]]] = {}
    for signature in signatures:
        for factors in signature.factors:
            if is_compared(factors.site, method) and is_something(factors):
                found.setdefault(factors.site, Counter())[len(factors.u), len(factors.v)] += 1
    least = _RARE * len(signatures)
    return {site: shapes.most_common(1)[0][0] for site, shapes in sorted(found.items()) if shapes.total() >= least}
