"""FourierFT's updates taken apart where they are sparse: in a real Fourier basis, block by block, without the dense matrix.

The update is ``Re(ifft2(S))`` of a sparse S [d_out, d_in]. In the orthonormal basis of cosines and sines, ``cos(a + b) = cos a
cos b - sin a sin b`` makes of each frequency one entry among the cosines and one among the sines. Rows and columns that no
entry connects do not mix, so that the singular values and vectors are those of small blocks; vectors go back by an inverse FFT.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.checkpoints.leading import Leading, Room, by_gram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["Frequencies"]

_CONNECTED = 4  # with so many entries for each row or column nearly all of them are connected, and looking is no use


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Entries that are connected: their places among all ``entries``, the waves of their rows and columns, where each lies."""

    entries: NDArray[np.int64]
    row_waves: NDArray[np.int64]
    column_waves: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The entries among the cosines or among the sines: entry e is ``factors[e] * spectrum[places[e]]``."""

    sine: bool
    places: NDArray[np.int64]
    factors: NDArray[np.float64]
    blocks: list[_Block]


class Frequencies:
    """The places of the frequencies of a module; modules of one shape share them.

    Args:
        places: [n] flat places in [d_out, d_in], each once.
        shape: (d_out, d_in).
    """

    def __init__(self, places: NDArray[np.int64], shape: tuple[int, int]) -> None:
        self._shape = shape
        self._parts = tuple(_part(places, shape, sine=sine) for sine in (False, True))

    def work(self, room: Room, module: str) -> None:
        """Raises AdapterError ("too large") where taking one module apart takes too long."""
        for part in self._parts:
            for block in part.blocks:
                room.work(module, len(block.row_waves), len(block.column_waves))

    def leading(self, spectrum: FloatArray, kept: int) -> Leading:
        """The largest directions of ``Re(ifft2(S))``, S [d_out, d_in] zero but for the ``spectrum`` [n] at the places."""
        found = [
            (part.sine, block, solved)
            for part in self._parts
            for block, solved in _solve(part, part.factors * spectrum[part.places].astype(np.float64), kept)
        ]
        values = np.concatenate([solved.values for _, _, solved in found])
        owners = np.repeat(np.arange(len(found)), [len(solved.values) for _, _, solved in found])
        within = np.concatenate([np.arange(len(solved.values)) for _, _, solved in found])
        order = np.argsort(-values, kind="stable")
        u_waves, v_waves = (np.zeros((d // 2 + 1, min(kept, len(values))), complex) for d in self._shape)
        for i, place in enumerate(order[:kept]):
            sine, block, solved = found[owners[place]]
            unit, k = -1j if sine else 1.0, within[place]
            u_waves[block.row_waves, i] = unit * solved.u[:, k]
            v_waves[block.column_waves, i] = unit * solved.v[:, k]
        u, v = (_waves_to_space(waves, d) for waves, d in zip((u_waves, v_waves), self._shape, strict=True))
        return Leading(u, values[order], v)


def _solve(part: _Part, entries: NDArray[np.float64], kept: int) -> list[tuple[_Block, Leading]]:
    out = []
    for block in part.blocks:
        if len(block.entries) == 1:  # most of them, where the module is large
            entry = entries[block.entries]
            out.append((block, Leading(np.sign(entry)[None], np.abs(entry), np.ones((1, 1)))))
            continue
        dense = np.zeros((1, len(block.row_waves), len(block.column_waves)))
        np.add.at(dense[0], (block.rows, block.columns), entries[block.entries])
        out.append((block, by_gram(dense, kept)[0]))
    return out


def _part(places: NDArray[np.int64], shape: tuple[int, int], *, sine: bool) -> _Part:
    rows, columns = np.divmod(places, shape[1])
    (row_waves, row_signs), (column_waves, column_signs) = _waves(rows, shape[0]), _waves(columns, shape[1])
    factors = _lengths(row_waves, shape[0]) * _lengths(column_waves, shape[1]) / (shape[0] * shape[1])
    there = np.arange(len(places))
    if sine:
        factors *= -row_signs * column_signs
        there = there[factors != 0]
    return _Part(sine, there, factors[there], _blocks(row_waves[there], column_waves[there]))


def _waves(frequencies: NDArray[np.int64], d: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The wave from 0 to d / 2 that each frequency is, and the sign of its sine; 0 where it has none."""
    waves = np.minimum(frequencies, d - frequencies)
    signs = np.where(2 * frequencies < d, 1, -1) * ((waves > 0) & (2 * waves < d))
    return waves, signs


def _lengths(waves: NDArray[np.int64], d: int) -> NDArray[np.float64]:
    """Euclidean length of a cosine of d samples, and of a sine where there is one."""
    return np.sqrt(np.where((waves == 0) | (2 * waves == d), d, d / 2))


def _waves_to_space(waves: NDArray[np.complex128], d: int) -> NDArray[np.float64]:
    """[d, k] of coefficients [d // 2 + 1, k] of orthonormal waves, those of sines times -i."""
    lengths = _lengths(np.arange(len(waves)), d)
    space: NDArray[np.float64] = np.fft.irfft(waves * lengths[:, None], n=d, axis=0)
    return space


def _blocks(row_waves: NDArray[np.int64], column_waves: NDArray[np.int64]) -> list[_Block]:
    rows, row_of = np.unique(row_waves, return_inverse=True)
    columns, column_of = np.unique(column_waves, return_inverse=True)
    if len(row_waves) > _CONNECTED * min(len(rows), len(columns)):
        groups = [np.arange(len(row_waves))]
    else:
        groups = _connected(row_of.tolist(), [len(rows) + column for column in column_of.tolist()], len(rows) + len(columns))
    out = []
    for entries in groups:
        (own_rows, at_rows), (own_columns, at_columns) = (
            np.unique(waves[entries], return_inverse=True) for waves in (row_waves, column_waves)
        )
        out.append(_Block(entries, own_rows, own_columns, at_rows, at_columns))
    return out


def _connected(one: list[int], other: list[int], nodes: int) -> list[NDArray[np.int64]]:
    """Edges (one[i], other[i]) by connected component: union-find with path halving."""
    parent = list(range(nodes))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in zip(one, other, strict=True):
        parent[root(a)] = root(b)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, a in enumerate(one):
        groups[root(a)].append(i)
    return [np.array(group, dtype=np.int64) for group in groups.values()]
