"""peft's prefix tuning, prompt tuning, p-tuning and multitask prompt tuning: trained vectors in front of the text.

Formulas (peft 0.21, ``peft_model.py``, ``get_prompt``): a prefix [P, 2 * layers * d], already projected when it was saved,
holds keys and values by turns, layer after layer; a prompt [P, d] is itself (the encoder of p-tuning is not saved), and a
multitask one is ``E * (cols @ rows)``. Tokens have no order that would mean anything, so deltas hold means and products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.peft_modules import adapter_of, vector_delta
from hubrank.checkpoints.soft_prompts import prompt_delta
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_multitask", "read_p_tuning", "read_prefix", "read_prompt", "wanted_multitask", "wanted_prompt"]

_PROMPT = "prompt_embeddings"
_MAX_LAYERS = 1 << 10
_TASKS = ("prefix_task_cols", "prefix_task_rows")


def wanted_prompt(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that prefixes and prompts need."""
    return [name for name in names if name == _PROMPT]


def wanted_multitask(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_multitask` needs."""
    return [name for name in names if name == _PROMPT or name in _TASKS]


def read_prefix(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn a prefix into three deltas a layer.

    ``prefix.key`` and ``prefix.value`` shift by the token means of keys and values; ``prefix.product`` maps
    query space to value space, up = values^T [d, P], down = keys [P, d], all heads side by side. An encoder-decoder has
    them in its decoder: peft gives decoder layer i what the file holds for layer 2 i, modulo the number of layers.

    Args:
        config: adapter_config.json.
        tensors: ``prompt_embeddings`` [P, 2 * layers * d].
        base: id of the base model.
        base_tensors: not needed.

    Raises:
        AdapterError: the tensor is missing, not finite, or not of the shape that the config gives it.
    """
    layers = fields.integer(config, "num_layers", default=0, high=_MAX_LAYERS)
    width = fields.integer(config, "token_dim", default=0)
    heads = fields.integer(config, "num_attention_heads", default=0)
    if width % heads:
        raise AdapterError("bad config", f"token_dim {width} is no multiple of {heads} heads")
    flat = _tokens(config, tensors, stacks=1)
    if flat.shape[1] != 2 * layers * width:
        raise AdapterError("shape mismatch", f"{_PROMPT} is {list(flat.shape)}, not 2 x {layers} layers x {width} wide")
    pairs = flat.reshape(len(flat), layers, 2, width)
    stacks = _stacks(config)
    prefix = "decoder.layers" if stacks == 2 else "layers"
    deltas = []
    for layer in range(layers):
        keys, values = pairs[:, layer * stacks % layers].transpose(1, 0, 2)
        path = f"{prefix}.{layer}.prefix"
        deltas += [vector_delta(f"{path}.key", _mean(keys)), vector_delta(f"{path}.value", _mean(values))]
        deltas.append(Delta(site_of(f"{path}.product"), down=keys, up=values.T))
    return adapter_of(base, "prefix", deltas, variant="prefix")


def read_prompt(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn a soft prompt E [P, d] into one delta, see :func:`hubrank.checkpoints.soft_prompts.prompt_delta`.

    An encoder-decoder may have two prompts; the second P rows are then the decoder's, a site of their own.

    Args:
        config: adapter_config.json.
        tensors: ``prompt_embeddings`` [P, d] or [2 P, d].
        base: id of the base model.
        base_tensors: not needed.

    Raises:
        AdapterError: the tensor is missing, not finite, or not of the shape that the config gives it.
    """
    return adapter_of(base, "prompt", _prompts(config, _tokens(config, tensors, stacks=_stacks(config))), variant="prompt")


def read_p_tuning(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn the prompt of a p-tuning into deltas, as :func:`read_prompt` does; it is saved after its encoder."""
    tokens = _tokens(config, tensors, stacks=_stacks(config))
    return adapter_of(base, "prompt", _prompts(config, tokens), variant="p-tuning")


def read_multitask(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn a multitask prompt into deltas, as :func:`read_prompt` does.

    Of several tasks it takes the means of cols and rows, as peft does when it starts a new task from them.

    Args:
        config: adapter_config.json.
        tensors: ``prompt_embeddings`` [P, d], ``prefix_task_cols`` [T, P, r] and ``prefix_task_rows`` [T, r, d].
        base: id of the base model.
        base_tensors: not needed.

    Raises:
        AdapterError: a tensor is missing, not finite, or not of the shape that the config gives it.
    """
    tokens = _tokens(config, tensors, stacks=_stacks(config))
    cols, rows = (_tensor(tensors, name, ndim=3) for name in _TASKS)
    tasks, rank = cols.shape[0], cols.shape[2]
    if cols.shape[1] != len(tokens) or rows.shape != (tasks, rank, tokens.shape[1]):
        shapes = f"{list(cols.shape)} and {list(rows.shape)} with {list(tokens.shape)}"
        raise AdapterError("shape mismatch", f"prefix_task_cols and prefix_task_rows are {shapes}")
    if (tasks, rank) != (fields.integer(config, "num_tasks", default=1), fields.integer(config, "num_ranks", default=1)):
        raise AdapterError("shape mismatch", f"{tasks} tasks of rank {rank} in the file, not in the config")
    with np.errstate(over="ignore", invalid="ignore"):
        prompt = tokens * (cols.mean(axis=0) @ rows.mean(axis=0))
    warnings = [f"multitask prompt: the mean of its {tasks} tasks"] if tasks > 1 else []
    return adapter_of(base, "prompt", _prompts(config, prompt), variant="multitask-prompt", warnings=warnings)


def _stacks(config: Mapping[str, Any]) -> int:
    both = 2 if config.get("task_type") == "SEQ_2_SEQ_LM" else 1
    return fields.integer(config, "num_transformer_submodules", default=both, high=2)


def _tokens(config: Mapping[str, Any], tensors: Mapping[str, FloatArray], *, stacks: int) -> FloatArray:
    tokens = _tensor(tensors, _PROMPT, ndim=2)
    count = fields.integer(config, "num_virtual_tokens", default=0)
    if len(tokens) != count * stacks:
        raise AdapterError("shape mismatch", f"{_PROMPT} has {len(tokens)} rows for {count} tokens in {stacks} stacks")
    return tokens


def _tensor(tensors: Mapping[str, FloatArray], name: str, *, ndim: int) -> FloatArray:
    tensor = tensors.get(name)
    if tensor is None:
        raise AdapterError("incomplete" if _PROMPT in tensors else "no weights", f"the file lacks {name}")
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise AdapterError("shape mismatch", f"{name} has the shape {list(tensor.shape)}")
    if not np.isfinite(tensor).all():
        raise AdapterError("not finite", f"{name} holds NaN or infinity")
    return tensor


def _prompts(config: Mapping[str, Any], tokens: FloatArray) -> list[Delta]:
    width = fields.integer(config, "token_dim", default=tokens.shape[1])
    if tokens.shape[1] != width:
        raise AdapterError("shape mismatch", f"{_PROMPT} is {tokens.shape[1]} wide, token_dim is {width}")
    halves = np.split(tokens, _stacks(config))
    paths = ("layers.0.prompt", "decoder.layers.0.prompt")
    return [prompt_delta(path, half) for path, half in zip(paths, halves, strict=False)]


def _mean(tokens: FloatArray) -> FloatArray:
    mean: FloatArray = tokens.astype(np.float64).mean(axis=0).astype(np.float32)
    return mean
