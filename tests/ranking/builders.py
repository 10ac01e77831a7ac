"""Small things that the target and ranking tests are made of: a tiny random base model, target files, a synthetic zoo."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.signatures.canonical import canonical_factors
from hubrank.types import CardFacts, Delta, Signature, Source
from hubrank.zoo.packed import Packed, pack

if TYPE_CHECKING:
    from hubrank.target.base import BaseModel

BASE = "tiny/bert"
HIDDEN = 32
LAYERS = 2
QUERY_VALUE = ("attention.self.query", "attention.self.value")
_WORDS = [f"w{i}" for i in range(40)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: for models this small the others only wait, up to fifty times as long on a busy machine."""
    from hubrank.target.frameworks import import_torch

    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_base(folder: Path) -> BaseModel:
    """A random BERT of 2 layers and 32 dimensions with a WordPiece tokenizer over w0 to w39, as a folder on disk."""
    from hubrank.target.base import BaseModel
    from hubrank.target.frameworks import import_torch, import_transformers

    torch, transformers = import_torch(), import_transformers()
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=160,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.BertModel(config)
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    return BaseModel(BASE, folder, "folder")


def toy_rows(n: int = 24, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows whose label follows from their words: w0 to w9 are "left", w10 to w19 are "right"."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        words = 10 * (i % 2) + random.integers(0, 10, size=random.integers(2, 9))
        rows.append({"text": " ".join(f"w{w}" for w in words), "label": ("left", "right")[i % 2]})
    return rows


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """A JSONL file of the given values, one a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def modules(layers: Iterable[int] = range(LAYERS), names: Sequence[str] = QUERY_VALUE) -> list[str]:
    """Module paths of a BERT."""
    return [f"encoder.layer.{layer}.{name}" for layer in layers for name in names]


def random_deltas(
    random: np.random.Generator, where: Sequence[str], *, d: int = HIDDEN, rank: int = 4, span: tuple[int, int] | None = None
) -> list[Delta]:
    """Random low-rank updates; ``span`` keeps them within a range of coordinates on both sides."""
    start, stop = span or (0, d)
    deltas = []
    for module in where:
        down, up = np.zeros((rank, d), np.float32), np.zeros((d, rank), np.float32)
        down[:, start:stop] = random.normal(size=(rank, stop - start))
        up[start:stop] = random.normal(size=(stop - start, rank))
        deltas.append(Delta(site_of(module), down=down, up=up))
    return deltas


def sign(deltas: Sequence[Delta]) -> Signature:
    """The signature of some updates."""
    return Signature(tuple(sorted(canonical_factors(deltas), key=lambda factors: factors.site)))


def rewritten(random: np.random.Generator, deltas: Sequence[Delta], *, noise: float = 0.0) -> list[Delta]:
    """The same updates with other factors, (M A, B M^-1), and some noise on top."""
    out = []
    for delta in deltas:
        mix = random.normal(size=(len(delta.down), len(delta.down)))
        down, up = mix @ delta.down, delta.up @ np.linalg.inv(mix)
        down = down + noise * np.abs(down).mean() * random.normal(size=down.shape)
        up = up + noise * np.abs(up).mean() * random.normal(size=up.shape)
        out.append(Delta(delta.site, down=down.astype(np.float32), up=up.astype(np.float32)))
    return out


def source(name: str, *, rank: int = 4, base: str = BASE, method: str = "lora", warnings: tuple[str, ...] = ()) -> Source:
    """A source of a made-up hub."""
    return Source(
        hub="folder:/zoo", repo=name, revision="1" * 40, subfolder=None, base=base, method=method, rank=rank,
        card=CardFacts(task="toy"), warnings=warnings,
    )  # fmt: skip


def packed_of(deltas: Sequence[Sequence[Delta]], *, ranks: Sequence[int] | None = None) -> Packed:
    """Adapters org/a00, org/a01, ... packed as one zoo."""
    ranks = ranks or [4] * len(deltas)
    return pack(
        BASE, "lora", 1, [(source(f"org/a{i:02}", rank=r), sign(d)) for i, (d, r) in enumerate(zip(deltas, ranks, strict=True))]
    )


def families(
    random: np.random.Generator, *, count: int = 4, members: int = 3, d: int = 64, span: int = 32
) -> list[list[Delta]]:
    """Adapters in families: within one, variations of the same update; all inside the first ``span`` coordinates."""
    out = []
    for _ in range(count):
        parent = random_deltas(random, modules(), d=d, span=(0, span))
        for _ in range(members):
            child = rewritten(random, parent, noise=0.5)
            out.append([Delta(c.site, down=_inside(c.down, span), up=_inside(c.up.T, span).T) for c in child])
    return out


def _inside(rows: np.ndarray, span: int) -> np.ndarray:
    kept = rows.copy()
    kept[:, span:] = 0
    return kept
