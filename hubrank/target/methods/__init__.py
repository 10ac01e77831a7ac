"""The methods that a target is tuned by, each through the library that publishes most of its adapters.

``attach`` puts one on a model, in place, and leaves nothing else of the model trainable. What is tuned is read back by the
same readers as published adapters (:mod:`hubrank.checkpoints`), so that target and sources are described alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hubrank.errors import AdapterError, BaseModelError
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["LEARNING_RATES", "METHODS", "Attached", "HeadKind", "Placement", "attach"]

HeadKind: TypeAlias = Literal["none", "causal-lm", "seq2seq-lm"]
"""What the loaded model ends in: its last hidden states, or the logits of a language model."""

LEARNING_RATES: Mapping[str, float] = MappingProxyType(
    {"lora": 1e-3, "bottleneck": 1e-3, "prefix": 3e-3, "prompt": 1e-2, "bias": 3e-3, "ia3": 1e-2}
)
"""Of AdamW, by method: the fewer numbers a method tunes, the faster each must move."""

METHODS = tuple(LEARNING_RATES)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model is tuned, by which method, and how large.

    Attributes:
        method: one of :data:`METHODS`.
        modules: full module paths for lora and ia3, parameter names for bias; the others have places of their own.
        size: rank of a LoRA, units of a bottleneck, tokens of a prefix or prompt.
        alpha: of a LoRA, whose update is scaled by alpha / size.
        variant: of a bottleneck: ``seq_bn``, ``double_seq_bn``, ``par_bn``, ``scaled_par_bn`` or ``attention_bn``.
        left_out: layers without a bottleneck or prefix.
        inputs: those of ``modules`` that an IA3 scales at their inputs.
        both_stacks: a prompt for the decoder, too.
    """

    method: str
    modules: tuple[str, ...] = ()
    size: int = 8
    alpha: float = 16.0
    variant: str = ""
    left_out: tuple[int, ...] = ()
    inputs: tuple[str, ...] = ()
    both_stacks: bool = False


@dataclass(frozen=True, slots=True)
class Attached:
    """A model with something to tune on it.

    Attributes:
        model: called as a model of transformers is.
        trained: its trainable parameters.
        virtual: tokens that the method puts in front of the user's.
        tensors: what its library would publish, float32, by key; copies, which further steps do not change.
        config: the adapter_config.json that its library would publish beside it; empty for biases, which have none.
        read: the same as an adapter of a base, by the reader of published ones.
    """

    model: Any
    trained: tuple[Any, ...]
    virtual: int
    tensors: Callable[[], dict[str, FloatArray]]
    config: Callable[[], dict[str, Any]]
    read: Callable[[str], Adapter]

    def adapter(self, base: str) -> Adapter:
        """What has been tuned so far.

        Raises:
            BaseModelError: it is not finite, or cannot be described.
        """
        try:
            return self.read(base)
        except AdapterError as error:
            raise BaseModelError(f"what was tuned on {base} cannot be compared ({error}); try another --seed") from error


def attach(model: Any, placement: Placement, *, head: HeadKind = "none") -> Attached:
    """Put a method on a model, in place.

    Raises:
        BaseModelError: the model has nowhere to put it, or the method's library cannot take the model.
    """
    from hubrank.target.methods import adapters_library, parameters, peft_library

    if placement.method in ("lora", "ia3", "prompt"):
        return peft_library.attach(model, placement, head)
    if placement.method in ("bottleneck", "prefix"):
        return adapters_library.attach(model, placement, head)
    if placement.method == "bias":
        return parameters.attach(model, placement)
    raise BaseModelError(f"--method {placement.method}: not a method that a target can be tuned by ({', '.join(METHODS)})")
