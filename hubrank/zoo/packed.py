"""The zoo of one base and method as one matrix: a row per source, projected on the zoo's own basis.

On disk, in a folder named after base and method: ``rows.npy`` [n, width] float16, read through a memory map;
``basis.safetensors`` with the directions of each site and ``there`` [n, sites]; ``index.json`` with the sources in row
order. A folder is written whole and put in place by one rename; it is derived data, so whatever is wrong with it is mended
by building it again.

Width of a row: sites x (p^2 + p(p+1)) numbers. With p = 32 and 12 sites that is 25,344 numbers, 50 kB.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import EmptyZooError, StoreDamagedError
from hubrank.signatures.basis import Basis, SiteBasis, block_sizes, learn_basis, project
from hubrank.types import Signature, Site, Source, View
from hubrank.zoo.codec import source_from_json, source_to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray
    from hubrank.zoo.store import Zoo

__all__ = ["PACKED_FORMAT", "Packed", "choose_p", "open_packed", "pack"]

PACKED_FORMAT = 1
_VIEWS: tuple[View, ...] = ("compute", "read", "write")
_SIZES = (64, 32, 16, 8)
_ROW_BYTES = 256 * 1024
_ALL_BYTES = 2 * 1024**3
_RARE = 0.1  # sites that fewer of the sources have are never tuned on a target, so never compared
_RELEARN = 1.2  # a basis serves until the zoo has grown by a fifth since it was learned
_CHUNK_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The packed zoo of one base and method.

    Attributes:
        rows: [n, width] float16, the views one after another, in each the sites in the basis's order.
        there: [n, sites] which sites a source has.
        learned_on: how many sources the basis was learned on.
        left_out: sources of this base and method that could not be packed, by reason.
    """

    base: str
    method: str
    generation: int
    sources: tuple[Source, ...]
    basis: Basis
    rows: NDArray[np.float16]
    there: NDArray[np.bool_]
    learned_on: int
    left_out: Mapping[str, int]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that are compared."""
        return tuple(self.basis.sites)

    def blocks(self, row: int) -> dict[View, FloatArray]:
        """One source as [sites, numbers] per view."""
        return self._split(np.asarray(self.rows[row : row + 1], dtype=np.float32), 0)

    def cosines(self, blocks: Mapping[View, FloatArray], there: NDArray[np.bool_]) -> dict[View, FloatArray]:
        """Mean cosine of one adapter with every source: [n] per view, over the sites that both have; NaN with none."""
        shared = (self.there @ there.astype(np.float32)).astype(np.float32)
        out: dict[View, FloatArray] = {}
        for view, (start, stop) in self.spans().items():
            sums = _matvec(self.rows[:, start:stop], blocks[view].ravel())
            out[view] = np.divide(sums, shared, out=np.full(len(sums), np.nan, np.float32), where=shared > 0)
        return out

    def site_cosines(self, row: int, blocks: Mapping[View, FloatArray]) -> dict[View, FloatArray]:
        """Cosine of one adapter with one source at each site: [sites] per view, NaN where the source lacks the site."""
        mine = self.blocks(row)
        return {view: np.where(self.there[row], (mine[view] * blocks[view]).sum(axis=1), np.nan) for view in _VIEWS}

    def coverage(self, there: NDArray[np.bool_]) -> FloatArray:
        """[n] part of the adapter's sites that each source has too."""
        shared = self.there @ there.astype(np.float32)
        return (shared / max(1, int(there.sum()))).astype(np.float32)

    def spans(self) -> dict[View, tuple[int, int]]:
        """Columns of each view: (start, stop)."""
        sizes, spans, at = block_sizes(self.basis.p), {}, 0
        for view in _VIEWS:
            width = len(self.basis.sites) * sizes[view]
            spans[view] = (at, at + width)
            at += width
        return spans

    def _split(self, rows: FloatArray, row: int) -> dict[View, FloatArray]:
        sites = len(self.basis.sites)
        return {view: rows[row, start:stop].reshape(sites, -1) for view, (start, stop) in self.spans().items()}


def choose_p(sites: int, sources: int) -> int:
    """Directions a side: the most that keep a row under 256 kB and all rows under 2 GB; never fewer than 8."""
    for p in _SIZES:
        row = 2 * sites * sum(block_sizes(p).values())
        if row <= _ROW_BYTES and row * sources <= _ALL_BYTES:
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
        shapes = _shapes([signature for _, signature in zoo])
        p = p or choose_p(len(shapes), len(zoo))
        basis = learn_basis([signature for _, signature in zoo], shapes, p)
    width = len(basis.sites) * sum(block_sizes(basis.p).values())
    kept: list[Source] = []
    left_out = Counter[str]()
    rows = np.zeros((len(zoo), width), np.float16)
    there = np.zeros((len(zoo), len(basis.sites)), dtype=bool)
    for source, signature in zoo:
        blocks, has = project(signature, basis)
        if not has.any():
            left_out["no comparable sites"] += 1
            continue
        rows[len(kept)] = np.concatenate([blocks[view].ravel() for view in _VIEWS])
        there[len(kept)] = has
        kept.append(source)
    n = len(kept)
    return Packed(base, method, generation, tuple(kept), basis, rows[:n], there[:n], len(zoo), dict(left_out))


def open_packed(zoo: Zoo, base: str, method: str) -> Packed:
    """The packed matrix of a base and method, from disk where it is current, else built and written.

    Raises:
        EmptyZooError: the zoo has no source for them.
    """
    folder = zoo.packed_folder / hashlib.sha256(f"{base}\0{method}".encode("utf-8", "replace")).hexdigest()[:24]
    stored = _read(folder)
    if stored is not None and stored.generation == zoo.generation and (stored.base, stored.method) == (base, method):
        return stored
    generation = zoo.generation
    sources = zoo.sources(base=base, method=method)
    if not sources:
        raise EmptyZooError(f"the zoo has no {method} source for {base}")
    pairs = [(source, zoo.signature(source)) for source in sources]
    basis = None
    if stored is not None and len(sources) <= _RELEARN * stored.learned_on and set(stored.sources) <= set(sources):
        basis = stored.basis
    packed = pack(base, method, generation, pairs, basis=basis)
    if basis is not None and stored is not None:
        packed = replace(packed, learned_on=stored.learned_on)
    _write(folder, packed)
    return packed


def _shapes(signatures: Sequence[Signature]) -> dict[Site, tuple[int, int]]:
    """The sites worth comparing, each with the shape that most sources have there."""
    found: dict[Site, Counter[tuple[int, int]]] = {}
    for signature in signatures:
        for factors in signature.factors:
            found.setdefault(factors.site, Counter())[len(factors.u), len(factors.v)] += 1
    least = _RARE * len(signatures)
    return {site: shapes.most_common(1)[0][0] for site, shapes in sorted(found.items()) if shapes.total() >= least}


def _matvec(rows: NDArray[np.float16], vector: FloatArray) -> FloatArray:
    """rows [n, width] @ vector [width] in float32, in pieces that stay in the processor's cache."""
    step = max(1, _CHUNK_BYTES // max(1, 4 * rows.shape[1]))
    parts = [rows[i : i + step].astype(np.float32) @ vector for i in range(0, len(rows), step)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _write(folder: Path, packed: Packed) -> None:
    """Put a matrix on disk, if that can be done: on a full or read-only disk the next search builds it again."""
    from safetensors.numpy import save

    index = {
        "format": PACKED_FORMAT,
        "base": packed.base,
        "method": packed.method,
        "generation": packed.generation,
        "p": packed.basis.p,
        "sites": [[s.stack, s.layer, s.module, s.reads, s.writes] for s in packed.sites],
        "learned_on": packed.learned_on,
        "left_out": dict(packed.left_out),
        "sources": [source_to_json(source) for source in packed.sources],
    }
    tensors: dict[str, Any] = {"there": packed.there}
    for i, directions in enumerate(packed.basis.sites.values()):
        tensors |= {f"write.{i}": directions.write, f"read.{i}": directions.read}
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            partial = Path(scratch) / "new"
            partial.mkdir()
            np.save(partial / "rows.npy", packed.rows)
            (partial / "basis.safetensors").write_bytes(save(tensors))
            (partial / "index.json").write_text(json.dumps(index), encoding="utf-8", errors="replace")
            if folder.exists():
                folder.replace(Path(scratch) / "old")
            # Another search may have put its own there in between; one of the two stays, and they are the same.
            partial.replace(folder)


def _read(folder: Path) -> Packed | None:
    """The matrix in a folder; None where there is none, or one of another format, or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        index = json.loads((folder / "index.json").read_text("utf-8"))
        if index["format"] != PACKED_FORMAT:
            return None
        tensors = load_file(folder / "basis.safetensors")
        sites = {
            Site(stack, layer, module, reads=reads, writes=writes): SiteBasis(tensors[f"write.{i}"], tensors[f"read.{i}"])
            for i, (stack, layer, module, reads, writes) in enumerate(index["sites"])
        }
        rows = np.lib.format.open_memmap(folder / "rows.npy", mode="r")
        sources = tuple(source_from_json(value) for value in index["sources"])
        basis = Basis(int(index["p"]), sites)
        width = len(sites) * sum(block_sizes(basis.p).values())
        there = tensors["there"]
        if not all(d.ndim == 2 and d.shape[1] <= basis.p for s in sites.values() for d in (s.write, s.read)):
            return None
        if rows.shape != (len(sources), width) or rows.dtype != np.float16 or there.shape != (len(sources), len(sites)):
            return None
        return Packed(
            base=index["base"],
            method=index["method"],
            generation=index["generation"],
            sources=sources,
            basis=basis,
            rows=rows,
            there=there,
            learned_on=int(index["learned_on"]),
            left_out={str(reason): int(n) for reason, n in index["left_out"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
        return None
    except (SyntaxError, tokenize.TokenError, SafetensorError, StoreDamagedError):  # the first two from numpy's header reader
        return None
