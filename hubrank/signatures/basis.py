"""The zoo's own directions: a basis learned from the factors of its sources, and adapters projected onto it.

What adapters of one base share lies in few directions of each site, so projecting U and V on the leading ones keeps nearly
all of what their cosines see, where a random projection of the same size does not (in a pilot).

What is kept of an adapter are its projected factors, not the projected views: k columns of p numbers a side and site cost
2 k p numbers, where the views cost p^2 + p (p + 1). At rank 8 the factors with p = 128 take half the bytes of the views
with p = 32 and follow the exact ranking far more closely (bench/retrieval.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.signatures.threads import one_thread
from hubrank.signatures.views import THREE_VIEWS, WeightedView
from hubrank.types import Factors, Signature, Site, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = [
    "Basis",
    "Projection",
    "SiteBasis",
    "energy_kept",
    "is_something",
    "learn_basis",
    "of_views",
    "overlaps",
    "project",
    "projected_cosines",
    "strengths",
]

_MAX_COLUMNS = 4096  # of the stacked directions of a site; a larger zoo is sampled evenly


@dataclass(frozen=True, slots=True, eq=False)
class SiteBasis:
    """Orthonormal directions of one site: ``write`` [d_out, p] and ``read`` [d_in, p]."""

    write: FloatArray
    read: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """One :class:`SiteBasis` a site, the number of directions p that they share, and the views that adapters are compared in.

    ``views`` are compute, read and write, in this order.
    """

    p: int
    sites: Mapping[Site, SiteBasis]
    views: tuple[WeightedView, ...] = THREE_VIEWS


def learn_basis(
    zoo: Sequence[Signature], shapes: Mapping[Site, tuple[int, int]], p: int, *, views: tuple[WeightedView, ...] = THREE_VIEWS
) -> Basis:
    """The leading ``p`` directions that the zoo reads and writes at each site.

    A truncated SVD of the stacked columns: U weighted by the square root of its share of the norm, which is what the write and
    compute views weigh between them; V unweighted where the read view counts every direction alike, else like U.

    Args:
        zoo: signatures of one base and method.
        shapes: (d_out, d_in) of every site that the basis shall have.
        p: directions a side; fewer where the zoo has fewer.
        views: those that adapters will be compared in.
    """
    by_site: dict[Site, list[Factors]] = {site: [] for site in shapes}
    for signature in zoo:
        for f in signature.factors:
            if shapes.get(f.site) == (len(f.u), len(f.v)) and is_something(f):
                by_site[f.site].append(f)
    by_size = any(view.view == "read" and view.power > 0 for view in views)
    sites = {}
    for site, found in by_site.items():
        step = max(1, sum(len(f.s) for f in found) // _MAX_COLUMNS)
        sample = found[::step]
        shares = [np.sqrt(f.s / np.linalg.norm(f.spectrum)) for f in sample]
        write = _leading([f.u * share for f, share in zip(sample, shares, strict=True)], p)
        read = _leading([f.v * share if by_size else f.v for f, share in zip(sample, shares, strict=True)], p)
        sites[site] = SiteBasis(write=write, read=read)
    return Basis(p, sites, views)


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """An adapter on a basis, the columns of all its sites one after another.

    Attributes:
        starts: [sites + 1] the columns of site i are ``starts[i]`` to ``starts[i + 1]``; none where the adapter lacks it.
        u, v: [columns, p] projected columns of U and V.
        weights: [columns, 3] what each column weighs in each of the basis's views, the full norm divided out.
        norms: [sites] the Frobenius norm of the update, before projection; 0 where the adapter lacks the site.
    """

    starts: NDArray[np.int64]
    u: FloatArray
    v: FloatArray
    weights: FloatArray
    norms: NDArray[np.float64]

    @property
    def there(self) -> NDArray[np.bool_]:
        """[sites] which of the basis's sites the adapter has."""
        return np.diff(self.starts) > 0

    @property
    def strength(self) -> float:
        """How strong the update is: the root mean square of its norms over the sites that it has; NaN with none."""
        return float(strengths(self.norms[None])[0])


def strengths(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] root mean square of [n, sites] norms over the sites that each adapter has, where they are not 0; NaN with none."""
    there = (norms > 0).sum(axis=1)
    means = np.divide((norms**2).sum(axis=1), there, out=np.full(len(norms), np.nan), where=there > 0)
    found: NDArray[np.float64] = np.sqrt(means)
    return found


def project(signature: Signature, basis: Basis) -> Projection:
    """An adapter on a basis; sites that the basis lacks, or has with other shapes, are left out."""
    mine = {factors.site: factors for factors in signature.factors}
    counts, u, v, weights, norms = [], [], [], [], []
    for site, directions in basis.sites.items():
        factors = mine.get(site)
        if factors is None or not _fits(factors, directions):
            counts.append(0)
            norms.append(0.0)
            continue
        counts.append(len(factors.s))
        norms.append(float(np.linalg.norm(factors.spectrum.astype(np.float64))))
        u.append(_padded(factors.u.T @ directions.write, basis.p))
        v.append(_padded(factors.v.T @ directions.read, basis.p))
        weights.append(np.stack([view.weights(factors) for view in basis.views], axis=1))
    none = np.zeros((0, basis.p), np.float32)
    return Projection(
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        u=np.concatenate([none, *u]),
        v=np.concatenate([none, *v]),
        weights=np.concatenate([np.zeros((0, len(THREE_VIEWS)), np.float32), *weights]),
        norms=np.array(norms, dtype=np.float64),
    )


def overlaps(gu: FloatArray, gv: FloatArray, weights: FloatArray) -> FloatArray:
    """What each column of other adapters shares with each of one adapter's at one site: [3, columns, k], one a view.

    The one's weights are in it already. Times the others' weights, and summed over both, it is the cosine of the two (see
    :mod:`hubrank.signatures.views`).

    Args:
        gu, gv: [columns, k] inner products of the others' columns of U and V with the one's.
        weights: [k, 3] of the one.
    """
    by_view = {"compute": gu * gv, "read": gv * gv, "write": gu * gu}
    return np.stack([by_view[view.view] * weights[:, i] for i, view in enumerate(THREE_VIEWS)])


def projected_cosines(one: Projection, other: Projection) -> FloatArray:
    """The cosine of two projected adapters at each site: [sites, 3], one a view, NaN at sites that either lacks."""
    out = np.full((len(one.there), len(THREE_VIEWS)), np.nan, np.float32)
    for site in np.flatnonzero(one.there & other.there):
        a, b = slice(*one.starts[site : site + 2]), slice(*other.starts[site : site + 2])
        shared = overlaps(one.u[a] @ other.u[b].T, one.v[a] @ other.v[b].T, other.weights[b])
        out[site] = (shared * one.weights[a].T[:, :, None]).sum(axis=(1, 2))
    return out


def energy_kept(projection: Projection, views: Collection[View] = ("compute", "read", "write")) -> float:
    """Mean over views and present sites of the squared norm that a projection kept, from 0 to 1; NaN with no site."""
    if not projection.there.any():
        return float("nan")
    return min(1.0, float(np.nanmean(of_views(projected_cosines(projection, projection), views))))


def of_views(cosines: FloatArray, views: Collection[View]) -> FloatArray:
    """The columns of [sites, 3] cosines that belong to some views."""
    chosen: FloatArray = np.take(cosines, [i for i, view in enumerate(THREE_VIEWS) if view.view in views], axis=1)
    return chosen


def _fits(factors: Factors, directions: SiteBasis) -> bool:
    return len(factors.u) == len(directions.write) and len(factors.v) == len(directions.read) and is_something(factors)


def is_something(factors: Factors) -> bool:
    """Whether an update has a direction at all: one that is exactly zero has none to be compared by."""
    return bool(factors.spectrum.size and factors.spectrum[0] > 0)


def _padded(rows: FloatArray, p: int) -> FloatArray:
    """[k, q] to [k, p]: a zoo with fewer than p directions leaves the rest empty."""
    return np.pad(rows, ((0, 0), (0, p - rows.shape[1]))) if rows.shape[1] < p else rows


def _leading(columns: list[FloatArray], p: int) -> FloatArray:
    """[d, min(p, rank)] leading left singular vectors of the stacked columns, by the smaller Gram matrix."""
    stack = np.concatenate(columns, axis=1).astype(np.float64)
    d, n = stack.shape
    gram = stack @ stack.T if d <= n else stack.T @ stack
    with one_thread():
        values, vectors = np.linalg.eigh(gram)
    keep = np.flatnonzero(values > 1e-9 * values[-1])[::-1][:p]
    if d > n:
        vectors = stack @ vectors[:, keep] / np.sqrt(values[keep])
        return np.ascontiguousarray(vectors, dtype=np.float32)
    return np.ascontiguousarray(vectors[:, keep], dtype=np.float32)
