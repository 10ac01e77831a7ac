"""The recipe by which transfer is measured, kept apart from the product's own tuning: rows measured on different days compare.

The same arithmetic as DESIGN.md's tables: mean-pooled tokens under a linear head, rows of like length in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubrank.target.rows import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps of AdamW without weight decay; ``warmup`` is the part of them over which the rate rises, then it falls to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.1
    seed: int = 0


def encode(tokenizer: Any, target: Target, max_length: int) -> tuple[tuple[np.ndarray, np.ndarray | None], np.ndarray]:
    """Tokenise all rows at once: ((ids [n, width], token types [n, width] or None), lengths [n])."""
    pairs = list(target.pairs) if target.pairs is not None else None
    encoded = tokenizer(
        list(target.texts),
        pairs,
        truncation=True,
        max_length=max_length,
        padding=True,
        padding_side="right",
        return_tensors="np",
    )
    kinds = encoded.get("token_type_ids") if pairs is not None else None
    return (encoded["input_ids"], kinds), encoded["attention_mask"].sum(1)


def batches(lengths: np.ndarray, plan: Plan) -> Iterator[np.ndarray]:
    """``plan.steps`` arrays of row numbers: each pass shuffles, sorts within pools of eight batches, and shuffles the batches."""
    random = np.random.default_rng(plan.seed)
    pool, done = 8 * plan.batch_size, 0
    while True:
        order = random.permutation(len(lengths))
        cut = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            cut += [rows[i : i + plan.batch_size] for i in range(0, len(rows), plan.batch_size)]
        if len(cut) > 1 and len(cut[-1]) == 1:
            cut[-2:] = [np.concatenate(cut[-2:])]
        for i in random.permutation(len(cut)):
            if done == plan.steps:
                return
            done += 1
            yield cut[i]
