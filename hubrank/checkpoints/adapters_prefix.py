"""Prefix tuning and prompt tuning of ``adapters``.

Prefix tuning (``methods/prefix_tuning.py``): every attention layer gets P keys and values of its own. All of them are kept
in one flat vector, viewed as [P, 2 * layers, d]: layer l has its keys at 2l and its values at 2l + 1. They are stored
(flat), or computed from P embeddings by a small network: ``f(wte @ W0^T + b0) @ W2^T + b2``. A file holds them once at the
root and once more in every attention layer (the *pool*); only the copy at the root is read, and of the others one name a
stack, because the last layer's number is what tells how many layers share the vector.

Order of tokens changes nothing in a mean over tokens, nor in ``values^T @ keys``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.adapters_config import AdaptersConfig
from hubrank.checkpoints.adapters_weights import Budget, Key, Module, choose_name, collect, finish, split_key
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.card import plain
from hubrank.checkpoints.soft_prompts import prompt_delta
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_prefix", "read_prompt", "wanted_prefix", "wanted_prompt"]

_SLOT = "prefix_tunings"
_PARTS = ("wte", "control_trans")
_PROMPT_SLOT, _PROMPT_PART = "prompt_tunings", "prompt_embedding"
_MAX_LAYERS = 4096
_MAX_ERF = 1 << 22  # numpy has no erf, and a loop over more would take long; the hidden layers of prefixes are small
_MAX_LEFT_OUT = 10_000
# Stack and module prefix of each location in models of two stacks, and of one.
_TWO_STACKS = MappingProxyType(
    {"encoder_prefix": ("encoder", ""), "self_prefix": ("decoder", ""), "cross_prefix": ("decoder", "cross.")}
)
_ONE_STACK = MappingProxyType({"self_prefix": ("", ""), "self": ("", ""), "cross_prefix": ("", "cross.")})
_TWO_STACK_TYPES = ("bart", "mbart", "plbart", "t5", "mt5", "whisper")
# Where keys and values are as wide as the hidden states: no grouped queries, no free head size.
_FULL_WIDTH = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "electra", "deberta", "deberta-v2", "albert", "bert-generation", "xmod"),
    *("bart", "mbart", "plbart", "whisper", "gpt2", "gptj", "vit", "beit", "clip"),
)


def wanted_prefix(names: Iterable[str], config: AdaptersConfig) -> list[str]:
    """The keys of the shared vectors, and one copy of a small tensor from the last layer of every stack."""
    keys = {name: key for name in names if (key := _split(name))}
    chosen = choose_name({_adapter(key) for key in keys.values()}, config.name)
    keys = {name: key for name, key in keys.items() if _adapter(key) == chosen}
    source = _source(keys.values())
    last: dict[str, tuple[int, bool, str]] = {}
    for name, key in keys.items():
        if key.module != source:
            site = site_of(key.module + ".")
            # A bias is smaller than what else could stand for its layer.
            candidate = (site.layer, key.part.endswith("0.bias"), name)
            last[site.stack] = max(last.get(site.stack, candidate), candidate)
    markers = {name for _, _, name in last.values()}
    return [name for name, key in keys.items() if key.module == source or name in markers]


def read_prefix(config: AdaptersConfig, method: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str) -> Adapter:
    """Three deltas a layer and location: token means of keys and of values as shifts, and ``values^T @ keys``.

    Sites are ``prefix.key``, ``prefix.value`` and ``prefix.product`` (up = values^T [d, P], down = keys [P, d]), with
    ``cross.`` before them for attention to another stack. d is the width of keys, all heads side by side.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite, or the layers cannot be told.
    """
    keys = {name: key for name in tensors if (key := _split(name))}
    chosen = choose_name({_adapter(key) for key in keys.values()}, config.name)
    keys = {name: key for name, key in keys.items() if _adapter(key) == chosen}
    source = _source(keys.values())
    depths = _depths(key for key in keys.values() if key.module != source)
    parts: dict[str, dict[str, FloatArray]] = {}
    for name, key in keys.items():
        if key.module == source:
            parts.setdefault(key.name.rpartition(".")[2], {})[key.part] = tensors[name]
    two = "encoder_prefix" in parts or config.model_type in _TWO_STACK_TYPES
    left_out = _left_out(method)
    budget = Budget()
    deltas: list[Delta] = []
    for location, found in sorted(parts.items()):
        place = (_TWO_STACKS if two else _ONE_STACK).get(location)
        if place is None:
            raise AdapterError("unsupported variant", f"prefixes at {plain(location, 40)!r}")
        vectors = _vectors(config, method, Module(location, found), budget)
        layers = _layers(config, vectors.shape, place[0], depths, left_out)
        deltas += _layer_deltas(vectors.reshape(vectors.shape[0], 2 * len(layers), -1), layers, *place)
    warnings = ["gates that depend on the input are left out"] if fields.boolean(method, "use_gating") else []
    return finish(base, "prefix", deltas, warnings, "prefix")


def wanted_prompt(names: Iterable[str]) -> list[str]:
    """The key of the prompt's embedding."""
    return [name for name in names if split_key(name, _PROMPT_SLOT, (_PROMPT_PART,))]


def read_prompt(config: AdaptersConfig, method: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str) -> Adapter:
    """One delta at layer 0, see :func:`hubrank.checkpoints.soft_prompts.prompt_delta`.

    Raises:
        AdapterError: the embedding is missing, of the wrong shape, or not finite.
    """
    modules, _ = collect(tensors, _PROMPT_SLOT, (_PROMPT_PART,), config.name)
    length = fields.integer(method, "prompt_length", default=10)
    deltas = []
    for module in modules.values():
        tokens = module.take(f"{_PROMPT_PART}.weight", length, None)
        deltas.append(prompt_delta("layers.0.prompt", tokens))
    return finish(base, "prompt", deltas, (), "prompt")


def _split(name: str) -> Key | None:
    key = split_key(name, _SLOT, _PARTS)
    return key if key and "." in key.name else None


def _adapter(key: Key) -> str:
    # A location stands between the adapter's name and the part.
    return key.name.rpartition(".")[0]


def _source(keys: Iterable[Key]) -> str:
    """The module whose copy is read: the one at the root, or, where a file has none, the first of the pool's."""
    modules = {key.module for key in keys}
    roots = [module for module in modules if module.rpartition(".")[2] != "pool"]
    if len(roots) > 1:
        raise AdapterError("ambiguous modules", "prefixes at more than one root")
    return roots[0] if roots else min(modules, default="")


def _depths(copies: Iterable[Key]) -> dict[str, int]:
    """How many layers each stack has, from the layers that the copies lie in; ``""`` for the deepest."""
    depths: dict[str, int] = {}
    for key in copies:
        site = site_of(key.module + ".")
        for stack in (site.stack, ""):
            depths[stack] = max(depths.get(stack, 0), site.layer + 1)
    return depths


def _left_out(method: Mapping[str, Any]) -> set[int]:
    value = method.get("leave_out")
    if value is None:
        return set()
    if not isinstance(value, list) or len(value) > _MAX_LEFT_OUT or not all(type(layer) is int for layer in value):
        raise AdapterError("bad config", "leave_out is not a list of layer numbers")
    return set(value)


def _vectors(config: AdaptersConfig, method: Mapping[str, Any], module: Module, budget: Budget) -> FloatArray:
    """All keys and values of one location: [P, 2 * layers * d]."""
    length = fields.integer(method, "prefix_length", default=30)
    if fields.boolean(method, "flat"):
        flat = module.take("control_trans", None)
        if flat.size % length:
            raise AdapterError("shape mismatch", f"{module.label}: {flat.size} numbers are no {length} tokens")
        return flat.reshape(length, -1)
    tokens = module.take("wte.weight", length, None)
    first = module.take("control_trans.0.weight", None, tokens.shape[1])
    second = module.take("control_trans.2.weight", None, first.shape[0])
    budget.spend(length * (first.shape[0] + second.shape[0]))
    hidden = tokens @ first.T + module.take("control_trans.0.bias", first.shape[0])
    hidden = _activate(config, method, hidden)
    return np.asarray(hidden @ second.T + module.take("control_trans.2.bias", second.shape[0]), dtype=np.float32)


def _layers(
    config: AdaptersConfig, shape: tuple[int, ...], stack: str, depths: Mapping[str, int], left_out: set[int]
) -> list[int]:
    """The layers, from 0 in their own stack, that the vectors [P, 2 * layers * d] are for, in order."""
    offset = depths.get("encoder") if stack == "decoder" and left_out else 0
    depth = depths.get(stack)
    if depth is not None and offset is not None:
        layers = [layer for layer in range(depth) if layer + offset not in left_out]
    elif config.model_type in _FULL_WIDTH and config.hidden_size and offset is not None:
        count = shape[1] // (2 * config.hidden_size)
        # As many layers as there are vectors for, leaving out what the config says.
        every = range(min(count, _MAX_LAYERS) + len(left_out))
        layers = [layer for layer in every if layer + offset not in left_out][:count]
    else:
        raise AdapterError("incomplete", "the file does not tell how many layers share its prefixes")
    d = shape[1] // (2 * len(layers)) if layers else 0
    wide = config.model_type in _FULL_WIDTH and config.hidden_size
    if not d or 2 * len(layers) * d != shape[1] or (wide and d != config.hidden_size):
        raise AdapterError("shape mismatch", f"{shape[1]} numbers a token are no keys and values of {len(layers)} layers")
    return layers


def _layer_deltas(vectors: FloatArray, layers: list[int], stack: str, prefix: str) -> Iterable[Delta]:
    d = vectors.shape[2]
    no_down, no_up = np.zeros((0, d), dtype=np.float32), np.zeros((d, 0), dtype=np.float32)
    for i, layer in enumerate(layers):
        keys, values = np.ascontiguousarray(vectors[:, 2 * i]), np.ascontiguousarray(vectors[:, 2 * i + 1])
        path = f"{stack}.layers.{layer}.{prefix}prefix" if stack else f"layers.{layer}.{prefix}prefix"
        yield Delta(site_of(f"{path}.key"), no_down, no_up, shift=keys.mean(axis=0))
        yield Delta(site_of(f"{path}.value"), no_down, no_up, shift=values.mean(axis=0))
        yield Delta(site_of(f"{path}.product"), down=keys, up=np.ascontiguousarray(values.T))


def _activate(config: AdaptersConfig, method: Mapping[str, Any], x: FloatArray) -> FloatArray:
    kind = str(method.get("non_linearity") or "tanh")[:40].lower()
    if config.old_activations:
        kind = {"gelu": "gelu_new", "gelu_orig": "gelu"}.get(kind, kind)
    function = _ACTIVATIONS.get(kind)
    if function is None or (kind == "gelu" and x.size > _MAX_ERF):
        raise AdapterError("unsupported variant", f"the non-linearity {plain(kind, 40)!r}")
    return np.asarray(function(x), dtype=np.float32)


def _gelu(x: FloatArray) -> Any:
    erf = np.fromiter(map(math.erf, (x.ravel() / math.sqrt(2)).tolist()), dtype=np.float32, count=x.size)
    return 0.5 * x * (1 + erf.reshape(x.shape))


def _gelu_new(x: FloatArray) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _swish(x: FloatArray) -> Any:
    return x / (1 + np.exp(-x))


# transformers/activations.py, under the names that adapters takes (methods/modeling.py, Activation_Function_Class).
_ACTIVATIONS: Mapping[str, Callable[[FloatArray], Any]] = MappingProxyType(
    {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "leakyrelu": lambda x: np.where(x > 0, x, np.float32(0.01) * x),
        "swish": _swish,
        "silu": _swish,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "gelu_new": _gelu_new,
        "gelu": _gelu,
    }
)
