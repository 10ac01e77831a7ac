"""peft's MiSS: one small block that is added again and again along the input.

Formulas (peft 0.21, ``tuners/miss/layer.py``): column i of the update is row i mod r of the block [r, d_out]; ``mini``
repeats a block [r, mini_r] along the output; ``bat`` adds ``W_b @ block_b + block_b`` to each [r, r] piece W_b of the weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors, base_shape, base_weight
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, matrix
from hubrank.checkpoints.peft_widths import input_width, shape_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_miss", "wanted_miss"]

_KEYS = Grammar.of("miss_block")


def wanted_miss(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_miss` needs."""
    return _KEYS.wanted(names)


def read_miss(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the blocks of a MiSS into deltas of rank r; ``bat`` into dense ones.

    Without the base weights, a ``bat`` is only the part that does not depend on them, and a warning says so.

    Args:
        config: adapter_config.json.
        tensors: the block of each module by key: [r, d_out], [r, mini_r] or [d_out / r, r, r].
        base: id of the base model.
        base_tensors: tells each module's d_in (the names of some modules do too) and W for ``bat``.

    Raises:
        AdapterError: a tensor is of the wrong shape or not finite; the config is malformed; widths cannot be known without
            the base model ("needs base"); or the factors would be too large.
    """
    kind = config.get("init_weights", True)
    if not isinstance(kind, bool) and kind not in (None, "bat", "mini"):
        raise AdapterError("unsupported variant", f"init_weights is {str(kind)[:40]!r}")
    budget = Budget()
    rank = fields.integer(config, "r", default=64)
    warnings: set[str] = set()
    deltas = []
    for module, parts in _KEYS.modules(tensors).items():
        block = matrix(parts, "miss_block", module, ndim=3 if kind == "bat" else 2)
        if block.shape[0 if kind != "bat" else 2] != rank:
            raise AdapterError("shape mismatch", f"{module[-120:]}: block {list(block.shape)}, r is {rank} in the config")
        if kind == "bat":
            delta, exact = _bat(config, module, block, base_tensors, budget)
            if not exact:
                warnings.add("MiSS (bat) without the base weights: only the part that does not depend on them")
        elif kind == "mini":
            if block.shape[1] != fields.integer(config, "mini_r", default=1):
                raise AdapterError("shape mismatch", f"{module[-120:]}: block {list(block.shape)} is not as wide as mini_r")
            d_out, d_in = shape_of(base_tensors, module, config)
            if d_out % block.shape[1]:
                raise AdapterError("shape mismatch", f"{module[-120:]}: {d_out} rows are no multiple of {block.shape[1]}")
            budget.take(d_out * rank, module)
            delta = _tiled(module, np.tile(block, d_out // block.shape[1]).T, d_in, budget)
        else:
            d_out = block.shape[1]
            shape = base_shape(base_tensors, module, config, d_out=d_out)
            width = input_width(module, d_out) if shape is None else shape[1]
            if width is None:
                raise AdapterError("needs base", f"{module[-120:]}: the file does not say how wide its input is")
            delta = _tiled(module, block.T, width, budget)
        deltas.append(delta)
    return adapter_of(base, "lora", deltas, variant="miss", warnings=sorted(warnings))


def _tiled(module: str, up: FloatArray, d_in: int, budget: Budget) -> Delta:
    """``up`` [d_out, r] with the identity of r repeated along the input [r, d_in]."""
    rank = up.shape[1]
    if rank > d_in:
        raise AdapterError("shape mismatch", f"{module[-120:]}: rank {rank} of an input of {d_in}")
    budget.take(rank * d_in, module)
    down = np.zeros((rank, d_in), np.float32)
    columns = np.arange(d_in)
    down[columns % rank, columns] = 1.0
    return Delta(site_of(module), down=down, up=np.ascontiguousarray(up))


def _bat(
    config: Mapping[str, Any], module: str, block: FloatArray, base_tensors: BaseTensors | None, budget: Budget
) -> tuple[Delta, bool]:
    pieces, rank, columns = block.shape
    if rank != columns:
        raise AdapterError("shape mismatch", f"{module[-120:]}: block {list(block.shape)} is not square")
    d_out = pieces * rank
    weight = base_weight(base_tensors, module, config, d_out=d_out)
    if weight is None:
        width = input_width(module, d_out)
        if width is None:
            raise AdapterError("needs base", f"{module[-120:]}: the file does not say how wide its input is")
        return _tiled(module, block.reshape(d_out, rank), width, budget), False
    if weight.shape[1] % rank:
        raise AdapterError("shape mismatch", f"{module[-120:]}: {weight.shape[1]} columns are no multiple of {rank}")
    budget.take(weight.size, module)
    with np.errstate(over="ignore", invalid="ignore"):
        # Axes: piece of the rows, row in it, piece of the columns, column in it.
        split = weight.reshape(pieces, rank, weight.shape[1] // rank, rank)
        moved = np.einsum("aibk,akj->aibj", split, block, optimize=True) + block[:, :, None, :]
    up, down = budget.factors(moved.reshape(weight.shape), module)
    return Delta(site_of(module), down=down, up=up), True
