"""Extractive question answering: rows, spans and F1; a LoRA under a linear layer that points at start and end."""

from __future__ import annotations

import gzip
import json
import re
import string
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from classify import Head, Starts, fit
from overlap import Draw, Row, draw, seen_by
from recipe import Plan

QUESTION, WINDOW, LONGEST = 40, 160, 60  # tokens: a question, the passage around its answer, an answer
TEST_ROWS = 200
RESERVED = 230
"""Training rows, whole passages, that the source of a task does not see: the target's rows come from them."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Tokenised rows: ids, kinds [n, width], lengths [n], spans [n, 2] as token numbers; ``offsets`` of the passage's tokens."""

    ids: Any
    kinds: Any
    lengths: np.ndarray
    spans: np.ndarray
    first: np.ndarray
    offsets: tuple[tuple[tuple[int, int], ...], ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A QA target that is ready to run; ``hidden`` is the base's width."""

    name: str
    hidden: int
    train: Spans
    test: Spans


def read_qa(folder: Path, task: str, split: str) -> list[Row]:
    """The rows of one split; ``text`` is the passage, as overlap.py wants it."""
    with gzip.open(folder / task / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [{**row, "text": row["context"]} for row in rows]


def reserve(task: str, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(rows for the target, rows for the source): no passage is in both."""
    passages = sorted({str(row["text"]) for row in rows})
    order = [passages[i] for i in np.random.default_rng(zlib.crc32(task.encode())).permutation(len(passages))]
    counts = Counter(str(row["text"]) for row in rows)
    kept: set[str] = set()
    total = 0
    for passage in order:
        if total >= RESERVED:
            break
        kept.add(passage)
        total += counts[passage]
    return [row for row in rows if row["text"] in kept], [row for row in rows if row["text"] not in kept]


def drawn(folder: Path, parts: Mapping[str, tuple[list[Row], list[Row]]], task: str, wanted: int) -> Draw:
    """A target's rows; ``parts`` are every task's, as :func:`reserve` cuts them."""
    seen = {other: seen_by(of_source, other) for other, (_, of_source) in parts.items()}
    return draw(task, parts[task][0], read_qa(folder, task, "dev"), seen, wanted=wanted, tested=TEST_ROWS)


def encode_spans(torch: Any, tokenizer: Any, rows: tuple[Row, ...], device: str) -> Spans:
    """Tokenise; a long passage is cut to a window that holds the answer at a place that the row's id decides."""
    ids, spans, first, offsets = [], [], [], []
    for row in rows:
        answers = row["answers"]
        start, text = answers["answer_start"][0], answers["text"][0]
        question = tokenizer(row["question"], add_special_tokens=False)["input_ids"][:QUESTION]
        passage = tokenizer(row["context"], add_special_tokens=False, return_offsets_mapping=True)
        places = passage["offset_mapping"]
        inside = [i for i, (a, b) in enumerate(places) if a < start + len(text) and b > start]
        low, high = inside[0], min(inside[-1], inside[0] + LONGEST - 1)
        cut = window(len(places), low, high, zlib.crc32(str(row["id"]).encode()))
        before = [tokenizer.cls_token_id, *question, tokenizer.sep_token_id]
        ids.append([*before, *passage["input_ids"][cut : cut + WINDOW], tokenizer.sep_token_id])
        first.append(len(before))
        spans.append((len(before) + low - cut, len(before) + high - cut))
        offsets.append(tuple(places[cut : cut + WINDOW]))
    lengths = np.array([len(row) for row in ids])
    table = np.full((len(ids), lengths.max()), tokenizer.pad_token_id)
    kinds = np.zeros_like(table)
    for i, row in enumerate(ids):
        table[i, : len(row)] = row
        kinds[i, first[i] : len(row)] = 1
    on = [torch.as_tensor(part, device=device) for part in (table, kinds)]
    return Spans(on[0], on[1], lengths, np.array(spans), np.array(first), tuple(offsets), rows)


def window(tokens: int, low: int, high: int, seed: int) -> int:
    """Where a window of WINDOW tokens that holds tokens low to high begins."""
    least, most = max(0, high + 1 - WINDOW), min(low, max(0, tokens - WINDOW))
    return int(np.random.default_rng(seed).integers(least, most + 1)) if most > least else min(least, most)


def train_and_score(torch: Any, starts: Starts, task: Task, plan: Plan, device: str) -> list[float]:
    """Tune every start under a fresh span head of its own: mean F1 over the test rows, [count]."""
    head = Head(torch, starts.count, (2, task.hidden), plan.seed, device)
    spans = torch.as_tensor(task.train.spans, device=device)

    def loss_of(rows: np.ndarray) -> Any:
        scores = token_scores(torch, starts, head, task.train, rows, training=True)
        ends = [
            torch.nn.functional.cross_entropy(
                scores[..., i].flatten(0, 1), spans[rows, i].repeat(starts.count), reduction="none"
            )
            for i in (0, 1)
        ]
        return ((ends[0] + ends[1]) / 2).view(starts.count, -1).mean(1)

    fit(torch, starts, head, loss_of, task.train.lengths, plan=plan)
    found: list[list[float]] = [[] for _ in range(starts.count)]
    order = np.argsort(task.test.lengths, kind="stable")
    with torch.inference_mode():
        for rows in np.array_split(order, max(1, len(order) // 32)):
            scores = token_scores(torch, starts, head, task.test, rows, training=False).cpu().numpy()
            for mine, of_start in zip(found, scores, strict=True):
                mine += [score_row(task.test, int(row), of_start[i]) for i, row in enumerate(rows)]
    return [float(np.mean(mine)) for mine in found]


def token_scores(torch: Any, starts: Starts, head: Head, rows: Spans, index: np.ndarray, *, training: bool) -> Any:
    """Start and end scores [count, len(index), width, 2]; minus infinity outside the passage."""
    width, device = int(rows.lengths[index].max()), rows.ids.device
    sizes, first = (torch.as_tensor(part[index], device=device) for part in (rows.lengths, rows.first))
    places = torch.arange(width, device=device)[None, :]
    hidden = starts.hidden(rows.ids[index, :width], sizes, rows.kinds[index, :width], training=training)
    passage = (places >= first[:, None]) & (places < sizes[:, None] - 1)
    return head(hidden).masked_fill(~passage[None, :, :, None], float("-inf"))


def score_row(rows: Spans, row: int, scores: np.ndarray) -> float:
    """F1 of the best span of at most LONGEST tokens."""
    first, count = int(rows.first[row]), len(rows.offsets[row])
    start, end = scores[first : first + count, 0], scores[first : first + count, 1]
    sums = np.triu(np.tril(np.ones((count, count)), LONGEST - 1)) > 0
    best = np.where(sums, start[:, None] + end[None, :], -np.inf)
    low, high = np.unravel_index(int(best.argmax()), best.shape)
    text = str(rows.rows[row]["context"])[rows.offsets[row][low][0] : rows.offsets[row][high][1]]
    return max(f1(text, answer) for answer in rows.rows[row]["answers"]["text"])


def f1(predicted: str, answer: str) -> float:
    """Token F1 as SQuAD's own script counts it (Rajpurkar et al. 2016)."""
    left, right = words(predicted), words(answer)
    common = sum((Counter(left) & Counter(right)).values())
    if not common:
        return float(left == right)
    return 2 * common / (len(left) + len(right))


def words(text: str) -> list[str]:
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()
