"""peft's OFT and BOFT: the input of a module is turned by an orthogonal matrix M, and W becomes W M^T.

Formulas (peft 0.21): OFT, M block-diagonal, each block the Cayley transform of a skew matrix, or a truncated Neumann
series of it (``tuners/oft/layer.py``); BOFT, M a product of such matrices between butterfly permutations, and rows of the
result scaled by s (``boft/layer.py``).

With the base weights at hand a delta is the exact change, ``s * W M^T - W``. Without them it is a descriptor that does not
depend on W, and a warning says so: up @ down = M^T - I, a map of the module's input space [d_in] to itself, and for BOFT the
shift log|s| [d_out].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors, base_weight
from hubrank.checkpoints.leading import WHOLE, Leading, Room, by_gram
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, matrix
from hubrank.checkpoints.peft_widths import shape_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["WITHOUT_BASE", "read_boft", "read_oft", "wanted_boft", "wanted_oft"]

_OFT = Grammar.of("oft_R.weight", "oft_embedding_R.weight", "oft_r", "oft_s")
_BOFT = Grammar.of("boft_R", "boft_s")
_MAX_BLOCK = 1 << 12
_MAX_TERMS = 64
WITHOUT_BASE = "without the base weights: the rotation of each module's input, not the change of its weight"


@dataclass(frozen=True, slots=True, eq=False)
class _Rotation:
    """M of one module as stages of blocks M_i^T [n, b, b], each between a permutation of the columns and its inverse."""

    module: str
    stages: tuple[NDArray[np.float64], ...]
    orders: tuple[NDArray[np.int64] | None, ...] = (None,)
    scale: FloatArray | None = None

    @property
    def width(self) -> int:
        """Columns of W."""
        return int(self.stages[0].shape[0] * self.stages[0].shape[1])

    def turn(self, rows: FloatArray) -> NDArray[np.float64]:
        """``rows @ M^T``, for rows [k, d_in]."""
        out = rows.astype(np.float64)
        for blocks, order in zip(self.stages, self.orders, strict=True):
            out = out if order is None else out[:, np.argsort(order)]
            pieces = out.reshape(len(out), len(blocks), -1).transpose(1, 0, 2)
            out = (pieces @ blocks).transpose(1, 0, 2).reshape(out.shape)
            out = out if order is None else out[:, order]
        return out


def wanted_oft(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_oft` needs."""
    return _OFT.wanted(names)


def wanted_boft(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_boft` needs."""
    return _BOFT.wanted(names)


def read_oft(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the tensors of an OFT into deltas; see the module for what they hold.

    Args:
        config: adapter_config.json.
        tensors: the upper triangles [n, b (b - 1) / 2] of the n skew blocks of each module by key.
        base: id of the base model.
        base_tensors: the base model's weights, for the exact change.

    Raises:
        AdapterError: a tensor is of the wrong shape or not finite; the config is malformed; it is of a kind that is not
            read (the layout before peft 0.14, embeddings); or blocks are shared and the base is not at hand.
    """
    modules = _OFT.modules(tensors)
    if "oft_block_size" not in config or any(set(parts) != {"oft_R"} for parts in modules.values()):
        raise AdapterError("unsupported variant", "an OFT of an embedding, or in the layout before peft 0.14")
    shared = fields.boolean(config, "block_share")
    rotations = []
    for module, parts in modules.items():
        blocks = _oft_blocks(config, module, matrix(parts, "oft_R", module))
        if shared:
            d_in = shape_of(base_tensors, module, config)[1]
            if len(blocks) != 1 or d_in % blocks.shape[1]:
                raise AdapterError("shape mismatch", f"{module[-120:]}: a shared block {list(blocks.shape)}, width {d_in}")
            blocks = np.broadcast_to(blocks, (d_in // blocks.shape[1], *blocks.shape[1:]))
        rotations.append(_Rotation(module, (blocks,)))
    deltas, warnings = _deltas("OFT", config, rotations, base_tensors)
    if config.get("use_cayley_neumann", True) and not config.get("peft_version"):
        warnings.append("OFT: written before peft 0.18, whose Cayley-Neumann series differs a little")
    return adapter_of(base, "rotation", deltas, variant="oft", warnings=warnings)


def _oft_blocks(config: Mapping[str, Any], module: str, upper: FloatArray) -> NDArray[np.float64]:
    """M^T as blocks [n, b, b]."""
    block = (1 + math.isqrt(1 + 8 * upper.shape[1])) // 2
    if block * (block - 1) // 2 != upper.shape[1]:
        raise AdapterError("shape mismatch", f"{module[-120:]}: {upper.shape[1]} entries are no triangle")
    if block > _MAX_BLOCK:
        raise AdapterError("too large", f"{module[-120:]}: a block of {block}")
    skew: NDArray[np.float64] = np.zeros((len(upper), block, block))
    rows, columns = np.triu_indices(block, 1)
    skew[:, rows, columns] = upper
    skew[:, columns, rows] = -upper
    if fields.boolean(config, "coft"):
        limit = fields.number(config, "eps", default=6e-5) / math.sqrt(len(upper))
        norms = np.sqrt(np.square(skew).sum(axis=(1, 2), keepdims=True))
        shrink: NDArray[np.float64] = np.minimum(1.0, limit / np.where(norms > 0, norms, max(limit, 1.0)))
        np.multiply(skew, shrink, out=skew)
    neumann = config.get("use_cayley_neumann")
    if neumann is None or fields.boolean(config, "use_cayley_neumann"):
        terms = fields.integer(config, "num_cayley_neumann_terms", default=5, high=_MAX_TERMS)
        return _neumann(skew, terms).transpose(0, 2, 1)
    return _cayley(skew, module)


def _neumann(skew: NDArray[np.float64], terms: int) -> NDArray[np.float64]:
    """peft's truncated series of (I + S)(I - S)^-1: I + 2 S + 2 S^2 + ..., the last power once."""
    out = np.broadcast_to(np.eye(skew.shape[1]), skew.shape).copy()
    with np.errstate(over="ignore", invalid="ignore"):
        if terms > 1:
            out += 2 * skew
        if terms > 2:
            power = np.matmul(skew, skew)
            out += 2 * power
            for _ in range(3, terms - 1):
                power = np.matmul(power, skew)
                out += 2 * power
            out += power @ skew
    return out


def _cayley(skew: NDArray[np.float64], module: str) -> NDArray[np.float64]:
    """The transpose of (I - S)(I + S)^-1, which for skew S is (I - S)^-1 (I + S)."""
    identity = np.eye(skew.shape[1])
    try:
        return np.asarray(np.linalg.solve(identity - skew, identity + skew), dtype=np.float64)
    except np.linalg.LinAlgError:  # only rounding of huge entries makes I - S singular
        raise AdapterError("not finite", f"{module[-120:]}: its rotation overflows") from None


def read_boft(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the tensors of a BOFT into deltas; see the module for what they hold.

    Args:
        config: adapter_config.json.
        tensors: boft_R [m, n, b, b], m butterfly stages of n blocks, and boft_s [d_out, 1] of each module by key.
        base: id of the base model.
        base_tensors: the base model's weights, for the exact change.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite; or the config is malformed.
    """
    rotations = []
    for module, parts in _BOFT.modules(tensors).items():
        stacked, scale = matrix(parts, "boft_R", module, ndim=4), matrix(parts, "boft_s", module)
        stages, blocks, rows, columns = stacked.shape
        halved = 1 << min(stages - 1, 63)
        if rows != columns or scale.shape[1] != 1 or blocks % halved or (stages > 1 and rows % 2):
            shapes = f"{list(stacked.shape)} and {list(scale.shape)}"
            raise AdapterError("shape mismatch", f"{module[-120:]}: boft_R and boft_s are {shapes}")
        if rows > _MAX_BLOCK:
            raise AdapterError("too large", f"{module[-120:]}: a block of {rows}")
        wide = stacked.astype(np.float64)
        skew = 0.5 * (wide - wide.transpose(0, 1, 3, 2))
        turned = tuple(_cayley(stage, module) for stage in skew)
        orders = (None,) if stages == 1 else tuple(_butterfly(blocks, rows, stage) for stage in range(stages))
        rotations.append(_Rotation(module, turned, orders, scale[:, 0]))
    deltas, warnings = _deltas("BOFT", config, rotations, base_tensors)
    return adapter_of(base, "rotation", deltas, variant="boft", warnings=warnings)


def _butterfly(blocks: int, size: int, stage: int) -> NDArray[np.int64]:
    """The permutation of one stage: half blocks at even places of each piece before those at odd ones."""
    half, piece = size // 2, size << stage
    places = np.arange(piece // half)
    order = np.concatenate([places[0::2], places[1::2]])
    within = (order[:, None] * half + np.arange(half)).ravel()
    out: NDArray[np.int64] = (np.arange(0, blocks * size, piece)[:, None] + within).ravel()
    return out


def _deltas(
    name: str, config: Mapping[str, Any], rotations: list[_Rotation], base_tensors: BaseTensors | None
) -> tuple[list[Delta], list[str]]:
    budget = Budget()
    weights: dict[str, FloatArray] = {}
    for rotation in rotations:
        d_out = None if rotation.scale is None else len(rotation.scale)
        weight = base_weight(base_tensors, rotation.module, config, d_out=d_out, d_in=rotation.width)
        # All or nothing, and no weight more is fetched than what could be used.
        if weight is None or not budget.fits((w.shape[0], w.shape[1]) for w in (*weights.values(), weight)):
            break
        weights[rotation.module] = weight
    else:
        return [_change(rotation, weights[rotation.module], budget) for rotation in rotations], []
    warnings = [f"{name} {WITHOUT_BASE}"]
    if sum(rotation.width**2 for rotation in rotations) <= WHOLE:
        return [_descriptor(rotation, budget) for rotation in rotations], warnings
    room = Room((rotation.width, rotation.width) for rotation in rotations)
    return [_leading(rotation, room) for rotation in rotations], warnings


def _change(rotation: _Rotation, weight: FloatArray, budget: Budget) -> Delta:
    budget.take(weight.size, rotation.module)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = rotation.turn(weight)
        if rotation.scale is not None:
            moved *= rotation.scale[:, None]
        up, down = budget.factors((moved - weight).astype(np.float32), rotation.module)
    return Delta(site_of(rotation.module), down=down, up=up)


def _descriptor(rotation: _Rotation, budget: Budget) -> Delta:
    """M^T - I, whole."""
    with np.errstate(over="ignore", invalid="ignore"):
        budget.take(rotation.width**2, rotation.module)
        up, down = budget.factors(_turned(rotation).astype(np.float32), rotation.module)
    return Delta(site_of(rotation.module), down=down, up=up, shift=_shift(rotation))


def _leading(rotation: _Rotation, room: Room) -> Delta:
    """M^T - I's largest directions; blocks of one stage do not mix, so each has its own."""
    blocks = rotation.stages[0]
    count, size, _ = blocks.shape
    with np.errstate(over="ignore", invalid="ignore"):
        if len(rotation.stages) > 1:
            room.work(rotation.module, rotation.width, rotation.width)
            part = by_gram(_turned(rotation)[None], room.kept)[0]
        else:
            room.work(rotation.module, size, size, count)
            part = _of_blocks(by_gram(blocks - np.eye(size), room.kept), size, room.kept)
        return replace(part.delta(site_of(rotation.module)), shift=_shift(rotation))


def _of_blocks(parts: list[Leading], size: int, kept: int) -> Leading:
    """Of a block-diagonal matrix, from those of its blocks."""
    values = np.concatenate([part.values for part in parts])
    order = np.argsort(-values, kind="stable")
    u, v = np.zeros((2, len(parts) * size, min(kept, len(values))))
    for i, place in enumerate(order[:kept]):
        block, k = divmod(int(place), size)
        inside = slice(block * size, (block + 1) * size)
        u[inside, i], v[inside, i] = parts[block].u[:, k], parts[block].v[:, k]
    return Leading(u, values[order], v)


def _turned(rotation: _Rotation) -> NDArray[np.float64]:
    """M^T - I."""
    identity = np.eye(rotation.width, dtype=np.float32)
    return rotation.turn(identity) - identity


def _shift(rotation: _Rotation) -> FloatArray | None:
    """log|s| of a BOFT's scales."""
    return None if rotation.scale is None else np.log(np.maximum(np.abs(rotation.scale), np.float32(1e-6)))
