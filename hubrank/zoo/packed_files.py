"""Packed matrices on disk: built from the store, read through a memory map, rebuilt when the store has moved on.

In a folder named after base and method: ``u.npy`` and ``v.npy`` [T, p] int8; ``basis.safetensors`` with the directions of each
site, ``starts``, ``scales``, ``weights`` and ``norms``; ``index.json`` with the sources in order. A folder is written whole and
put in place by one rename; it is derived data, so whatever is wrong with it is mended by building it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import tokenize
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints.reader import is_comparable
from hubrank.errors import EmptyZooError, StoreDamagedError
from hubrank.signatures.basis import Basis, SiteBasis
from hubrank.types import Site
from hubrank.zoo.codec import source_from_json, source_to_json
from hubrank.zoo.packed import Packed, pack, views_of

if TYPE_CHECKING:
    from hubrank.zoo.store import Zoo

__all__ = ["OLDER", "PACKED_FORMAT", "open_packed"]

PACKED_FORMAT = 6
OLDER = "read by an older hubrank"
"""Why a source is left out whose deltas meant something else then; the next sync reads it again."""

_RELEARN = 1.2  # a basis serves until the zoo has grown by a fifth since it was learned


def open_packed(zoo: Zoo, base: str, method: str, *, gone: bool = False) -> Packed:
    """The packed matrix of a base and method, from disk where it is current, else built and written.

    Args:
        gone: with the sources that left their hub, in a matrix of its own.

    Raises:
        EmptyZooError: the zoo has no source for them, or none that this version's reader made or might have made.
    """
    key = f"{base}\0{method}" + ("\0gone" if gone else "")
    folder = zoo.packed_folder / hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:24]
    stored = _read(folder)
    if stored is not None and stored.generation == zoo.generation and (stored.base, stored.method) == (base, method):
        return stored
    generation = zoo.generation
    sources = zoo.sources(base=base, method=method, gone=gone)
    if not sources:
        raise EmptyZooError(f"the zoo has no {method} source for {base}")
    current = [source for source in sources if is_comparable(method, source.reader)]
    if not current:
        older = f"the zoo's {method} sources for {base} were read by an older hubrank"
        raise EmptyZooError(f"{older}, whose figures mean something else: `hubrank sync` reads them again")
    pairs = [(source, zoo.signature(source)) for source in current]
    basis = None
    if stored is not None and len(current) <= _RELEARN * stored.learned_on and set(stored.sources) <= set(current):
        basis = stored.basis
    packed = pack(base, method, generation, pairs, basis=basis)
    if basis is not None and stored is not None:
        packed = replace(packed, learned_on=stored.learned_on)
    if len(current) < len(sources):
        packed = replace(packed, left_out={**packed.left_out, OLDER: len(sources) - len(current)})
    _write(folder, packed)
    return packed


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
    tensors: dict[str, Any] = {name: getattr(packed, name) for name in ("starts", "scales", "weights", "norms")}
    for i, directions in enumerate(packed.basis.sites.values()):
        tensors |= {f"write.{i}": directions.write, f"read.{i}": directions.read}
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            partial = Path(scratch) / "new"
            partial.mkdir()
            np.save(partial / "u.npy", packed.u)
            np.save(partial / "v.npy", packed.v)
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
        u, v = (np.lib.format.open_memmap(folder / name, mode="r") for name in ("u.npy", "v.npy"))
        sources = tuple(source_from_json(value) for value in index["sources"])
        basis = Basis(int(index["p"]), sites, views_of(index["method"]))
        packed = Packed(
            base=index["base"],
            method=index["method"],
            generation=index["generation"],
            sources=sources,
            basis=basis,
            starts=tensors["starts"],
            u=u,
            v=v,
            scales=tensors["scales"],
            weights=tensors["weights"],
            norms=tensors["norms"],
            learned_on=int(index["learned_on"]),
            left_out={str(reason): int(n) for reason, n in index["left_out"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
        return None
    except (SyntaxError, tokenize.TokenError, SafetensorError, StoreDamagedError):  # the first two from numpy's header reader
        return None
    return packed if _sound(packed) else None


def _sound(packed: Packed) -> bool:
    """Whether the arrays fit each other, so that nothing that is computed from them can go astray."""
    p, starts = packed.basis.p, packed.starts
    bases = [d for s in packed.basis.sites.values() for d in (s.write, s.read)]
    if not all(d.ndim == 2 and d.shape[1] <= p and d.dtype == np.float32 for d in bases):
        return False
    if starts.shape != (len(packed.sites), len(packed.sources) + 1) or starts.dtype != np.int64:
        return False
    # One run after another, from 0 to the last column.
    total = int(starts[-1, -1]) if starts.size else 0
    edges = np.concatenate([[0], starts.ravel(), [total]])
    if (np.diff(edges) < 0).any() or (starts[1:, 0] != starts[:-1, -1]).any():
        return False
    if packed.norms.shape != packed.there.shape or packed.norms.dtype != np.float64:
        return False
    if ((packed.norms > 0) != packed.there).any() or not np.isfinite(packed.norms).all():
        return False
    columns = packed.u.dtype == packed.v.dtype == np.int8 and packed.u.shape == packed.v.shape == (total, p)
    return columns and packed.scales.shape == (total, 2) and packed.weights.shape == (total, 3)
