"""The zoo's own directions: a basis learned from the factors of its sources, and adapters projected onto it.

What adapters of one base share lies in few directions of each site, so projecting U and V on the leading ones keeps nearly
all of what their cosines see, where a random projection of the same size does not (DESIGN.md has the figures).

A projected adapter is one row: for every site the compute view [p, p] and the upper triangles of the read and write views,
off-diagonal entries times sqrt(2), each divided by the adapter's full norm. The dot product of two rows' blocks is then
their cosine, less what the basis loses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.signatures.views import THREE_VIEWS
from hubrank.types import Factors, Signature, Site, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["Basis", "SiteBasis", "block_sizes", "energy_kept", "learn_basis", "project"]

_MAX_COLUMNS = 4096  # of the stacked directions of a site; a larger zoo is sampled evenly


@dataclass(frozen=True, slots=True, eq=False)
class SiteBasis:
    """Orthonormal directions of one site: ``write`` [d_out, p] and ``read`` [d_in, p]."""

    write: FloatArray
    read: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """One :class:`SiteBasis` a site, and the number of directions p that they share."""

    p: int
    sites: Mapping[Site, SiteBasis]


def learn_basis(zoo: Sequence[Signature], shapes: Mapping[Site, tuple[int, int]], p: int) -> Basis:
    """The leading ``p`` directions that the zoo reads and writes at each site.

    A truncated SVD of the stacked columns: V unweighted, since the read view counts every direction alike, and U weighted
    by the square root of its share of the norm, which is what the write and compute views weigh between them.

    Args:
        zoo: signatures of one base and method.
        shapes: (d_out, d_in) of every site that the basis shall have.
        p: directions a side; fewer where the zoo has fewer.
    """
    sites = {}
    for site, shape in shapes.items():
        found = [f for signature in zoo for f in signature.factors if f.site == site and (len(f.u), len(f.v)) == shape]
        step = max(1, sum(len(f.s) for f in found) // _MAX_COLUMNS)
        found = found[::step]
        write = _leading([f.u * np.sqrt(f.s / np.linalg.norm(f.spectrum)) for f in found], p)
        read = _leading([f.v for f in found], p)
        sites[site] = SiteBasis(write=write, read=read)
    return Basis(p, sites)


def block_sizes(p: int) -> dict[View, int]:
    """Numbers a site takes in each view."""
    triangle = p * (p + 1) // 2
    return {"compute": p * p, "read": triangle, "write": triangle}


def project(signature: Signature, basis: Basis) -> tuple[dict[View, FloatArray], NDArray[np.bool_]]:
    """An adapter on the basis: per view [sites, numbers], and which of the basis's sites it has [sites].

    Sites that it lacks, or has with other shapes, are rows of zeros.
    """
    sizes = block_sizes(basis.p)
    blocks: dict[View, FloatArray] = {view: np.zeros((len(basis.sites), size), np.float32) for view, size in sizes.items()}
    there = np.zeros(len(basis.sites), dtype=bool)
    mine = {factors.site: factors for factors in signature.factors}
    upper = np.triu_indices(basis.p)
    double = np.where(upper[0] == upper[1], 1.0, np.sqrt(2.0)).astype(np.float32)
    for i, (site, directions) in enumerate(basis.sites.items()):
        factors = mine.get(site)
        if factors is None or not _fits(factors, directions):
            continue
        there[i] = True
        u, v = _padded(directions.write.T @ factors.u, basis.p), _padded(directions.read.T @ factors.v, basis.p)
        for view in THREE_VIEWS:
            left, right = {"compute": (u, v), "read": (v, v), "write": (u, u)}[view.view]
            square = (left * view.weights(factors)) @ right.T
            blocks[view.view][i] = square.ravel() if view.view == "compute" else square[upper] * double
    return blocks, there


def energy_kept(blocks: Iterable[FloatArray], there: NDArray[np.bool_]) -> float:
    """Mean over views and present sites of the squared norm that a projection kept, from 0 to 1; NaN with no site."""
    kept = [float(np.mean((block[there] ** 2).sum(axis=1))) for block in blocks if there.any()]
    return float(np.mean(kept)) if kept else float("nan")


def _fits(factors: Factors, directions: SiteBasis) -> bool:
    return len(factors.u) == len(directions.write) and len(factors.v) == len(directions.read)


def _padded(rows: FloatArray, p: int) -> FloatArray:
    """[q, k] to [p, k]: a zoo with fewer than p directions leaves the rest empty."""
    return np.pad(rows, ((0, p - len(rows)), (0, 0))) if len(rows) < p else rows


def _leading(columns: list[FloatArray], p: int) -> FloatArray:
    """[d, min(p, rank)] leading left singular vectors of the stacked columns, by the smaller Gram matrix."""
    stack = np.concatenate(columns, axis=1).astype(np.float64)
    d, n = stack.shape
    gram = stack @ stack.T if d <= n else stack.T @ stack
    values, vectors = np.linalg.eigh(gram)
    keep = np.flatnonzero(values > 1e-9 * values[-1])[::-1][:p]
    if d > n:
        vectors = stack @ vectors[:, keep] / np.sqrt(values[keep])
        return np.ascontiguousarray(vectors, dtype=np.float32)
    return np.ascontiguousarray(vectors[:, keep], dtype=np.float32)
