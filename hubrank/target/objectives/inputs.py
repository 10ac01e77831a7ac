"""Tokenised texts, and their arrays for the model: shared by all tasks that read hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import BaseModelError
from hubrank.target.batching import padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.objectives import Reader

__all__ = ["Encoded", "cut_note", "encode", "fast_tokenizer", "hidden_states", "pooled_states"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of each text, and token types where the model tells two texts apart by them."""

    ids: Sequence[Sequence[int]]
    kinds: Sequence[Sequence[int]] | None
    cut: int

    def arrays(self, reader: Reader, rows: Sequence[int]) -> dict[str, NDArray[np.int64]]:
        """What the model is called with for some of the texts."""
        ids = [self.ids[row] for row in rows]
        out = model_arrays(reader, ids)
        if self.kinds is not None:
            out["token_type_ids"] = padded([self.kinds[row] for row in rows], 0)
        return out


def model_arrays(reader: Reader, ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """ids and mask, [rows, width] each; for an encoder-decoder the same ids, one to the right, for the decoder."""
    out = {
        "input_ids": padded(ids, reader.tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
    }
    if reader.architecture == "encoder-decoder":
        # As transformers' own heads for BART and T5 do: the decoder reads the text again.
        out["decoder_input_ids"] = padded([[reader.start, *row[:-1]] for row in ids], reader.tokenizer.pad_token_id)
    return out


def encode(reader: Reader, texts: Sequence[str], pairs: Sequence[str] | None) -> Encoded:
    """Tokenise texts or pairs of texts, cut to the reader's room."""
    encoded = reader.tokenizer(list(texts), None if pairs is None else list(pairs), truncation=True, max_length=reader.room)
    kinds = encoded.get("token_type_ids") if pairs is not None and reader.kinds else None
    ids = [row or [reader.tokenizer.pad_token_id] for row in encoded["input_ids"]]
    # A text that fills its room exactly counts as cut: to know, it would have to be tokenised twice.
    return Encoded(ids, kinds, sum(len(row) >= reader.room for row in ids))


def cut_note(cut: int, room: int) -> tuple[str, ...]:
    """The sentence about rows that were cut."""
    return (f"{cut} row{'s' if cut > 1 else ''} cut to {room} tokens",) if cut else ()


def fast_tokenizer(reader: Reader, task: str) -> Any:
    """The tokenizer, if it can tell where its tokens lie in the text.

    Raises:
        BaseModelError: it cannot.
    """
    if not reader.tokenizer.is_fast:
        kind = type(reader.tokenizer).__name__
        raise BaseModelError(
            f"{kind} does not tell where its tokens lie in the text, which {task} needs; choose another --base"
        )
    return reader.tokenizer


def hidden_states(out: Any, width: int) -> Any:
    """[rows, width, d] of the user's own tokens: what a soft prompt put in front is left out."""
    return out.last_hidden_state[:, -width:]


def pooled_states(torch: Any, out: Any, mask: Any, *, last: bool) -> Any:
    """[rows, d] from [rows, width, d]: the mean over the real tokens or, of a decoder, the last of them."""
    states = hidden_states(out, mask.shape[1])
    if last:
        ends = mask.sum(1) - 1
        return states[torch.arange(len(ends), device=ends.device), ends]
    weight = mask[:, :, None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)
