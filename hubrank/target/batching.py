"""From examples to batches: in which order, padded to which width, and onto the device without a wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Batch", "batch_order", "in_parts", "loaded", "padded", "sent"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples, padded: numpy arrays by name as they are collated, tensors once they are on the device.

    Attributes:
        inputs: what the model is called with, and what only its objective reads.
        rows: how many examples.
        weight: what the sum of their losses is divided by to be a mean.
        to_model: names of the inputs that go to the model.
    """

    inputs: Mapping[str, Any]
    rows: int
    weight: float
    to_model: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")

    def __getitem__(self, name: str) -> Any:
        return self.inputs[name]

    def model_inputs(self) -> dict[str, Any]:
        """The arguments of the model's forward."""
        return {name: self.inputs[name] for name in self.to_model if name in self.inputs}


def batch_order(lengths: NDArray[Any], *, steps: int, batch_size: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """``steps`` arrays of example numbers, examples of like length together.

    Each pass shuffles the examples, sorts within pools of eight batches by length, and shuffles the batches: padding falls
    to a few per cent while the order stays random. The last batch of a pass may be short; a single example left over joins
    the batch before it, or the longest of a small file would never be used.
    """
    random = np.random.default_rng(seed)
    pool, done = 8 * batch_size, 0
    while True:
        order = random.permutation(len(lengths))
        cut = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            cut += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        if len(cut) > 1 and len(cut[-1]) == 1:
            cut[-2:] = [np.concatenate(cut[-2:])]
        for i in random.permutation(len(cut)):
            if done == steps:
                return
            done += 1
            yield cut[i]


def in_parts(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """A batch cut into pieces of at most ``size`` examples, as even as can be."""
    return np.array_split(rows, -(-len(rows) // size))


def padded(rows: Sequence[Sequence[int]], fill: int, *, width: int | None = None) -> NDArray[np.int64]:
    """[rows, width] from rows of unequal length, filled up on the right."""
    wide = width if width is not None else max((len(row) for row in rows), default=0)
    out = np.full((len(rows), wide), fill, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def loaded(
    torch: Any, order: Iterator[NDArray[np.intp]], collate: Callable[[NDArray[np.intp]], Batch], device: str
) -> Iterator[tuple[NDArray[np.intp], Batch]]:
    """Batches on the device, each sent while the one before it is worked on: from pinned memory, without a wait."""
    ahead: tuple[NDArray[np.intp], Batch] | None = None
    for rows in order:
        batch = sent(torch, collate(rows), device)
        if ahead is not None:
            yield ahead
        ahead = rows, batch
    if ahead is not None:
        yield ahead


def sent(torch: Any, batch: Batch, device: str) -> Batch:
    """A batch as tensors on a device."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.inputs.items()}
    if device.startswith("cuda"):
        tensors = {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}
    elif device != "cpu":
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Batch(tensors, batch.rows, batch.weight, batch.to_model)
