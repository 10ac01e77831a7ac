"""Tasks with one answer a text: classification, multi-label, regression; and multiple-choice, one score a choice."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.target.batching import Batch
from hubrank.target.objectives.inputs import cut_note, encode, pooled_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.objectives import Reader
    from hubrank.target.task import Target

__all__ = ["Choices", "Pooled", "scaled_values"]


class Pooled:
    """A linear head on pooled states: cross-entropy over classes, over each class by itself, or a squared error."""

    def __init__(self, target: Target, reader: Reader) -> None:
        self._reader = reader
        self._task = target.task
        self._encoded = encode(reader, target.texts, target.pairs)
        self.lengths = np.array([len(row) for row in self._encoded.ids], dtype=np.int64)
        self.outputs = 1 if target.task == "regression" else len(target.classes)
        self.notes = cut_note(self._encoded.cut, reader.room)
        self._labels = _labels(target)

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Texts [rows, width] with ``labels`` [rows] or [rows, classes]."""
        arrays = self._encoded.arrays(self._reader, rows.tolist())
        weight = float(len(rows) * (self.outputs if self._task == "multi-label" else 1))
        return Batch({**arrays, "labels": self._labels[rows]}, len(rows), weight)

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:
        """The sum over rows, and over classes where a row may have several."""
        states = pooled_states(torch, out, batch["attention_mask"], last=self._reader.architecture == "decoder")
        values = head(states.float())
        functional = torch.nn.functional
        if self._task == "regression":
            return functional.mse_loss(values.squeeze(-1), batch["labels"], reduction="sum")
        if self._task == "multi-label":
            return functional.binary_cross_entropy_with_logits(values, batch["labels"], reduction="sum")
        return functional.cross_entropy(values, batch["labels"], reduction="sum")


def _labels(target: Target) -> NDArray[Any]:
    if target.task == "regression":
        return scaled_values(target.labels)
    if target.task == "multi-label":
        table = np.zeros((len(target), len(target.classes)), dtype=np.float32)
        for row, found in enumerate(target.label_sets):
            table[row, list(found)] = 1.0
        return table
    return np.asarray(target.labels, dtype=np.int64)


def scaled_values(labels: tuple[float, ...]) -> NDArray[np.float32]:
    """Regression values with mean 0 and deviation 1."""
    values = np.asarray(labels, dtype=np.float64)
    # To [0, 1] first: values that differ by little or are tiny have no deviation that floats could hold.
    spread = values.max() - values.min()
    values = (values - values.min()) / (spread if spread > 0 else 1.0)
    deviation = values.std()
    scaled: NDArray[np.float32] = ((values - values.mean()) / (deviation if deviation > 0 else 1.0)).astype(np.float32)
    return scaled


class Choices:
    """Each choice read with its question gets a score; cross-entropy over the choices of a row."""

    outputs = 1

    def __init__(self, target: Target, reader: Reader) -> None:
        self._reader = reader
        counts = [len(choices) for choices in target.choices]
        contexts = target.pairs or ("",) * len(target)
        asked = [
            " ".join(part for part in (context, text) if part) for context, text in zip(contexts, target.texts, strict=True)
        ]
        questions = [question for question, count in zip(asked, counts, strict=True) for _ in range(count)]
        self._encoded = encode(reader, questions, [choice for choices in target.choices for choice in choices])
        self._starts = np.array([0, *accumulate(counts)])
        self._labels = np.asarray(target.labels, dtype=np.int64)
        sizes = [len(row) for row in self._encoded.ids]
        self.lengths = np.array(
            [max(sizes[a:b], default=1) for a, b in zip(self._starts[:-1], self._starts[1:], strict=True)], dtype=np.int64
        )
        self.notes = cut_note(self._encoded.cut, reader.room)

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """All choices of all rows one under the other; ``place`` [rows, most choices] says where, -1 where there is none."""
        spans = [range(self._starts[row], self._starts[row + 1]) for row in rows]
        flat = [i for span in spans for i in span]
        place = np.full((len(rows), max(map(len, spans))), -1, dtype=np.int64)
        at = 0
        for i, span in enumerate(spans):
            place[i, : len(span)] = np.arange(at, at + len(span))
            at += len(span)
        arrays = self._encoded.arrays(self._reader, flat)
        return Batch({**arrays, "place": place, "labels": self._labels[rows]}, len(rows), float(len(rows)))

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:
        """The sum over rows."""
        states = pooled_states(torch, out, batch["attention_mask"], last=self._reader.architecture == "decoder")
        scores = head(states.float()).squeeze(-1)
        place = batch["place"]
        table = scores[place.clamp(min=0)].masked_fill(place < 0, float("-inf"))
        return torch.nn.functional.cross_entropy(table, batch["labels"], reduction="sum")
