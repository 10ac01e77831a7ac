"""SQuAD's F1 of the answers that a tuned model gives: every window of a context is read, whether or not it holds the answer.

Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (EMNLP 2016), with the empty answer of its
second version (ACL 2018) where the target has questions without one.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.target.batching import Batch
from hubrank.target.features import batches_of
from hubrank.target.objectives.inputs import Encoded, fast_tokenizer, hidden_states
from hubrank.target.objectives.tokens import encode_questions, in_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.objectives import Reader
    from hubrank.target.task import Target
    from hubrank.target.tuning import Tuned
    from hubrank.types import FloatArray

__all__ = ["answer_f1", "span_f1"]

_LONGEST = 30  # tokens of an answer
_DROPPED = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class _Best:
    """The best answer of a question so far, and how much an empty one would be worth."""

    score: float = float("-inf")
    text: str = ""
    empty: float = float("inf")


def span_f1(torch: Any, tuned: Tuned, target: Target) -> float:
    """The mean over rows of the best F1 with any of the row's answers; without answers, 1 for an empty one."""
    windows = _Windows(target, tuned.reader)
    best = [_Best()] * len(target)
    for numbers, batch, out in batches_of(torch, tuned.attached.model.eval(), windows, tuned.device):
        with torch.inference_mode():
            states = hidden_states(out, batch["attention_mask"].shape[1])
            values = tuned.head(states.float()).cpu().numpy()
        for number, scores in zip(numbers.tolist(), values, strict=True):
            row = windows.rows[number]
            best[row] = _better(best[row], scores, windows.inside[number], (target.pairs or ())[row])
    may_be_empty = any(not answers for answers in target.answers)
    found = []
    for one, answers in zip(best, target.answers, strict=True):
        said = "" if may_be_empty and one.empty >= one.score else one.text
        found.append(max((answer_f1(said, answer.text) for answer in answers), default=float(not said)))
    return float(np.mean(found))


class _Windows:
    """All windows of all contexts, as an objective whose examples are windows."""

    outputs = 2
    notes: tuple[str, ...] = ()

    def __init__(self, target: Target, reader: Reader) -> None:
        tokenizer = fast_tokenizer(reader, target.task)
        self._reader = reader
        ids: list[list[int]] = []
        kinds: list[list[int]] = []
        self.rows: list[int] = []
        self.inside: list[list[tuple[int, int] | None]] = []
        typed = "token_type_ids" in tokenizer.model_input_names and reader.kinds
        asked = encode_questions(tokenizer, target.texts, reader.room // 3)
        for row, (question, context) in enumerate(zip(asked, target.pairs or (), strict=True)):
            found = in_windows(tokenizer, question, context, reader.room)
            for window, offsets in enumerate(found["offset_mapping"]):
                parts = found.sequence_ids(window)
                ids.append(found["input_ids"][window])
                kinds.append(found["token_type_ids"][window] if typed else [])
                self.rows.append(row)
                self.inside.append([pair if part == 1 else None for pair, part in zip(offsets, parts, strict=True)])
        self._encoded = Encoded(ids, kinds if typed else None, 0)
        self.lengths = np.array([len(row) for row in ids], dtype=np.int64)

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Windows [rows, width]."""
        return Batch(self._encoded.arrays(self._reader, rows.tolist()), len(rows), float(len(rows)))

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:
        """Nothing is learnt here."""
        raise NotImplementedError


def _better(best: _Best, scores: FloatArray, inside: list[tuple[int, int] | None], context: str) -> _Best:
    """What one window [width, 2] adds: an answer is a span of context tokens of at most 30."""
    empty = min(best.empty, float(scores[0].sum()))
    tokens = [i for i, pair in enumerate(inside) if pair is not None]
    if not tokens:
        return _Best(best.score, best.text, empty)
    first, count = tokens[0], len(tokens)
    starts, ends = scores[first : first + count].T
    allowed = np.tril(np.triu(np.ones((count, count), dtype=bool)), _LONGEST - 1)
    sums = np.where(allowed, starts[:, None] + ends[None, :], -np.inf)
    low, high = np.unravel_index(int(sums.argmax()), sums.shape)
    if not sums[low, high] > best.score:
        return _Best(best.score, best.text, empty)
    begin, end = inside[first + int(low)], inside[first + int(high)]
    text = context[begin[0] : end[1]] if begin is not None and end is not None else ""
    return _Best(float(sums[low, high]), text, empty)


def answer_f1(said: str, answer: str) -> float:
    """Of their words, without case, punctuation and articles; as SQuAD's own script counts it."""
    left, right = _words(said), _words(answer)
    common = sum((Counter(left) & Counter(right)).values())
    if not common:
        return float(left == right)
    return 2 * common / (len(left) + len(right))


def _words(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_DROPPED)).split()
