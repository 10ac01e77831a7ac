"""peft's LoHa and LoKr: updates that are products of low-rank matrices, entry by entry or as Kronecker products.

Formulas (peft 0.21): LoHa ``s * (w1a @ w1b) * (w2a @ w2b)`` (``tuners/loha/layer.py``); LoKr ``s * kron(w1, w2)``, each w
whole or ``a @ b`` (``lokr/layer.py``); s = alpha / r after the patterns. Factors multiply: the row-wise Kronecker products
of LoHa's, and the Kronecker products of LoKr's, factor the whole update; where that is larger than the update itself, the
update is its own factor. Where all of that is large, only the largest directions are made, see
:mod:`hubrank.checkpoints.leading`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.leading import WHOLE, Room, by_gram, kronecker, of_product
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, deadline, matrix, scale_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.checkpoints.peft_modules import Parts
    from hubrank.types import FloatArray

    _Pair: TypeAlias = tuple[FloatArray, FloatArray]

__all__ = ["read_loha", "read_lokr", "wanted_loha", "wanted_lokr"]

_LOHA = Grammar.of("hada_w[12]_[ab]", "hada_t[12]")
_LOKR = Grammar.of("lokr_w[12]", "lokr_w[12]_[ab]", "lokr_t2")


def wanted_loha(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_loha` needs."""
    return _LOHA.wanted(names)


def wanted_lokr(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_lokr` needs."""
    return _LOKR.wanted(names)


def read_loha(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn the tensors of a LoHa into deltas of rank r1 * r2, or dense ones.

    Args:
        config: adapter_config.json.
        tensors: w1a and w2a [d_out, r], w1b and w2b [r, d_in] by key.
        base: id of the base model.
        base_tensors: not needed.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite; the config is malformed; a convolution is
            tuned; or the factors would be too large.
    """
    until = deadline()
    found: dict[str, _Hadamard] = {}
    for module, parts in _LOHA.modules(tensors).items():
        if "hada_t1" in parts or "hada_t2" in parts:
            raise AdapterError("unsupported variant", f"{module[-120:]} is a convolution")
        w1a, w1b, w2a, w2b = (matrix(parts, f"hada_w{name}", module) for name in ("1_a", "1_b", "2_a", "2_b"))
        if not (w1a.shape == w2a.shape and w1b.shape == w2b.shape and w1a.shape[1] == len(w1b)):
            shapes = [list(w.shape) for w in (w1a, w1b, w2a, w2b)]
            raise AdapterError("shape mismatch", f"{module[-120:]}: {shapes} do not fit")
        scale = scale_of(config, module, len(w1b), until, alpha="alpha")
        found[module] = _Hadamard((w1a, w1b), (w2a, w2b), scale)
    return adapter_of(base, "lora", _deltas(found), variant="loha")


def read_lokr(
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    base: str,
    *,
    base_tensors: BaseTensors | None = None,  # noqa: ARG001
) -> Adapter:
    """Turn the tensors of a LoKr into deltas of rank k1 * k2, the ranks of its two factors, or dense ones.

    Args:
        config: adapter_config.json.
        tensors: w1 [a, c] and w2 [b, d] by key, or either as w_a [., r] and w_b [r, .]; the update is [a * b, c * d].
        base: id of the base model.
        base_tensors: not needed.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite; the config is malformed; a convolution is
            tuned; or the factors would be too large.
    """
    until = deadline()
    found: dict[str, _Kronecker] = {}
    for module, parts in _LOKR.modules(tensors).items():
        if "lokr_t2" in parts or parts.get("lokr_w2", np.empty((1, 1))).ndim > 2:
            raise AdapterError("unsupported variant", f"{module[-120:]} is a convolution")
        (up1, down1), (up2, down2) = _side(parts, "lokr_w1", module), _side(parts, "lokr_w2", module)
        ranks = {len(parts[name]) for name in ("lokr_w1_b", "lokr_w2_b") if name in parts}
        if len(ranks) > 1:
            raise AdapterError("shape mismatch", f"{module[-120:]} has two ranks, {sorted(ranks)}")
        scale = scale_of(config, module, next(iter(ranks), None), until, alpha="alpha")
        found[module] = _Kronecker((up1, down1), (up2, down2), scale)
    return adapter_of(base, "lora", _deltas(found), variant="lokr")


def _deltas(found: Mapping[str, _Hadamard] | Mapping[str, _Kronecker]) -> list[Delta]:
    """Exact factors where those of all modules are small, else the largest directions of each."""
    if sum(product.numbers for product in found.values()) <= WHOLE:
        budget = Budget()
        with np.errstate(over="ignore", invalid="ignore"):
            return [product.whole(module, budget) for module, product in found.items()]
    room = Room(product.shape for product in found.values())
    with np.errstate(over="ignore", invalid="ignore"):
        return [product.leading(module, room) for module, product in found.items()]


@dataclass(frozen=True, slots=True, eq=False)
class _Hadamard:
    """``scale * (one[0] @ one[1]) * (other[0] @ other[1])``, entry by entry."""

    one: _Pair
    other: _Pair
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.one[0]), self.one[1].shape[1]

    @property
    def rank(self) -> int:
        return len(self.one[1]) ** 2

    @property
    def numbers(self) -> int:
        d_out, d_in = self.shape
        return (d_out + d_in) * self.rank if self.rank < min(d_out, d_in) else d_out * d_in + min(d_out, d_in) ** 2

    def whole(self, module: str, budget: Budget) -> Delta:
        if self.rank < min(self.shape):
            up, down = self._factors()
            return Delta(site_of(module), down=down, up=up * np.float32(self.scale))
        up, down = budget.factors(self._dense() * np.float32(self.scale), module)
        return Delta(site_of(module), down=down, up=up)

    def leading(self, module: str, room: Room) -> Delta:
        d_out, d_in = self.shape
        if self.rank < min(d_out, d_in):
            room.work(module, self.rank, max(d_out, d_in), 2)
            return of_product(*self._factors(), room.kept).delta(site_of(module), self.scale)
        room.work(module, d_out, d_in)
        return by_gram(self._dense().astype(np.float64)[None], room.kept)[0].delta(site_of(module), self.scale)

    def _factors(self) -> _Pair:
        (w1a, w1b), (w2a, w2b) = self.one, self.other
        d_out, d_in = self.shape
        up = (w1a[:, :, None] * w2a[:, None, :]).reshape(d_out, self.rank)
        return up, (w1b[:, None, :] * w2b[None, :, :]).reshape(self.rank, d_in)

    def _dense(self) -> FloatArray:
        return (self.one[0] @ self.one[1]) * (self.other[0] @ self.other[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Kronecker:
    """``scale * kron(one[0] @ one[1], other[0] @ other[1])``."""

    one: _Pair
    other: _Pair
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.one[0]) * len(self.other[0]), self.one[1].shape[1] * self.other[1].shape[1]

    @property
    def rank(self) -> int:
        return len(self.one[1]) * len(self.other[1])

    @property
    def numbers(self) -> int:
        d_out, d_in = self.shape
        return (d_out + d_in) * self.rank if self.rank < min(d_out, d_in) else d_out * d_in + min(d_out, d_in) ** 2

    def whole(self, module: str, budget: Budget) -> Delta:
        (up1, down1), (up2, down2), scale = self.one, self.other, np.float32(self.scale)
        if self.rank < min(self.shape):
            return Delta(site_of(module), down=np.kron(down1, down2), up=np.kron(up1, up2) * scale)
        up, down = budget.factors(np.kron(up1 @ down1, up2 @ down2) * scale, module)
        return Delta(site_of(module), down=down, up=up)

    def leading(self, module: str, room: Room) -> Delta:
        for up, down in (self.one, self.other):
            room.work(module, len(down), max(len(up), down.shape[1]), 2)
        both = kronecker(of_product(*self.one), of_product(*self.other), room.kept)
        return both.delta(site_of(module), self.scale)


def _side(parts: Parts, name: str, module: str) -> tuple[FloatArray, FloatArray]:
    """(up, down) of w1 or w2; a whole one goes with the identity of its smaller side."""
    if name in parts:
        if f"{name}_a" in parts or f"{name}_b" in parts:
            raise AdapterError("several adapters", f"{module[-120:]} has {name} whole and in factors")
        whole = matrix(parts, name, module)
        side = min(whole.shape)
        if side > 1 << 12:  # its identity alone would be larger than any real one
            raise AdapterError("too large", f"{module[-120:]}: {name} is {list(whole.shape)}")
        identity = np.eye(side, dtype=np.float32)
        return (whole, identity) if whole.shape[1] == side else (identity, whole)
    up, down = matrix(parts, f"{name}_a", module), matrix(parts, f"{name}_b", module)
    if up.shape[1] != len(down):
        raise AdapterError("shape mismatch", f"{module[-120:]}: {name}_a {list(up.shape)}, {name}_b {list(down.shape)}")
    return up, down
