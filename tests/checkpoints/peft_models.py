"""Tiny random models tuned by the real peft: what it saves, and what merging changes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.peft_families import read_peft, wanted_peft_tensors
from hubrank.types import Adapter

BASE = "org/tiny"


@dataclass(frozen=True)
class Tuned:
    """One adapter: its files, the base's weights, and what the library says it does."""

    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.float32]]
    base: Mapping[str, NDArray[np.float32]]
    changes: Mapping[str, NDArray[np.float32]]
    """Of the weight of each changed module as [d_out, d_in], and of each changed vector, by parameter name."""
    model: Any

    def read(self, *, base: bool = False, **config: Any) -> Adapter:
        """As sync reads it, with or without the base weights; ``config`` changes fields."""
        fields = {**self.config, **config}
        names = wanted_peft_tensors(self.tensors, fields)
        return read_peft(fields, {n: self.tensors[n] for n in names}, BASE, base_tensors=self.base if base else None)


def tiny_model(kind: str) -> Any:
    """A model of hidden size 32 with two layers, all weights random."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 40}
    llama = {**bert, "num_key_value_heads": 2}
    t5 = {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4, "vocab_size": 40}
    make = {
        "bert": lambda: t.BertModel(t.BertConfig(max_position_embeddings=16, **bert)),
        "bert-head": lambda: t.BertForSequenceClassification(t.BertConfig(max_position_embeddings=16, **bert)),
        "gpt2": lambda: t.GPT2Model(t.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4)),
        "gpt2-lm": lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4)),
        "llama": lambda: t.LlamaModel(t.LlamaConfig(max_position_embeddings=16, **llama)),
        "llama-lm": lambda: t.LlamaForCausalLM(t.LlamaConfig(max_position_embeddings=16, **llama)),
        "t5": lambda: t.T5ForConditionalGeneration(t.T5Config(**t5, decoder_start_token_id=0)),
    }
    model = make[kind]()
    with torch.no_grad():  # norms and biases too, which start at ones and zeros
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    model.name_or_path = BASE
    model.config._name_or_path = BASE
    return model.eval()


def tune(kind: str, config: Any, folder: Path, *, sd: float = 0.3, merge: bool = True, seed: int = 1) -> Tuned:
    """Give a tiny model an adapter with random numbers (defaults often are zeros), save it as peft does, and merge it."""
    import torch
    from peft import get_peft_model
    from safetensors.numpy import load_file

    model = tiny_model(kind)
    base = {name: value.detach().clone().numpy() for name, value in model.named_parameters()}
    kept_transposed = _kept_transposed(model)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own advice on how to train
        tuned = get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if parameter.requires_grad:
                    centre = 1.0 if any(part in name for part in ("ia3_l", "boft_s", "ln_tuning", "magnitude")) else 0.0
                    parameter.copy_(centre + sd * torch.randn_like(parameter))
        tuned.save_pretrained(folder, save_embedding_layers=False)
        tensors = load_file(folder / "adapter_model.safetensors")
        changes = _changes(tuned.merge_and_unload(), base, kept_transposed) if merge else {}
    if kind == "bert-head":
        base = {name.removeprefix("bert."): value for name, value in base.items()}
    return Tuned(json.loads((folder / "adapter_config.json").read_text()), tensors, base, changes, tuned)


def _kept_transposed(model: Any) -> set[str]:
    """Modules whose weight is kept as [d_in, d_out]."""
    kinds = ("Conv1D", "Embedding")
    return {name for name, module in model.named_modules() if type(module).__name__ in kinds}


def _changes(merged: Any, base: Mapping[str, NDArray], kept_transposed: set[str]) -> dict[str, NDArray]:
    changes = {}
    for name, value in merged.named_parameters():
        change = value.detach().numpy() - base[name]
        if np.abs(change).max() > 0:
            module, _, leaf = name.rpartition(".")
            changes[name] = change.T if leaf == "weight" and module in kept_transposed else change
    return changes


def assert_exact(tuned: Tuned, adapter: Adapter, *, atol: float = 1e-5) -> None:
    """Every changed weight is a delta's up @ down, every changed bias of such a module its shift, and nothing else is there."""
    weights = {name.removesuffix(".weight"): c for name, c in tuned.changes.items() if name.endswith(".weight")}
    deltas = {delta.site: delta for delta in adapter.deltas}
    assert {site_of(module) for module in weights} == set(deltas)
    for module, change in weights.items():
        delta = deltas[site_of(module)]
        assert delta.up.dtype == delta.down.dtype == np.float32
        assert np.abs(change).max() > 1e-2, "or the comparison says nothing"
        np.testing.assert_allclose(delta.up.astype(np.float64) @ delta.down, change, atol=atol, rtol=0)
        bias = tuned.changes.get(f"{module}.bias")
        if bias is not None and adapter.method != "ia3":
            np.testing.assert_allclose(delta.shift, bias, atol=atol, rtol=0)
