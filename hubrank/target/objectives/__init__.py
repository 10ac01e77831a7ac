"""What is learnt, task by task: rows to examples, the head on top, and the loss.

The head is new and thrown away: what counts is where the task pushes the method's own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from hubrank.target.architecture import Architecture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hubrank.target.batching import Batch
    from hubrank.target.task import Target, TaskKind

__all__ = ["SIZES", "Objective", "Reader", "Sizes", "objective_for"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows a batch and tokens an example where nobody says otherwise."""

    batch: int
    tokens: int


SIZES: Mapping[TaskKind, Sizes] = MappingProxyType(
    {
        "classification": Sizes(16, 128),
        "multi-label": Sizes(16, 128),
        "regression": Sizes(16, 128),
        "multiple-choice": Sizes(8, 128),
        "tagging": Sizes(16, 128),
        "qa": Sizes(8, 256),
        "causal-lm": Sizes(8, 512),
        "seq2seq": Sizes(8, 512),
    }
)


@dataclass(frozen=True, slots=True)
class Reader:
    """How a base model reads.

    Attributes:
        tokenizer, architecture: its own.
        room: the most tokens that an example may have.
        start: the token that decoding starts from.
        kinds: whether it tells the two texts of a pair apart by token types.
    """

    tokenizer: Any
    architecture: Architecture
    room: int
    start: int = 0
    kinds: bool = False


class Objective(Protocol):
    """A task as the tuning loop sees it.

    Attributes:
        lengths: [n] tokens of each example, by which examples of like length come together.
        outputs: of the linear head on the hidden states; 0 where the model's own language head is used.
        notes: what was cut or left out, one sentence each.
    """

    lengths: NDArray[np.int64]
    outputs: int
    notes: tuple[str, ...]

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Some examples as numpy arrays."""

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:
        """The sum of the losses of a batch: over ``batch.weight`` it is their mean."""


def objective_for(target: Target, reader: Reader) -> Objective:
    """The objective of a target's task.

    Raises:
        BaseModelError: the base model's tokenizer cannot tell where its tokens lie in a text, which tagging and qa need.
        TargetError: nothing is left to learn from once the rows are cut to what the model can read.
    """
    from hubrank.target.objectives.language import Completions, Rewrites
    from hubrank.target.objectives.pooled import Choices, Pooled
    from hubrank.target.objectives.tokens import Spans, Tags

    if target.task in ("causal-lm", "seq2seq"):
        return Rewrites(target, reader) if reader.architecture == "encoder-decoder" else Completions(target, reader)
    if target.task == "multiple-choice":
        return Choices(target, reader)
    if target.task == "tagging":
        return Tags(target, reader)
    if target.task == "qa":
        return Spans(target, reader)
    return Pooled(target, reader)
