"""Small adapters, signatures and sources, made in memory or in a temporary folder; everything follows from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from hubrank.signatures.canonical import sign_adapter
from hubrank.types import Adapter, CardFacts, Delta, Factors, Signature, Site, Source

BASE = "org/base"
MODULES = tuple(f"encoder.layer.{layer}.attention.self.{name}" for layer in (0, 1) for name in ("query", "value"))
"""Four module paths, two layers of two, as a BERT has them."""


def random_factors(seed: int, *, rank: int = 2, d_out: int = 16, d_in: int = 16) -> tuple[NDArray, NDArray]:
    """(up [d_out, rank], down [rank, d_in]), float32."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((d_out, rank)).astype(np.float32),
        rng.standard_normal((rank, d_in)).astype(np.float32),
    )


def lora_tensors(
    modules: Sequence[str] = MODULES,
    *,
    rank: int = 2,
    seed: int = 0,
    d: int = 16,
    prefix: str = "base_model.model.",
    adapter: str | None = None,
) -> dict[str, NDArray]:
    """lora_A and lora_B of each module by peft's key, float32."""
    name = f".{adapter}" if adapter else ""
    tensors = {}
    for i, module in enumerate(modules):
        up, down = random_factors(1000 * seed + i, rank=rank, d_out=d, d_in=d)
        tensors[f"{prefix}{module}.lora_A{name}.weight"] = down
        tensors[f"{prefix}{module}.lora_B{name}.weight"] = up
    return tensors


def write_lora(
    folder: Path,
    *,
    sites: Sequence[str] = MODULES,
    rank: int = 2,
    seed: int = 0,
    d: int = 16,
    base: str | None = BASE,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray] | None = None,
    card: str | None = None,
) -> Path:
    """An adapter folder as peft writes it.

    Args:
        config: fields of adapter_config.json to change or add.
        tensors: instead of random ones.
        card: text of README.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank, "lora_alpha": 2 * rank, **(config or {})}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    weights = tensors if tensors is not None else lora_tensors(sites, rank=rank, seed=seed, d=d)
    save_file(dict(weights), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def delta(site: Site, up: NDArray, down: NDArray) -> Delta:
    """A delta in float32, whatever comes in."""
    return Delta(site, down=np.asarray(down, dtype=np.float32), up=np.asarray(up, dtype=np.float32))


def sign(deltas: Sequence[Delta]) -> Signature:
    """The signature of an adapter that consists of these deltas."""
    return sign_adapter(Adapter(BASE, "lora", tuple(deltas)))


def random_signature(
    seed: int = 0, *, sites: Sequence[str] = MODULES, rank: int = 2, d_out: int = 16, d_in: int = 16
) -> Signature:
    """The signature of random factors at each site."""
    shape = {"rank": rank, "d_out": d_out, "d_in": d_in}
    return sign([delta(site_of(name), *random_factors(1000 * seed + i, **shape)) for i, name in enumerate(sites)])


def dense(factors: Factors) -> NDArray[np.float64]:
    """U diag(S) V^T as one [d_out, d_in] matrix."""
    return factors.u.astype(np.float64) @ np.diag(factors.s.astype(np.float64)) @ factors.v.astype(np.float64).T


def make_source(repo: str = "org/one", **changes: Any) -> Source:
    """A source of the ``hf`` hub with a small card."""
    card = CardFacts(task="sst2", datasets=("glue",), languages=("en",), tags=("peft", "lora"))
    plain = Source("hf", repo, "a" * 40, None, BASE, "lora", 2, card)
    return replace(plain, **changes)


class MemoryBundle:
    """The files of one adapter, from a dictionary; ``reads`` lists every range that was asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.reads: list[tuple[str, int, int]] = []

    def size(self, name: str) -> int:
        """Size in bytes."""
        if name not in self.files:
            raise AdapterError("file missing", name)
        return len(self.files[name])

    def read(self, name: str, *, limit: int) -> bytes:
        """The whole file."""
        if self.size(name) > limit:
            raise AdapterError("file too large", name)
        return self.read_range(name, 0, self.size(name))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        self.reads.append((name, start, stop))
        data = self.files[name][start:stop]
        if len(data) != stop - start:
            raise AdapterError("file truncated", name)
        return data

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Several ranges of one file."""
        return (self.read_range(name, start, stop) for start, stop in ranges)
