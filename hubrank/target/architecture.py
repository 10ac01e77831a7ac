"""Encoder, decoder or both: what a base model can be tuned for, and with which head it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hubrank.errors import BaseModelError
from hubrank.target.frameworks import import_transformers

if TYPE_CHECKING:
    from hubrank.target.methods import HeadKind
    from hubrank.target.task import TaskKind

__all__ = ["GENERATES", "Architecture", "architecture_of", "head_kind", "longest_input"]

Architecture: TypeAlias = Literal["encoder", "decoder", "encoder-decoder"]

GENERATES: tuple[TaskKind, ...] = ("causal-lm", "seq2seq")
"""Tasks whose answer is text; the others end in a small head on the last hidden states."""

_ENDLESS = 1 << 20  # tokenizers that know no limit say 10^30


def architecture_of(config: Any) -> Architecture:
    """The kind of a transformers config.

    Models for masked text are encoders; transformers can turn some of them into decoders, and publishers do not.
    """
    import_transformers()
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    kind = getattr(config, "model_type", "")
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "decoder" if causal or getattr(config, "is_decoder", False) else "encoder"


def head_kind(task: TaskKind, architecture: Architecture, base: str) -> HeadKind:
    """What the model must end in for a task.

    Raises:
        BaseModelError: an encoder cannot write text.
    """
    if task not in GENERATES:
        return "none"
    if architecture == "encoder":
        raise BaseModelError(f"{base} is an encoder and writes no text, which {task} needs; choose another --base, or --task")
    return "causal-lm" if architecture == "decoder" else "seq2seq-lm"


def longest_input(config: Any, tokenizer: Any) -> int:
    """Tokens that a model can read at once, special ones and soft prompts included."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or _ENDLESS
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xmod"):
        positions -= (getattr(config, "pad_token_id", None) or 0) + 1  # they count positions from behind the padding's
    if getattr(config, "model_type", "") in ("t5", "mt5", "umt5", "longt5"):
        positions = _ENDLESS  # relative positions have no end
    return int(min(positions, getattr(tokenizer, "model_max_length", _ENDLESS), _ENDLESS))
