"""Extractive question answering: rows, spans and F1; a LoRA under a linear layer that points at start and end."""

from __future__ import annotations

import gzip
import json
import re
import string
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from classify import HEAD_SEED, fit
from overlap import Row
from recipe import Plan, batches

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
    """A QA target that is ready to run."""

    name: str
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


def train_and_score(torch: Any, model: Any, task: Task, plan: Plan, device: str) -> float:
    """Tune the adapter that is in ``model`` under a fresh span head: mean F1 over the test rows."""
    torch.manual_seed(HEAD_SEED + plan.seed)
    head = torch.nn.Linear(model.config.hidden_size, 2).to(device)
    parameters = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
    spans = torch.as_tensor(task.train.spans, device=device)

    def loss_of(rows: np.ndarray) -> Any:
        scores = token_scores(torch, model, head, task.train, rows)
        ends = [torch.nn.functional.cross_entropy(scores[:, :, i], spans[rows, i]) for i in (0, 1)]
        return (ends[0] + ends[1]) / 2

    model.train()
    fit(torch, parameters, loss_of, batches(task.train.lengths, plan), plan)
    model.eval()
    found = []
    order = np.argsort(task.test.lengths, kind="stable")
    with torch.inference_mode():
        for rows in np.array_split(order, max(1, len(order) // 32)):
            scores = token_scores(torch, model, head, task.test, rows).cpu().numpy()
            found += [score_row(task.test, int(row), scores[i]) for i, row in enumerate(rows)]
    return float(np.mean(found))


def token_scores(torch: Any, model: Any, head: Any, rows: Spans, index: np.ndarray) -> Any:
    """Start and end scores [len(index), width, 2]; minus infinity outside the passage."""
    width, device = int(rows.lengths[index].max()), rows.ids.device
    sizes, first = (torch.as_tensor(part[index], device=device)[:, None] for part in (rows.lengths, rows.first))
    places = torch.arange(width, device=device)[None, :]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = model(
            input_ids=rows.ids[index, :width], attention_mask=(places < sizes).long(), token_type_ids=rows.kinds[index, :width]
        ).last_hidden_state
    passage = (places >= first) & (places < sizes - 1)
    return head(hidden.float()).masked_fill(~passage[:, :, None], float("-inf"))


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
