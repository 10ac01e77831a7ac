"""Prefixes and prompts against what the real peft feeds to the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.peft_prompts import read_multitask, read_prefix, read_prompt
from hubrank.errors import AdapterError
from tests.checkpoints.peft_models import tune

PREFIX = {
    "gpt2": ("gpt2-lm", "CAUSAL_LM", {}),
    "projected": ("gpt2-lm", "CAUSAL_LM", {"prefix_projection": True, "encoder_hidden_size": 12}),
    "grouped heads": ("llama-lm", "CAUSAL_LM", {}),
    "bert": ("bert-head", "SEQ_CLS", {}),
    "encoder-decoder": ("t5", "SEQ_2_SEQ_LM", {}),
}
PREFIX_CONFIG = {"num_virtual_tokens": 3, "num_layers": 2, "token_dim": 8, "num_attention_heads": 2}
PROMPT_CONFIG = {"num_virtual_tokens": 3, "token_dim": 8}


def prefix(folder, case):
    from peft import PrefixTuningConfig

    kind, task, config = PREFIX[case]
    return tune(kind, PrefixTuningConfig(task_type=task, num_virtual_tokens=5, **config), folder, merge=False)


def fed_to_attention(model):
    """(keys, values) [P, heads * head size] of each layer."""
    import torch

    with torch.no_grad():
        cache = model.get_prompt(batch_size=1)
    cache = getattr(cache, "self_attention_cache", cache)
    flat = [[t[0].transpose(0, 1).flatten(1).numpy() for t in (layer.keys, layer.values)] for layer in cache.layers]
    return [tuple(pair) for pair in flat]


@pytest.mark.parametrize("case", PREFIX)
def test_keys_and_values_are_what_peft_feeds_to_attention(case, tmp_path):
    tuned = prefix(tmp_path, case)
    adapter = tuned.read()
    assert (adapter.method, adapter.variant, adapter.warnings) == ("prefix", "prefix", ())
    layers = fed_to_attention(tuned.model)
    deltas = {(delta.site.layer, delta.site.module): delta for delta in adapter.deltas}
    assert len(deltas) == 3 * len(layers)
    assert {delta.site.stack for delta in adapter.deltas} == {"decoder" if case == "encoder-decoder" else ""}
    for i, (keys, values) in enumerate(layers):
        product = deltas[i, "prefix.product"]
        np.testing.assert_allclose(product.down, keys, atol=1e-6)
        np.testing.assert_allclose(product.up, values.T, atol=1e-6)
        np.testing.assert_allclose(deltas[i, "prefix.key"].shift, keys.mean(0), atol=1e-6)
        np.testing.assert_allclose(deltas[i, "prefix.value"].shift, values.mean(0), atol=1e-6)
        assert deltas[i, "prefix.key"].up.shape == (keys.shape[1], 0)


PROMPTS = {
    "prompt": ("PromptTuningConfig", "gpt2-lm", "CAUSAL_LM", {}),
    "prompt of an encoder-decoder": ("PromptTuningConfig", "t5", "SEQ_2_SEQ_LM", {}),
    "prompt of an encoder only": ("PromptTuningConfig", "t5", "SEQ_2_SEQ_LM", {"num_transformer_submodules": 1}),
    "p-tuning": ("PromptEncoderConfig", "bert-head", "SEQ_CLS", {"encoder_hidden_size": 12}),
    "p-tuning with an lstm": (
        "PromptEncoderConfig",
        "gpt2-lm",
        "CAUSAL_LM",
        {"encoder_hidden_size": 12, "encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.0},
    ),
    "multitask": ("MultitaskPromptTuningConfig", "t5", "SEQ_2_SEQ_LM", {"num_ranks": 2, "num_tasks": 1}),
}


def tuned_prompt(folder, case):
    import peft

    name, kind, task, config = PROMPTS[case]
    return tune(kind, getattr(peft, name)(task_type=task, num_virtual_tokens=5, **config), folder, merge=False)


@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_is_what_peft_puts_before_the_text(case, tmp_path):
    import torch

    tuned = tuned_prompt(tmp_path, case)
    adapter = tuned.read()
    with torch.no_grad():
        fed = tuned.model.eval().get_prompt(batch_size=1, task_ids=torch.tensor([0]))[0].numpy()
    assert adapter.method == "prompt"
    assert (
        adapter.variant
        == {"prompt": "prompt", "p-tuning": "p-tuning", "multitask": "multitask-prompt"}[case.split(" ", maxsplit=1)[0]]
    )
    assert [delta.site.module for delta in adapter.deltas] == ["prompt"] * (len(fed) // 5)
    assert [delta.site.stack for delta in adapter.deltas] == ["", "decoder"][: len(fed) // 5]
    for delta, half in zip(adapter.deltas, np.split(fed, len(fed) // 5), strict=True):
        assert delta.site.layer == 0
        np.testing.assert_allclose(delta.down, half, atol=1e-6)
        np.testing.assert_allclose(delta.up, half.T, atol=1e-6)
        units = half / np.linalg.norm(half, axis=1, keepdims=True)
        np.testing.assert_allclose(delta.shift, units.mean(0), atol=1e-6)


def test_several_tasks_are_the_mean_that_peft_starts_a_new_one_from(tmp_path):
    import torch
    from peft import MultitaskPromptTuningConfig
    from safetensors.numpy import load_file

    shape = {"num_ranks": 2, "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 5}
    tuned = tune("t5", MultitaskPromptTuningConfig(num_tasks=3, **shape), tmp_path / "three", merge=False)
    adapter = tuned.read()
    assert "mean of its 3 tasks" in adapter.warnings[0]
    path = str(tmp_path / "three" / "adapter_model.safetensors")
    new = MultitaskPromptTuningConfig(
        **shape, prompt_tuning_init="AVERAGE_SOURCE_TASKS", prompt_tuning_init_state_dict_path=path
    )
    from peft import get_peft_model

    from tests.checkpoints.peft_models import tiny_model

    model = get_peft_model(tiny_model("t5"), new)
    with torch.no_grad():
        fed = model.get_prompt(batch_size=1, task_ids=torch.tensor([0]))[0].numpy()
    np.testing.assert_allclose(np.concatenate([delta.down for delta in adapter.deltas]), fed, atol=1e-6)
    assert load_file(path)["prefix_task_cols"].shape[0] == 3


@given(st.permutations(range(3)), st.integers(0, 2**32 - 1))
def test_the_order_of_tokens_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    for read, config, width in ((read_prefix, PREFIX_CONFIG, 32), (read_prompt, PROMPT_CONFIG, 8)):
        tokens = rng.standard_normal((3, width)).astype(np.float32)
        one = read(config, {"prompt_embeddings": tokens}, "b").deltas
        other = read(config, {"prompt_embeddings": tokens[list(order)]}, "b").deltas
        for mine, theirs in zip(one, other, strict=True):
            assert mine.site == theirs.site
            np.testing.assert_allclose(mine.up @ mine.down, theirs.up @ theirs.down, atol=1e-4)
            if mine.shift is not None:
                np.testing.assert_allclose(mine.shift, theirs.shift, atol=1e-4)


@pytest.mark.parametrize(
    ("read", "config", "shape", "reason"),
    [
        (read_prefix, {**PREFIX_CONFIG, "num_layers": 3}, (3, 32), "shape mismatch"),
        (read_prefix, {**PREFIX_CONFIG, "num_attention_heads": 3}, (3, 32), "bad config"),
        (read_prefix, {**PREFIX_CONFIG, "num_layers": 1 << 20}, (3, 32), "bad config"),
        (read_prefix, {**PREFIX_CONFIG, "num_layers": None}, (3, 32), "bad config"),
        (read_prefix, {**PREFIX_CONFIG, "num_virtual_tokens": 4}, (3, 32), "shape mismatch"),
        (read_prefix, PREFIX_CONFIG, (3, 0), "shape mismatch"),
        (read_prefix, PREFIX_CONFIG, None, "no weights"),
        (read_prompt, {**PROMPT_CONFIG, "token_dim": 7}, (3, 8), "shape mismatch"),
        (read_prompt, {**PROMPT_CONFIG, "num_transformer_submodules": 2}, (3, 8), "shape mismatch"),
        (read_prompt, {**PROMPT_CONFIG, "num_transformer_submodules": 3}, (9, 8), "bad config"),
        (read_prompt, PROMPT_CONFIG, (3,), "shape mismatch"),
        (read_multitask, PROMPT_CONFIG, (3, 8), "incomplete"),
    ],
)
def test_a_prompt_that_is_wrong(read, config, shape, reason):
    tensors = {} if shape is None else {"prompt_embeddings": np.ones(shape, np.float32)}
    with pytest.raises(AdapterError) as caught:
        read(config, tensors, "b")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("cols", "rows", "config"),
    [
        ((1, 4, 2), (1, 2, 8), {}),
        ((1, 3, 2), (1, 3, 8), {}),
        ((1, 3, 2), (2, 2, 8), {}),
        ((1, 3, 2), (1, 2, 8), {"num_ranks": 3}),
    ],
)
def test_a_multitask_prompt_that_is_wrong(cols, rows, config):
    shapes = {"prompt_embeddings": (3, 8), "prefix_task_cols": cols, "prefix_task_rows": rows}
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(AdapterError, match="shape mismatch"):
        read_multitask({**PROMPT_CONFIG, "num_ranks": 2, **config}, tensors, "b")
