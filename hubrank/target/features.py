"""A target's rows as a source's model sees them, with what is to be predicted from them: what LogME looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import BaseModelError
from hubrank.target.architecture import architecture_of, head_kind
from hubrank.target.batching import Batch, in_parts, sent
from hubrank.target.frameworks import import_torch, in_bfloat16
from hubrank.target.memory import is_out_of_memory, release
from hubrank.target.methods import Attached, attach
from hubrank.target.objectives import objective_for
from hubrank.target.objectives.inputs import hidden_states, pooled_states
from hubrank.target.objectives.tokens import IGNORED
from hubrank.target.sampling import chosen_rows, subset
from hubrank.target.tuning import TuningPlan, reader_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.methods import Placement
    from hubrank.target.objectives import Objective, Reader
    from hubrank.target.task import Target, TaskKind
    from hubrank.types import FloatArray

__all__ = ["MOST_ROWS", "WITH_LABELS", "Features", "batches_of", "features_of", "labels_of"]

WITH_LABELS: tuple[TaskKind, ...] = ("classification", "regression", "multi-label", "tagging")
"""Tasks whose rows, or words, have a label each that can be read off a state; the others have none for LogME to explain."""

MOST_ROWS = 1000
_MOST_WORDS = 4000
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """States [n, d] float32 with their labels: [n] class numbers or values, or [n, classes] of zeros and ones."""

    states: FloatArray
    labels: NDArray[Any]


def features_of(
    model: Any,
    tokenizer: Any,
    target: Target,
    placement: Placement,
    *,
    device: str,
    start: Callable[[Attached], None] | None = None,
    on_rows: Callable[[int, int], None] | None = None,
) -> Features:
    """Run the rows of a target through a model with an adapter on it, once and without learning anything.

    A row is the mean over its tokens (of a decoder the last one), as the target's own head reads it; of tagging each word is
    its first token. At most :data:`MOST_ROWS` rows and 4,000 words are used, the same for every source.

    Args:
        model, tokenizer: from :func:`hubrank.target.base.load_base`; changed in place.
        placement, start: the adapter's shape, and what puts its numbers there.
        on_rows: called after each batch with (rows done, rows in all).

    Raises:
        AdapterError: by ``start``.
        BaseModelError: the model cannot take the method, does not fit the device, or its states are not finite.
    """
    torch = import_torch()
    target = subset(target, chosen_rows(len(target), MOST_ROWS, 0))
    head = head_kind(target.task, architecture_of(model.config), type(model).__name__)
    attached = attach(model, placement, head=head)
    if start is not None:
        start(attached)
    reader = reader_of(model, tokenizer, target, TuningPlan(placement))
    ready = attached.model.to(device).eval()
    objective = objective_for(target, reader)
    found: list[tuple[FloatArray, NDArray[Any]]] = []
    done = 0
    for rows, batch, out in batches_of(torch, ready, objective, device):
        found.append((_states(out, batch, target, reader), labels_of(target, batch, rows)))
        done += len(rows)
        if on_rows is not None:
            on_rows(done, len(target))
    states, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    if not np.isfinite(states).all():
        raise BaseModelError("its states are not finite")
    kept = chosen_rows(len(states), _MOST_WORDS, 0)
    return Features(states[kept], labels[kept])


def batches_of(
    torch: Any,
    model: Any,
    objective: Objective,
    device: str,
    *,
    size: int = _BATCH,
    before: Callable[[Batch], None] | None = None,
    shuffled: bool = False,
) -> Iterator[tuple[NDArray[np.intp], Batch, Any]]:
    """Every example once, those of like length together: their numbers, the batch on the device, and what the model gives.

    Where memory runs short, batches become smaller.

    Args:
        before: called with each batch before the model sees it; again with each part of one that did not fit.
        shuffled: batches come in a random order, always the same, instead of the shortest examples first.

    Raises:
        BaseModelError: one example alone does not fit the device.
    """
    kind, half = device.partition(":")[0], in_bfloat16(model, device)
    waiting = in_parts(np.argsort(objective.lengths, kind="stable"), size)[::-1]
    if shuffled:
        waiting = [waiting[i] for i in np.random.default_rng(0).permutation(len(waiting))]
    while waiting:
        rows = waiting.pop()
        try:
            with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
                batch = sent(torch, objective.collate(rows), device)
                if before is not None:
                    before(batch)
                out = model(**batch.model_inputs())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(torch, error):
                raise
            if len(rows) == 1:
                raise BaseModelError(f"one row does not fit the memory of {device}; choose a smaller --base") from error
            release(torch, device)
            waiting += in_parts(rows, -(-len(rows) // 2))[::-1]
            continue
        yield rows, batch, out


def labels_of(target: Target, batch: Batch, rows: NDArray[np.intp]) -> NDArray[Any]:
    """The labels of a batch's rows, or words, as :class:`Features` has them."""
    if target.task == "tagging":
        words: NDArray[Any] = batch["labels"].cpu().numpy()
        labels: NDArray[Any] = words[words != IGNORED]
        return labels
    if target.task == "multi-label":
        table = np.zeros((len(rows), len(target.classes)), dtype=np.float64)
        for i, row in enumerate(rows.tolist()):
            table[i, list(target.label_sets[row])] = 1.0
        return table
    values: NDArray[Any] = np.asarray(target.labels)[rows]
    return values


def _states(out: Any, batch: Batch, target: Target, reader: Reader) -> FloatArray:
    mask = batch["attention_mask"]
    if target.task == "tagging":
        states = hidden_states(out, mask.shape[1])[batch["labels"] != IGNORED]
    else:
        states = pooled_states(import_torch(), out, mask, last=reader.architecture == "decoder")
    found: FloatArray = states.float().cpu().numpy()
    return found
