"""Representation fine-tuning of ``adapters``: LoReFT, NoReFT, DiReFT.

``methods/reft.py``, ``ReftUnit.forward``: ``x + R^T (W x + b - R x)`` after a layer, at the first and the last few positions
(DiReFT without ``- R x``). So a delta is ``R^T (W - R)`` and its shift ``R^T b``: the same under a rotation of the r-space.
A unit for positions that the config sets to none is never run, and is not read.

LoReFT keeps R orthogonal by torch's parametrisation (``torch/nn/utils/parametrizations.py``, ``_Orthogonal``): with
``o = original^T`` [d, r] and ``base`` [d, d], R = (base @ H)^T, where H is the product of the Householder reflections below
the diagonal of o, its columns multiplied by the diagonal (1, -1, or 0 where that has decayed).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.adapters_config import AdaptersConfig
from hubrank.checkpoints.adapters_weights import Module, collect, finish, split_key
from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_reft", "wanted_reft"]

_SLOT = "refts"
_PARTS = ("units",)
_MAX_RANK = 512
_ORIGINAL = "projection.parametrizations.weight.original"
_BASE = "projection.parametrizations.weight.0.base"


def wanted_reft(names: Iterable[str], config: AdaptersConfig, method: Mapping[str, Any]) -> list[str]:
    """The keys of the units that are run."""
    del config
    units = {f"units.{unit}." for _, unit in _positions(method)}
    return [name for name in names if (key := split_key(name, _SLOT, _PARTS)) and key.part.startswith(tuple(units))]


def read_reft(config: AdaptersConfig, method: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str) -> Adapter:
    """One delta a layer and kind of position: down = W - R [r, d], up = R^T [d, r], shift [d].

    Sites are ``reft_layer.prefix`` and ``reft_layer.suffix``; tied weights give the same delta at both.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite, or the config is not understood.
    """
    warnings = []
    if method.get("non_linearity") is not None:
        warnings.append("the non-linearity after the learned source is left out")
    orthogonal = fields.boolean(method, "orthogonality")
    subtract = method.get("subtract_projection") is None or fields.boolean(method, "subtract_projection")
    if not orthogonal and method.get("subtract_projection") is None:
        # adapters 1.3.0 never writes the field that tells them apart, and loads both as NoReFT.
        warnings.append("NoReFT or DiReFT: the config does not tell; read as NoReFT, as the library does")
    rank = fields.integer(method, "r", default=1, high=_MAX_RANK)
    positions = _positions(method)
    modules, _ = collect(tensors, _SLOT, _PARTS, config.name)
    deltas = []
    for path, module in modules.items():
        for position, unit in positions:
            r = _orthogonal(module, unit, rank) if orthogonal else module.take(f"units.{unit}.projection.weight", rank, None)
            w = module.take(f"units.{unit}.learned_source.weight", *r.shape)
            b = module.take(f"units.{unit}.learned_source.bias", rank)
            up = np.ascontiguousarray(r.T)
            deltas.append(Delta(site_of(f"{path}.{position}"), down=w - r if subtract else w, up=up, shift=up @ b))
    variant = "loreft" if orthogonal else "noreft" if subtract else "direft"
    return finish(base, "reft", deltas, warnings, variant)


def _positions(method: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Which kinds of position are changed, and by which unit."""
    tied = fields.boolean(method, "tied_weights")
    found = []
    if fields.integer(method, "prefix_positions", default=3, low=0):
        found.append(("prefix", 0))
    if fields.integer(method, "suffix_positions", default=0, low=0):
        found.append(("suffix", 0 if tied else 1))
    if not found:
        raise AdapterError("bad config", "prefix_positions and suffix_positions are both 0")
    return found


def _orthogonal(module: Module, unit: int, rank: int) -> FloatArray:
    """R [r, d] with orthonormal rows."""
    original = module.take(f"units.{unit}.{_ORIGINAL}", rank, None)
    d = original.shape[1]
    if rank >= d:
        raise AdapterError("unsupported variant", f"{module.label}: an orthogonal projection of rank {rank} of {d}")
    base = module.take(f"units.{unit}.{_BASE}", d, d)
    reflectors = np.tril(original.T.astype(np.float64), -1)
    taus = 2 / (1 + (reflectors**2).sum(axis=0))
    reflectors += np.eye(d, rank)
    # The product of the reflections I - tau v v^T is I - V T V^T, where T^-1 holds 1 / tau and, above them, V^T V.
    inverse = np.triu(reflectors.T @ reflectors, 1) + np.diag(1 / taus)
    q = np.eye(d, rank) - reflectors @ np.linalg.solve(inverse, reflectors[:rank].T)
    q *= np.trunc(np.diagonal(original))
    return np.ascontiguousarray((base @ q.astype(np.float32)).T)
