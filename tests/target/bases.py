"""Tiny random bases of every kind, as folders on disk, and rows for every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hubrank.target.base import BaseModel
from hubrank.target.frameworks import import_torch, import_transformers
from hubrank.target.methods import Placement
from tests.ranking.builders import make_base

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40))]
KINDS = ("bert", "gpt2", "llama", "t5", "bart")
ADAPTED = {
    "bert": ("attention.self.query", "attention.self.value"),
    "gpt2": ("attn.c_attn",),
    "llama": ("self_attn.q_proj", "self_attn.v_proj"),
    "t5": ("SelfAttention.q", "SelfAttention.v"),
    "bart": ("self_attn.q_proj", "self_attn.v_proj"),
}
TASKS = ("classification", "regression", "multi-label", "multiple-choice", "tagging", "qa", "causal-lm", "seq2seq")


def make_kind(kind: str, folder: Path) -> BaseModel:
    """A random model of two layers and 32 dimensions; GPT-2's tokenizer has no padding token."""
    if kind == "bert":
        return make_base(folder)
    torch, transformers = import_torch(), import_transformers()
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    padding = {} if kind == "gpt2" else {"pad_token": "[PAD]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="[SEP]", model_max_length=128, **padding
    ).save_pretrained(folder)
    n = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    two = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    llama = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    make = {
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**n, n_embd=32, n_layer=2, n_head=2, n_positions=128)
        ),
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**n, **llama, num_key_value_heads=2, max_position_embeddings=128)
        ),
        "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**n, **t5)),
        "bart": lambda: transformers.BartForConditionalGeneration(
            transformers.BartConfig(
                **n, **two, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128,
                decoder_start_token_id=2,
            )
        ),
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        make[kind]().save_pretrained(folder)
    return BaseModel(f"tiny/{kind}", folder, "folder")


def placed(model: Any, kind: str, method: str) -> Placement:
    """A placement of size 4 on such a model."""
    if method == "bias":
        return Placement(method, tuple(n for n, p in model.named_parameters() if p.ndim == 1))
    modules = tuple(name for name, _ in model.named_modules() if name.endswith(ADAPTED[kind]))
    return Placement(method, modules if method in ("lora", "ia3") else (), 4, 8.0)


def rows_of(task: str, n: int = 16) -> list[dict[str, Any]]:
    """Rows over w0 to w39."""
    random = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(f"w{w}" for w in random.integers(0, 40, count))

    def row(i: int) -> dict[str, Any]:  # noqa: PLR0911 -- one a task
        text = words(int(random.integers(3, 12)))
        match task:
            case "classification":
                return {"text": text, "label": ("a", "b")[i % 2]}
            case "regression":
                return {"text": text, "text_pair": words(4), "label": i * 0.37}
            case "multi-label":
                return {"text": text, "labels": (["a"], ["a", "b"], ["c"])[i % 3]}
            case "multiple-choice":
                return {"question": text, "choices": [words(2) for _ in range(3 + i % 2)], "label": i % 3}
            case "tagging":
                return {"tokens": text.split(), "tags": ["X" if int(w[1:]) < 20 else "O" for w in text.split()]}
            case "qa":
                context = words(60 + 10 * i).split()
                at = int(random.integers(0, len(context) - 2))
                start = len(" ".join(context[:at])) + (at > 0)
                answer = {"text": [" ".join(context[at : at + 2])], "answer_start": [start]}
                return {"question": words(4), "context": " ".join(context), "answers": answer}
            case "causal-lm":
                return {"prompt": text, "completion": " " + words(4)}
            case _:
                return {"source": text, "target": words(4)}

    return [row(i) for i in range(n)]
