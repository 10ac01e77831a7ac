"""The zoo in two dimensions: classical multidimensional scaling of the compute cosines between its sources.

With unit vectors whose inner products are the cosines C, the squared distances are 2 - 2 C, and the doubly centred C is
what classical scaling (Torgerson, 1952) decomposes: its two leading eigenvectors, times the roots of their eigenvalues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.neighbours import Vectors, mean_cosines, vectors_of, vectors_of_zoo
from hubrank.signatures.basis import project
from hubrank.signatures.threads import one_thread
from hubrank.types import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray
    from hubrank.zoo.packed import Packed

__all__ = ["Guest", "Place", "ZooMap", "map_zoo", "scale"]

MOST = 400
"""Of a larger zoo, the sources nearest to the guests and an even sample of the others are drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    """An adapter to be drawn among the sources: a target, or one that is being checked."""

    name: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the map; ``guest`` for those that are not the zoo's own."""

    name: str
    task: str | None
    x: float
    y: float
    guest: bool = False


@dataclass(frozen=True, slots=True)
class ZooMap:
    """Points, sources first; the part of the whole spread that two dimensions hold; how many sources there are in all."""

    base: str
    method: str
    places: tuple[Place, ...]
    held: float
    sources: int


def map_zoo(packed: Packed, guests: Sequence[Guest] = ()) -> ZooMap | None:
    """The sources of a packed zoo with guests among them; None where fewer than three can be placed."""
    zoo = vectors_of_zoo(packed)
    projections = [project(guest.signature, packed.basis) for guest in guests]
    comers = [(guest, one) for guest, one in zip(guests, projections, strict=True) if one.there.any()]
    rows = np.arange(len(packed.sources))
    vectors = zoo
    if comers:
        theirs = vectors_of([one for _, one in comers], zoo.directions)
        near = np.nan_to_num(mean_cosines(theirs, zoo), nan=-1.0).max(axis=0)
        rows = _chosen(near)
        vectors = Vectors(np.concatenate([zoo.values[rows], theirs.values]), np.concatenate([zoo.there[rows], theirs.there]))
    elif len(rows) > MOST:
        rows = np.unique(np.linspace(0, len(rows) - 1, MOST).astype(np.intp))
        vectors = Vectors(zoo.values[rows], zoo.there[rows])
    if len(vectors.values) < 3:
        return None
    points, held = scale(mean_cosines(vectors, vectors))
    places = [
        Place(packed.sources[row].name, packed.sources[row].task, float(x), float(y))
        for row, (x, y) in zip(rows, points[: len(rows)], strict=True)
    ]
    places += [
        Place(guest.name, None, float(x), float(y), guest=True)
        for (guest, _), (x, y) in zip(comers, points[len(rows) :], strict=True)
    ]
    return ZooMap(packed.base, packed.method, tuple(places), held, len(packed.sources))


def scale(cosines: FloatArray) -> tuple[NDArray[np.float64], float]:
    """Classical scaling of [n, n] cosines: ([n, 2] points, part of the spread that they hold); NaN counts as unrelated."""
    gram = np.nan_to_num(cosines.astype(np.float64), nan=0.0)
    gram = (gram + gram.T) / 2
    np.fill_diagonal(gram, 1.0)
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    with one_thread():
        values, vectors = np.linalg.eigh(centred)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    points = vectors[:, :2] * np.sqrt(values[:2])
    # An eigenvector's sign is arbitrary: the furthest point lies to the right, and above.
    furthest = points[np.abs(points).argmax(axis=0), [0, 1]]
    total = float(values.sum())
    return points * np.where(furthest < 0, -1.0, 1.0), float(values[:2].sum()) / total if total > 0 else 0.0


def _chosen(near: FloatArray) -> NDArray[np.intp]:
    if len(near) <= MOST:
        return np.arange(len(near))
    nearest = np.argsort(-near, kind="stable")[: MOST // 2]
    sample = np.linspace(0, len(near) - 1, MOST // 2).astype(np.intp)
    return np.unique(np.concatenate([nearest, sample]))
