"""How good a tuned model is on rows that it did not see: one figure a task, stated by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.target.features import batches_of
from hubrank.target.frameworks import import_torch
from hubrank.target.objectives import objective_for
from hubrank.target.objectives.tokens import IGNORED
from hubrank.target.scoring_spans import span_f1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.batching import Batch
    from hubrank.target.task import Target, TaskKind
    from hubrank.target.tuning import Tuned
    from hubrank.types import FloatArray

__all__ = ["METRICS", "Metric", "score_of"]

_OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured; ``sign`` is 1 where more is better and -1 where less is."""

    name: str
    sign: int = 1


METRICS: Mapping[TaskKind, Metric] = MappingProxyType(
    {
        "classification": Metric("accuracy"),
        "multi-label": Metric("micro-f1"),
        "regression": Metric("spearman"),
        "multiple-choice": Metric("accuracy"),
        "tagging": Metric("tag-f1"),
        "qa": Metric("answer-f1"),
        "causal-lm": Metric("loss", -1),
        "seq2seq": Metric("loss", -1),
    }
)
"""Accuracy over rows; F1 over all (row, class) pairs, a class being said where its probability is over a half; Spearman's rank
correlation, 0 where either side is constant; F1 over words whose tag is not O; SQuAD's word F1, the mean over rows of the best
answer's; and the mean loss of an answer's token, in nats."""


def score_of(tuned: Tuned, target: Target) -> float:
    """The task's metric over all rows of a target.

    Args:
        target: rows that were held out, with the classes of the whole.

    Raises:
        BaseModelError: one row alone does not fit the device.
        TargetError: the rows hold nothing that could be scored.
    """
    torch = import_torch()
    if target.task == "qa":
        return span_f1(torch, tuned, target)
    objective = objective_for(target, tuned.reader)
    model = tuned.attached.model.eval()
    measure = _MEASURES[target.task](target)
    catch = _Catch(tuned.head)
    for rows, batch, out in batches_of(torch, model, objective, tuned.device):
        with torch.inference_mode():
            loss = objective.loss(torch, out, catch, batch)
        measure.add(rows, batch, catch.outputs(), float(loss))
    return measure.value()


class _Catch:
    """A head that keeps what it gave."""

    def __init__(self, head: Any) -> None:
        self._head = head
        self._values: Any = None

    def __call__(self, states: Any) -> Any:
        self._values = self._head(states)
        return self._values

    def outputs(self) -> FloatArray:
        """Of the last batch; empty where the model has a head of its own."""
        return np.empty(0, np.float32) if self._values is None else self._values.float().cpu().numpy()


class _Measure:
    """Adds up what batches say."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._right = self._said = self._there = 0.0

    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:
        raise NotImplementedError

    def value(self) -> float:
        """The part that was right."""
        return self._right / max(1.0, self._there)

    def _f1(self) -> float:
        return 2 * self._right / (self._said + self._there) if self._said + self._there else 1.0


class _Accuracy(_Measure):
    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:  # noqa: ARG002
        truth = np.asarray(self._target.labels)[rows]
        self._right += float((outputs.argmax(axis=1) == truth).sum())
        self._there += len(rows)


class _Choice(_Measure):
    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:  # noqa: ARG002
        place = batch["place"].cpu().numpy()
        scores = np.where(place < 0, -np.inf, outputs[:, 0][np.maximum(place, 0)])
        self._right += float((scores.argmax(axis=1) == np.asarray(self._target.labels)[rows]).sum())
        self._there += len(rows)


class _Labels(_Measure):
    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:  # noqa: ARG002
        said, truth = outputs > 0, batch["labels"].cpu().numpy() > 0
        self._right += float((said & truth).sum())
        self._said += float(said.sum())
        self._there += float(truth.sum())

    def value(self) -> float:
        return self._f1()


class _Tags(_Measure):
    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:  # noqa: ARG002
        labels = batch["labels"].cpu().numpy()
        outside = self._target.classes.index(_OUTSIDE) if _OUTSIDE in self._target.classes else -1
        there = labels != IGNORED
        said, truth = outputs.argmax(axis=2)[there], labels[there]
        self._right += float(((said == truth) & (truth != outside)).sum())
        self._said += float((said != outside).sum())
        self._there += float((truth != outside).sum())

    def value(self) -> float:
        return self._f1()


class _Spearman(_Measure):
    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._values = np.zeros(len(target))

    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:  # noqa: ARG002
        self._values[rows] = outputs[:, 0]

    def value(self) -> float:
        mine, truth = _ranks(self._values), _ranks(np.asarray(self._target.labels, dtype=np.float64))
        mine, truth = mine - mine.mean(), truth - truth.mean()
        length = float(np.sqrt((mine**2).sum() * (truth**2).sum()))
        return float((mine * truth).sum() / length) if length > 0 else 0.0


class _Loss(_Measure):
    def add(self, rows: NDArray[np.intp], batch: Batch, outputs: FloatArray, loss: float) -> None:  # noqa: ARG002
        self._right += loss
        self._there += batch.weight


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return ranks


_MEASURES: Mapping[TaskKind, Callable[[Target], _Measure]] = MappingProxyType(
    {
        "classification": _Accuracy,
        "multi-label": _Labels,
        "regression": _Spearman,
        "multiple-choice": _Choice,
        "tagging": _Tags,
        "causal-lm": _Loss,
        "seq2seq": _Loss,
    }
)
