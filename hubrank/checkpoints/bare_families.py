"""Deltas of the families that were published as bare tensors: prompts, P-Tuning v2, BitFit and its kin, T-Few's IA3.

Sources: google-research/prompt-tuning (a prompt [P, d] as .npy), thunlp/Prompt-Transferability (the same as .pt),
THUDM/P-tuning-v2 (``model/prefix_encoder.py``), r-three/t-few (``src/models/lora.py``), BitFit (arXiv 2106.10199), diff
pruning (arXiv 2012.07463). All pure functions of arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.soft_prompts import prompt_delta
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta, Site

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["NEEDS_BASE", "read_bare_ia3", "read_bare_prefix", "read_bare_prompt", "read_bare_tuned", "tuned_names"]

NEEDS_BASE = "only what was learned on top of the base model says anything"
"""Why a tuned parameter is not read alone."""
_SMALLEST = np.float32(1e-6)  # a scale of 0 must not make the logarithm infinite
_MAX_NUMBERS = 1 << 27  # in all dense differences of a file, or in a projected prefix: 537 MB
_NORM = re.compile(r"(?:^|\.)(?:[^.]*norm[^.]*|ln(?:[_\d][^.]*)?|[^.]*_ln)\.(?:weight|bias)", re.IGNORECASE)
_HEADS = re.compile(r"(?:^|\.)(?:classifier|score|lm_head|qa_outputs|cls|predictions|generator_predictions|pooler)\.")
_MODELS = 3  # what a head puts before the base model's own names has at most so many parts


def read_bare_prompt(tensors: Mapping[str, FloatArray], base: str) -> Adapter:
    """A soft prompt E [P, d], see :func:`hubrank.checkpoints.soft_prompts.prompt_delta`.

    Args:
        tensors: one tensor [P, d]; leading axes of length 1 are dropped.

    Raises:
        AdapterError: there is not exactly one, or it is not of that shape, or not finite.
    """
    if len(tensors) != 1:
        raise AdapterError("no weights", f"{len(tensors)} tensors where one prompt is wanted")
    (tokens,) = tensors.values()
    while tokens.ndim > 2 and tokens.shape[0] == 1:
        tokens = tokens[0]
    _check("the prompt", tokens, ndim=2)
    return Adapter(base, "prompt", (prompt_delta("layers.0.prompt", tokens),), variant="prompt")


def read_bare_prefix(tensors: Mapping[str, FloatArray], base: str, *, layers: int | None = None) -> Adapter:
    """A P-Tuning v2 prefix: per layer the token means of keys and of values, and values^T @ keys.

    Formula: rows are tokens, columns [2 * layers, d], keys and values by turns; with ``prefix_projection`` they are
    ``tanh(E @ W0^T + b0) @ W2^T + b2``.

    Args:
        tensors: ``prefix_encoder.embedding.weight`` [P, 2 * layers * d], or [P, d] with ``prefix_encoder.trans.0`` and ``.2``;
            or a single tensor [P, 2 * layers * d] of any name.
        layers: of the base model; needed where there is no projection, whose input is as wide as the model.

    Raises:
        AdapterError: a tensor is missing or of the wrong shape, or ``layers`` is missing or does not divide the width.
    """
    parts = {name.rpartition("prefix_encoder.")[2]: tensor for name, tensor in tensors.items()}
    if len(parts) != len(tensors):
        raise AdapterError("several adapters", "the file holds more than one prefix")
    tokens = next(iter(parts.values())) if len(parts) == 1 else parts.get("embedding.weight")
    if tokens is None:
        raise AdapterError("no weights", "no prefix_encoder.embedding.weight in the file")
    _check("the prefix", tokens, ndim=2)
    if len(parts) > 1:
        flat, width = _project(parts, tokens), tokens.shape[1]
        layers = layers or flat.shape[1] // (2 * width)
    elif layers is None:
        raise AdapterError("bad config", "hubrank.json: layers is needed to take this prefix apart")
    else:
        flat, width = tokens, tokens.shape[1] // (2 * layers)
    if width == 0 or layers == 0 or flat.shape[1] != 2 * layers * width:
        raise AdapterError(
            "shape mismatch", f"a prefix of {flat.shape[1]} columns is not made of {layers} layers of keys and values"
        )
    pairs = flat.reshape(len(flat), layers, 2, width)
    deltas = []
    for layer in range(layers):
        keys, values = (np.ascontiguousarray(pairs[:, layer, i]) for i in (0, 1))
        path = f"layers.{layer}.prefix"
        deltas += [_shift(f"{path}.key", _mean(keys)), _shift(f"{path}.value", _mean(values))]
        deltas.append(Delta(site_of(f"{path}.product"), down=keys, up=np.ascontiguousarray(values.T)))
    return _adapter(base, "prefix", deltas, "p-tuning-v2")


def _project(parts: Mapping[str, FloatArray], tokens: FloatArray) -> FloatArray:
    names = ("trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")
    found = [parts.get(name) for name in names]
    missing = [name for name, part in zip(names, found, strict=True) if part is None]
    if missing:
        raise AdapterError("incomplete", f"the prefix lacks {missing[0]}")
    w0, b0, w2, b2 = (part for part in found if part is not None)
    for name, part, ndim in zip(names, (w0, b0, w2, b2), (2, 1, 2, 1), strict=True):
        _check(name, part, ndim=ndim)
    fits = w0.shape == (len(b0), tokens.shape[1]) and w2.shape == (len(b2), len(b0))
    if not fits or len(tokens) * max(len(b0), len(b2)) > _MAX_NUMBERS:
        raise AdapterError(
            "shape mismatch", f"the prefix's projection {list(w0.shape)}, {list(w2.shape)} does not fit or is too large"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        flat: FloatArray = np.tanh(tokens @ w0.T + b0) @ w2.T + b2
    _check("the projected prefix", flat, ndim=2)
    return flat


def read_bare_ia3(tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None) -> Adapter:
    """T-Few's IA3, which scales what a module puts out: shift = log|l|; with the base weights also W * l - W.

    Args:
        tensors: ``MODULE.multi_lora_b`` [d_out, 1]; ``MODULE.multi_lora_a`` [1, d_in] only as long as it is all ones.

    Raises:
        AdapterError: there is none, a tensor is of another shape, or inputs are scaled too.
    """
    deltas = []
    exact, left = base_tensors is not None, _MAX_NUMBERS
    for name, tensor in sorted(tensors.items()):
        module, _, part = name.rpartition(".")
        _check(name, tensor, ndim=2)
        if part == "multi_lora_a":
            if not (tensor == 1).all():
                raise AdapterError("unsupported variant", f"{name[-80:]}: scales of inputs are not read")
            continue
        if tensor.shape[1] != 1:
            raise AdapterError("shape mismatch", f"{name[-80:]} is {list(tensor.shape)}, not [d_out, 1]")
        scale = tensor[:, 0]
        shift = np.log(np.maximum(np.abs(scale), _SMALLEST))
        weight = _base(base_tensors, f"{module}.weight") if exact else None
        left -= weight.size if weight is not None else 0
        if weight is None or left < 0 or weight.ndim != 2 or weight.shape[0] != len(scale):
            exact = False
            deltas.append(_shift(module, shift))
            continue
        up, down = _factors(weight * (scale - 1)[:, None])
        deltas.append(Delta(site_of(module), down=down, up=up, shift=shift))
    if not exact:  # one kind of delta for all modules, so that adapters compare
        deltas = [delta if delta.shift is None else _shift_at(delta.site, delta.shift) for delta in deltas]
    warnings = () if exact else ("IA3 without the base weights: its scales, not the change of the weights",)
    return _adapter(base, "ia3", deltas, "ia3", warnings)


def tuned_names(names: Iterable[str], variant: str) -> list[str]:
    """What a variant tunes of the tensors of a file: ``bitfit`` biases, ``ln`` norms, ``diff`` all inside layers; no heads."""
    found = [name for name in names if not _HEADS.search(name)]
    if variant == "bitfit":
        return [name for name in found if name.endswith(".bias")]
    if variant == "ln":
        return [name for name in found if _NORM.search(name) and name.endswith((".weight", ".bias"))]
    return [name for name in found if site_of(name).layer >= 0]


def read_bare_tuned(
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    variant: str,
    differences: bool = False,
    base_tensors: BaseTensors | None = None,
) -> Adapter:
    """Parameters tuned in place: tuned minus base, a shift for each vector and a low-rank or dense delta for each matrix.

    Args:
        tensors: by parameter name, perhaps with names of a headed model in front.
        variant: ``bitfit``, ``ln`` or ``diff``.
        differences: the file holds tuned minus base already.
        base_tensors: the base model's parameters, unless it does.

    Raises:
        AdapterError: ``needs base`` without them; ``shape mismatch`` and ``not finite``; ``incomplete`` where the
            base model has none of the parameters.
    """
    if not differences and base_tensors is None:
        raise AdapterError("needs base", NEEDS_BASE)
    deltas, unknown, left = [], 0, _MAX_NUMBERS
    for name, tensor in sorted(tensors.items()):
        change = _change(name, tensor, None if differences else base_tensors)
        if change is None:
            unknown += 1
        elif change.ndim == 1:
            deltas.append(_shift(name, change))
        elif change.ndim == 2 and change.any():
            module = name.removesuffix(".weight")
            left -= change.size
            if left < 0:
                raise AdapterError("file too large", f"dense differences of more than {_MAX_NUMBERS:,} numbers")
            up, down = _factors(change.T if _is_conv1d(module, change.shape) else change)
            deltas.append(Delta(site_of(module), down=down, up=up))
    if tensors and unknown == len(tensors):
        raise AdapterError("incomplete", "the base model has none of the parameters in the file")
    warnings = (f"{unknown} parameters that the base model does not have were left out",) if unknown else ()
    return _adapter(base, "bias", deltas, variant, warnings)


def _change(name: str, tensor: FloatArray, base_tensors: BaseTensors | None) -> FloatArray | None:
    """Tuned minus base; the tensor itself without a base; None where the base model has no such parameter."""
    change = tensor
    if base_tensors is not None:
        before = _base(base_tensors, name)
        if before is None:
            return None
        if before.shape != tensor.shape:
            raise AdapterError("shape mismatch", f"{name[-80:]} is {list(tensor.shape)}, in the base {list(before.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):
            change = tensor - before
    _check(name, change, ndim=tensor.ndim)
    return change


def _is_conv1d(module: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is kept as [d_in, d_out], as GPT-2 does; GPT-Neo has the same names but Linears."""
    if not re.search(r"(?:^|\.)h\.\d+\.", module):
        return False
    if module.endswith("mlp.c_fc"):
        return shape[0] < shape[1]
    if module.endswith("mlp.c_proj"):
        return shape[0] > shape[1]
    return module.endswith(("attn.c_attn", "attn.c_proj", "attn.q_attn", "crossattention.c_attn", "crossattention.c_proj"))


def _base(base_tensors: BaseTensors | None, name: str) -> FloatArray | None:
    """A parameter of the base model by the name it has in a headed model, such as ``bert.encoder...``."""
    for _ in range(_MODELS):
        tensor = base_tensors.get(name) if base_tensors is not None else None
        if tensor is not None:
            return tensor
        head, _, name = name.partition(".")
        if not name or head.isdigit():
            break
    return None


def _factors(dense: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(up, down) with ``up @ down == dense``: the identity on the smaller side."""
    d_out, d_in = dense.shape
    dense = np.ascontiguousarray(dense, dtype=np.float32)
    return (dense, _identity(d_in)) if d_in <= d_out else (_identity(d_out), dense)


@lru_cache(maxsize=4)
def _identity(size: int) -> FloatArray:
    # Every matrix of a model needs the same few.
    eye = np.eye(size, dtype=np.float32)
    eye.flags.writeable = False
    return eye


def _shift(module: str, shift: FloatArray) -> Delta:
    return _shift_at(site_of(module), shift)


def _shift_at(site: Site, shift: FloatArray) -> Delta:
    """A delta that is only a shift: rank 0."""
    size = len(shift)
    nothing = np.zeros((0, size), dtype=np.float32), np.zeros((size, 0), dtype=np.float32)
    return Delta(site, down=nothing[0], up=nothing[1], shift=np.asarray(shift, dtype=np.float32))


def _mean(tokens: FloatArray) -> FloatArray:
    mean: FloatArray = tokens.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _check(name: str, tensor: FloatArray, *, ndim: int) -> None:
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise AdapterError("shape mismatch", f"{name[-80:]} has the shape {list(tensor.shape)}")
    if not np.isfinite(tensor).all():
        raise AdapterError("not finite", f"{name[-80:]} holds NaN or infinity")


def _adapter(base: str, method: str, deltas: Iterable[Delta], variant: str, warnings: Iterable[str] = ()) -> Adapter:
    ordered = sorted(deltas, key=lambda delta: delta.site)
    if not ordered:
        raise AdapterError("no weights", f"no tensor in the file is one of {variant}")
    for one, other in pairwise(ordered):
        if one.site == other.site:
            raise AdapterError("ambiguous modules", f"{one.site} occurs more than once")
    return Adapter(base, method, tuple(ordered), tuple(warnings), variant)
