"""A source among the others of its zoo: how strong it is and where, what lies nearest to it, whether it is near to much."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import EmptyZooError
from hubrank.ranking.rank import Yardstick, measure
from hubrank.types import Signature, Source, View
from hubrank.zoo.packed_files import open_packed

if TYPE_CHECKING:
    from hubrank.types import FloatArray
    from hubrank.zoo.store import Zoo

__all__ = ["LayerShare", "Near", "Profile", "Strengths", "mean_norm", "profile", "profile_source", "strengths", "telling"]

SAMPLE = 128
"""Of a larger zoo, this many sources, evenly spaced, say how strong an update usually is and where."""

NEAREST = 3
_EQUAL = 1e-5  # int8 and float32 leave so much between cosines that are the same


@dataclass(frozen=True, slots=True)
class Near:
    """Another source of the zoo, and its mean cosine over the views that tell sources apart."""

    source: Source
    cosine: float


@dataclass(frozen=True, slots=True)
class LayerShare:
    """How much of an adapter's squared norm lies in one layer, and the median of that over the zoo's sources."""

    stack: str
    layer: int
    share: float
    usual: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A source among those of its base and method.

    Attributes:
        views: those that the figures are means over.
        others: sources that share a site with it.
        strength: mean over its sites of the Frobenius norm of the update.
        weaker: part of the ``sampled`` other sources with a smaller strength; None without any.
        nearest: most alike first.
        usual_nearest: median over the zoo of a source's highest cosine with another; None where only a sample was compared.
        crowd: its median cosine with the other sources; None without any.
        less_crowded: part of the zoo's sources with a smaller one.
        layers: in the order of the layers.
        sites, comparable: how many it changes, and at how many of them it is compared with others.
    """

    source: Source
    views: tuple[View, ...]
    others: int
    strength: float
    weaker: float | None
    sampled: int
    nearest: tuple[Near, ...]
    usual_nearest: float | None
    crowd: float | None
    less_crowded: float | None
    layers: tuple[LayerShare, ...]
    sites: int
    comparable: int


@dataclass(frozen=True, slots=True, eq=False)
class Strengths:
    """What is usual in a zoo: by name of each sampled source, its strength and its share of each (stack, layer)."""

    norms: Mapping[str, float]
    shares: Mapping[str, Mapping[tuple[str, int], float]]


def profile_source(zoo: Zoo, source: Source, signature: Signature) -> Profile:
    """The profile of a source of the zoo; in a zoo without others to compare it with, what it is by itself.

    Raises:
        StoreError: the zoo cannot be read.
    """
    try:
        packed = open_packed(zoo, source.base, source.method, gone=source.gone)
    except EmptyZooError:
        packed = None
    if packed is None or source not in packed.sources:
        return Profile(
            source,
            (),
            0,
            mean_norm(signature),
            None,
            0,
            (),
            None,
            None,
            None,
            _layers(signature, {}),
            len(signature.factors),
            0,
        )
    yardstick = measure(packed)
    return profile(yardstick, packed.sources.index(source), signature, strengths(zoo, yardstick))


def strengths(zoo: Zoo, yardstick: Yardstick) -> Strengths:
    """Norms of the zoo's sources, of a large zoo's by a sample, from their whole spectra.

    Raises:
        StoreError: the zoo cannot be read.
    """
    sources = yardstick.packed.sources
    rows = np.unique(np.linspace(0, len(sources) - 1, SAMPLE).astype(np.intp))
    sampled = {sources[row].name: zoo.signature(sources[row]) for row in rows}
    return Strengths(
        {name: mean_norm(signature) for name, signature in sampled.items()},
        {name: _shares(signature) for name, signature in sampled.items()},
    )


def profile(yardstick: Yardstick, row: int, signature: Signature, usual: Strengths) -> Profile:
    """The profile of one row of a packed zoo."""
    packed, mutual = yardstick.packed, yardstick.mutual
    source = packed.sources[row]
    cosines = packed.cosines(packed.source(row))
    views = telling(mutual.cosines, yardstick.views) or tuple(yardstick.views)
    near = np.mean([cosines[view] for view in views], axis=0)
    near[row] = np.nan
    others = np.flatnonzero(np.isfinite(near))
    order = others[np.argsort(-near[others], kind="stable")]
    among = np.mean([mutual.cosines[view] for view in views], axis=0)
    among = among[np.isfinite(among).any(axis=1)]
    # A sample's nearest is further than the zoo's; a sample's median is not.
    whole = len(among) > 0 and among.shape[1] == len(packed.sources)
    crowd = float(np.median(near[others])) if len(others) else None
    strength = mean_norm(signature)
    norms = [norm for name, norm in usual.norms.items() if name != source.name]
    return Profile(
        source=source,
        views=views,
        others=len(others),
        strength=strength,
        weaker=float(np.mean(np.array(norms) < strength)) if norms else None,
        sampled=len(norms),
        nearest=tuple(Near(packed.sources[i], float(np.clip(near[i], -1.0, 1.0))) for i in order[:NEAREST]),
        usual_nearest=float(np.median(np.nanmax(among, axis=1))) if whole else None,
        crowd=crowd,
        less_crowded=float(np.mean(np.nanmedian(among, axis=1) < crowd)) if crowd is not None and len(among) else None,
        layers=_layers(signature, {name: shares for name, shares in usual.shares.items() if name != source.name}),
        sites=len(signature.factors),
        comparable=int(packed.there[row].sum()),
    )


def telling(cosines: Mapping[View, FloatArray], views: Sequence[View]) -> tuple[View, ...]:
    """Those views in which the cosines differ: all that methods which only shift have in common is that they read a constant.

    Args:
        cosines: per view, of any shape; NaN where a pair does not count.
    """
    found = []
    for view in views:
        known = cosines[view][np.isfinite(cosines[view])]
        if len(known) and float(known.max() - known.min()) > _EQUAL:
            found.append(view)
    return tuple(found)


def mean_norm(signature: Signature) -> float:
    """Mean over the sites of the Frobenius norm of the update."""
    return float(np.mean([np.linalg.norm(factors.spectrum.astype(np.float64)) for factors in signature.factors]))


def _shares(signature: Signature) -> dict[tuple[str, int], float]:
    """Part of the squared norm that lies in each (stack, layer)."""
    squares: dict[tuple[str, int], float] = defaultdict(float)
    for factors in signature.factors:
        squares[factors.site.stack, factors.site.layer] += float(np.sum(factors.spectrum.astype(np.float64) ** 2))
    total = sum(squares.values())
    return {where: square / total for where, square in squares.items()} if total > 0 else {}


def _layers(signature: Signature, others: Mapping[str, Mapping[tuple[str, int], float]]) -> tuple[LayerShare, ...]:
    return tuple(
        LayerShare(*where, share, float(np.median([shares.get(where, 0.0) for shares in others.values()])) if others else share)
        for where, share in sorted(_shares(signature).items())
    )
