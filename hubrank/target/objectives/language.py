"""Tasks whose answer is text: completions by a decoder, rewrites by an encoder-decoder. Only the answer is learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import TargetError
from hubrank.target.batching import Batch, padded
from hubrank.target.objectives.inputs import cut_note, encode, model_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.objectives import Reader
    from hubrank.target.task import Target, Turn

__all__ = ["Completions", "Rewrites"]

_ANSWER_ROOM = 0.75  # of a long row the answer keeps at most so much of the room, the prompt what is left
_SEPARATOR = "\n"  # between a source text and its rewrite, where a decoder reads both


class Completions:
    """Prompt and answer in one row, the loss on the answer alone; chats in the form that the model's template gives them."""

    outputs = 0

    def __init__(self, target: Target, reader: Reader) -> None:
        self._reader = reader
        prompts, answers, self.notes = _as_text(target, reader.tokenizer)
        self._ids: list[list[int]] = []
        self._asked: list[int] = []
        cut = 0
        for prompt, answer in zip(_encoded(reader, prompts), _answers(reader, answers), strict=True):
            kept = answer[: max(1, int(reader.room * _ANSWER_ROOM))] if len(prompt) + len(answer) > reader.room else answer
            # The end of a prompt is nearest to the answer.
            asked = prompt[max(0, len(prompt) + len(kept) - reader.room) :]
            # The first token of all is predicted from nothing.
            start = asked or _opening(reader.tokenizer)
            cut += len(kept) < len(answer) or len(asked) < len(prompt)
            self._ids.append([*start, *kept])
            self._asked.append(len(start))
        if not any(len(ids) > asked for ids, asked in zip(self._ids, self._asked, strict=True)):
            raise TargetError(target.path, "no answer has a token to learn from")
        self.lengths = np.array([len(row) for row in self._ids], dtype=np.int64)
        self.notes = (*self.notes, *cut_note(cut, reader.room))

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Rows [rows, width]; ``places`` [answers] of the logits that predict ``answers``, in the flattened batch."""
        ids = [self._ids[row] for row in rows]
        width = max(map(len, ids))
        places: list[int] = []
        answers: list[int] = []
        for i, (row, one) in enumerate(zip(rows.tolist(), ids, strict=True)):
            asked = max(1, self._asked[row])
            places += range(i * width + asked - 1, i * width + len(one) - 1)
            answers += one[asked:]
        arrays = model_arrays(self._reader, ids)
        return Batch({**arrays, **_indices(places, answers)}, len(rows), float(max(1, len(places))))

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:  # noqa: ARG002
        """The sum over the tokens of the answers."""
        return _token_loss(torch, out, batch)


class Rewrites:
    """The source goes into the encoder, the answer into the decoder."""

    outputs = 0

    def __init__(self, target: Target, reader: Reader) -> None:
        self._reader = reader
        prompts, outputs, notes = _as_text(target, reader.tokenizer, separator="")
        self._encoded = encode(reader, prompts, None)
        found = reader.tokenizer(text_target=list(outputs), truncation=True, max_length=reader.room)["input_ids"]
        self._answers = [row or [reader.tokenizer.pad_token_id] for row in found]
        cut = sum(len(row) >= reader.room for row in self._answers)
        self.lengths = np.array(
            [len(a) + len(b) for a, b in zip(self._encoded.ids, self._answers, strict=True)], dtype=np.int64
        )
        self.notes = (*notes, *cut_note(max(cut, self._encoded.cut), reader.room))

    def collate(self, rows: NDArray[np.intp]) -> Batch:
        """Sources [rows, width] and answers, one to the right, [rows, answer width]."""
        answers = [self._answers[row] for row in rows]
        arrays = self._encoded.arrays(self._reader, rows.tolist())
        arrays["decoder_input_ids"] = padded(
            [[self._reader.start, *row[:-1]] for row in answers], self._reader.tokenizer.pad_token_id
        )
        width = arrays["decoder_input_ids"].shape[1]
        places = [i * width + j for i, row in enumerate(answers) for j in range(len(row))]
        tokens = [token for row in answers for token in row]
        return Batch({**arrays, **_indices(places, tokens)}, len(rows), float(len(tokens)))

    def loss(self, torch: Any, out: Any, head: Any, batch: Batch) -> Any:  # noqa: ARG002
        """The sum over the tokens of the answers."""
        return _token_loss(torch, out, batch)


def _indices(places: Sequence[int], answers: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    return {"places": np.array(places, dtype=np.int64), "answers": np.array(answers, dtype=np.int64)}


def _token_loss(torch: Any, out: Any, batch: Batch) -> Any:
    # Places are known before the batch is sent: picking by a mask would make the host wait for the device.
    width = batch["decoder_input_ids" if "decoder_input_ids" in batch.inputs else "input_ids"].shape[1]
    logits = out.logits[:, -width:].flatten(0, 1).index_select(0, batch["places"])
    return torch.nn.functional.cross_entropy(logits.float(), batch["answers"], reduction="sum")


def _as_text(
    target: Target, tokenizer: Any, separator: str = _SEPARATOR
) -> tuple[Sequence[str], Sequence[str], tuple[str, ...]]:
    """Prompts and answers of a target."""
    if target.chats and getattr(tokenizer, "chat_template", None):
        rendered = [_rendered(tokenizer, chat) for chat in target.chats]
        pairs = [found or (text, output) for found, text, output in zip(rendered, target.texts, target.outputs, strict=True)]
        odd = rendered.count(None)
        notes = (f"{odd} chats do not fit the base model's template and are read as plain text",) if odd else ()
        return [prompt for prompt, _ in pairs], [answer for _, answer in pairs], notes
    joined = separator if target.task == "seq2seq" or target.chats else ""
    return [text + joined if text else text for text in target.texts], target.outputs, ()


def _rendered(tokenizer: Any, chat: Sequence[Turn]) -> tuple[str, str] | None:
    """A chat up to its last answer, and that answer, in the model's own form; None where its template refuses the chat."""
    from jinja2.exceptions import TemplateError

    turns = [{"role": turn.role, "content": turn.content} for turn in chat]
    try:
        prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return None
    return (prompt, whole[len(prompt) :]) if whole.startswith(prompt) and len(whole) > len(prompt) else None


def _encoded(reader: Reader, prompts: Sequence[str]) -> list[list[int]]:
    """Prompts as tokens: with what the tokenizer puts in front, without what it puts behind."""
    tokenizer = reader.tokenizer
    opening = _opening(tokenizer)
    found = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    # A template may have put the opening token there already.
    return [[*(opening if row[: len(opening)] != opening else []), *row] if row else [] for row in found]


def _opening(tokenizer: Any) -> list[int]:
    """What a row begins with: the tokenizer's beginning-of-text token, or the end-of-text token that GPT-2 was trained with."""
    token = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if t is not None), 0)
    return [int(token)]


def _answers(reader: Reader, answers: Sequence[str]) -> list[list[int]]:
    """Answers as tokens, with the end-of-text token behind them: when to stop is part of the task."""
    found = reader.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    end = reader.tokenizer.eos_token_id
    return [row if end is None or row[-1:] == [end] else [*row, end] for row in found]
