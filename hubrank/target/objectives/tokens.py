"""Tasks with an answer inside the text: a tag for every word, or the span that answers a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import TargetError
from hubrank.target.batching import Batch, padded
from hubrank.target.objectives.inputs import Encoded, cut_note, fast_tokenizer, hidden_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.objectives import Reader
    from hubrank.target.task import Target

__all__ = ["IGNORED", "Spans", "Tags", "answer_tokens", "first_tokens"]

IGNORED = -100
"""The label of a token that has none."""

_OVERLAP = 3  # neighbouring windows of a long context share a third of their length


class Tags:
    """The tag of a word is that of its first token; the rest of its tokens count for nothing."""

    def __init__(self, target: Target, reader: Reader) -> None:
        tokenizer = fast_tokenizer(reader, target.task)
        self._reader = reader
        texts = [" ".join(words) for words in target.tokens]
        found = tokenizer(texts, truncation=True, max_length=reader.room, return_offsets_mapping=True)
        self._encoded = Encoded(found["input_ids"], None, 0)
        self._labels: list[list[int]] = []
        beyond = 0
        for words, tags, offsets in zip(target.tokens, target.tags, found["offset_mapping"], strict=True):
            labels = [IGNORED] * len(offsets)
            first = first_tokens(words, offsets)
            beyond += len(first) < len(words)
            for word, token in first.items():
                labels[token] = tags[word]
            self._labels.append(labels)
        self.lengths = np.array([len(row) for row in self._encoded.ids], dtype=np.int64)
        self.outputs = len(target.classes)
        self.notes = cut_note(beyond, reader.room)

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Texts [rows, width] with ``labels`` [rows, width]."""
        arrays = self._encoded.arrays(self._reader, rows.tolist())
        labels = padded([self._labels[row] for row in rows], IGNORED)
        return Batch({**arrays, "labels": labels}, len(rows), float(max(1, (labels != IGNORED).sum())))

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:
        """The sum over words."""
        labels = batch["labels"]
        values = head(hidden_states(out, labels.shape[1]).float())
        return torch.nn.functional.cross_entropy(values.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def first_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The first token of each word, by word, of words joined by spaces; words without a token are left out.

    By its last character: a byte-level tokenizer counts the space in front to the token.
    """
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    first: dict[int, int] = {}
    for token, (start, stop) in enumerate(offsets):
        if stop <= start:
            continue
        word = int(np.searchsorted(starts, stop - 1, side="right")) - 1
        if stop - 1 < starts[word] + len(words[word]):
            first.setdefault(word, token)
    return first


class Spans:
    """Start and end of the answer in a context; a long context is read in windows that overlap.

    Of the windows of a question those that hold an answer are learnt from, and one without, whose answer is the first
    token, as for questions that have none.
    """

    outputs = 2

    def __init__(self, target: Target, reader: Reader) -> None:
        tokenizer = fast_tokenizer(reader, target.task)
        self._reader = reader
        contexts = target.pairs or ()
        # The question must leave most of the room to the context.
        asked = encode_questions(tokenizer, target.texts, reader.room // 3)
        ids: list[list[int]] = []
        kinds: list[list[int]] = []
        self._spans: list[tuple[int, int]] = []
        read_by_types = "token_type_ids" in tokenizer.model_input_names and reader.kinds
        for question, context, answers in zip(asked, contexts, target.answers, strict=True):
            found = in_windows(tokenizer, question, context, reader.room)
            spare = 1
            for window, offsets in enumerate(found["offset_mapping"]):
                sequence = found.sequence_ids(window)
                inside = [pair if part == 1 else None for pair, part in zip(offsets, sequence, strict=True)]
                span = next(
                    (at for a in answers if (at := answer_tokens(inside, a.start, a.start + len(a.text))) is not None), None
                )
                spare -= span is None
                if span is None and spare < 0:
                    continue
                ids.append(found["input_ids"][window])
                kinds.append(found["token_type_ids"][window] if read_by_types else [])
                self._spans.append(span or (0, 0))
        if not any(span != (0, 0) for span in self._spans):
            raise TargetError(target.path, f"no answer lies within {reader.room} tokens that the base model reads at once")
        self._encoded = Encoded(ids, kinds if read_by_types else None, 0)
        self.lengths = np.array([len(row) for row in ids], dtype=np.int64)
        extra = len(ids) - len(target)
        self.notes: tuple[str, ...] = (
            (f"contexts longer than {reader.room} tokens are read in windows, {extra} more",) if extra > 0 else ()
        )

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Windows [rows, width] with ``starts`` and ``ends`` [rows]."""
        arrays: dict[str, Any] = dict(self._encoded.arrays(self._reader, rows.tolist()))
        arrays["starts"], arrays["ends"] = np.array([self._spans[row] for row in rows], dtype=np.int64).T
        return Batch(arrays, len(rows), 2.0 * len(rows))

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:
        """The sum over rows of the losses of start and end."""
        mask = batch["attention_mask"]
        values = head(hidden_states(out, mask.shape[1]).float()).masked_fill(mask[:, :, None] == 0, float("-inf"))
        entropy = torch.nn.functional.cross_entropy
        starts = entropy(values[:, :, 0], batch["starts"], reduction="sum")
        return starts + entropy(values[:, :, 1], batch["ends"], reduction="sum")


def in_windows(tokenizer: Any, question: str, context: str, room: int) -> Any:
    """A question with as much of its context as fits ``room`` tokens, in overlapping windows, with the tokens' offsets."""
    return tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=room,
        stride=room // _OVERLAP,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )


def encode_questions(tokenizer: Any, questions: Sequence[str], room: int) -> list[str]:
    """Questions cut to so many tokens, as text."""
    found = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        question if len(offsets) <= room else question[: offsets[room - 1][1]]
        for question, offsets in zip(questions, found, strict=True)
    ]


def answer_tokens(inside: Sequence[tuple[int, int] | None], start: int, stop: int) -> tuple[int, int] | None:
    """First and last token of the characters ``start`` to ``stop`` of a context; None where a window does not hold them all.

    Args:
        inside: the characters of each token that is of the context; None for the others.
    """
    tokens = [i for i, pair in enumerate(inside) if pair is not None and pair[0] < stop and pair[1] > start]
    if not tokens:
        return None
    first, last = inside[tokens[0]], inside[tokens[-1]]
    whole = first is not None and last is not None and first[0] <= start and last[1] >= stop
    return (tokens[0], tokens[-1]) if whole else None
