"""Tiny random models with an adapter each, as the adapters library builds and saves them."""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

NAME = "a1"
DIM, LAYERS, HEADS, VOCAB = 32, 2, 4, 60
COMMON = {"hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 64}
T5 = {"d_model": DIM, "d_kv": 16, "d_ff": 64, "num_layers": LAYERS, "num_decoder_layers": 3, "num_heads": HEADS}
BART = {
    "d_model": DIM,
    "encoder_layers": LAYERS,
    "decoder_layers": 3,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "decoder_start_token_id": 2,
}
SETTINGS = {
    "bert": COMMON,
    "roberta": COMMON,
    "distilbert": {"dim": DIM, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64},
    "gpt2": {"n_embd": DIM, "n_layer": LAYERS, "n_head": HEADS},
    "t5": {**T5, "decoder_start_token_id": 0},
    "bart": BART,
    "llama": {**COMMON, "num_key_value_heads": 2},
    "modernbert": {**COMMON, "pad_token_id": 0, "attn_implementation": "eager", "reference_compile": False},
}
FAMILIES = tuple(SETTINGS)


def bare_model(family):
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.for_model(family, vocab_size=VOCAB, **SETTINGS[family]))


def model_with(family, config, *, base_class=False, seed=1, name=NAME):
    """A model in which every parameter of one adapter is random: many start at zero, which would prove nothing."""
    import adapters

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        if base_class or family == "modernbert":
            model = bare_model(family)
            adapters.init(model)
        else:
            from transformers import AutoConfig

            settings = AutoConfig.for_model(family, vocab_size=VOCAB, **SETTINGS[family])
            model = adapters.AutoAdapterModel.from_config(settings)
        model.add_adapter(name, config=config)
        model.set_active_adapters(name)
        model.eval()
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if f".{name}." not in f".{key}":
            continue
        noise = torch.randn(parameter.shape, generator=generator) * 0.3
        # The diagonal of an orthogonal parametrisation holds signs, which training does not change.
        parameter.data = parameter.data + noise.triu(1) if "parametrizations" in key else noise
    return model


def saved(model, folder: Path, name=NAME):
    """adapter_config.json and the tensors as float32 arrays, from what save_adapter writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_adapter(str(folder), name, with_head=False)
    return folder_contents(folder)


def folder_contents(folder: Path):
    state = torch.load(folder / "pytorch_adapter.bin", map_location="cpu", weights_only=True)
    return json.loads((folder / "adapter_config.json").read_text()), arrays(state)


def arrays(state):
    return {key: value.detach().float().numpy().copy() for key, value in state.items()}


@lru_cache(maxsize=64)
def example(family, config, **settings):
    """The config and tensors of a saved adapter; do not change them."""
    with tempfile.TemporaryDirectory() as folder:
        return saved(model_with(family, config, **settings), Path(folder))


def read(config, tensors, base_tensors=None):
    """What sync will do: choose the tensors by their names, then read only those."""
    from hubrank.checkpoints.adapters_families import read_adapters, wanted_adapters_tensors

    wanted = wanted_adapters_tensors(tensors, config)
    return read_adapters(config, {key: tensors[key] for key in wanted}, "base", base_tensors)


def read_one(config, tensors, base_tensors=None):
    (adapter,) = read(config, tensors, base_tensors)
    return adapter


def full(delta):
    return delta.up @ delta.down


def inputs(family, batch=2, length=7):
    torch.manual_seed(3)
    ids = torch.randint(3, VOCAB, (batch, length))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family in {"t5", "bart"}:
        given["decoder_input_ids"] = ids[:, :5]
    return given


class StateDict:
    """Base tensors from a state dict, as BaseTensors gives them."""

    def __init__(self, state):
        self._state = arrays(state)

    def get(self, name):
        return self._state.get(name)


class Context:
    """Stands for what the library lets modules see during a forward pass of the whole model."""

    def __init__(self, model):
        self.shared_parameters = model.base_model.shared_parameters

    def __call__(self):
        return self


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=1e-5)
