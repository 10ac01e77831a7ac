"""peft's HRA: the input of a module is mirrored by a few Householder reflections, and W becomes W H.

Formula (peft 0.21, ``tuners/hra/layer.py``): H = prod(I - 2 u u^T) over unit vectors u, made orthogonal first under
``apply_GS``. H - I has the rank of their number, so that ``W (H - I)`` is exact in small factors. Without the base weights a
delta is H - I itself, a map of the module's input space [d_in] to itself, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors, base_weight
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, matrix
from hubrank.checkpoints.peft_rotations import WITHOUT_BASE
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["read_hra", "wanted_hra"]

_HRA = Grammar.of("hra_u")
_MAX_REFLECTIONS = 1 << 10


def wanted_hra(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_hra` needs."""
    return _HRA.wanted(names)


def read_hra(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the reflections of an HRA into deltas of their number; see the module for what they hold.

    Args:
        config: adapter_config.json.
        tensors: u [d_in, r] of each module by key.
        base: id of the base model.
        base_tensors: the base model's weights, for the exact change.

    Raises:
        AdapterError: a tensor is of the wrong shape or not finite; the config is malformed; or the factors are too large.
    """
    rank = fields.integer(config, "r", default=8, high=_MAX_REFLECTIONS)
    orthogonal = fields.boolean(config, "apply_GS")
    budget = Budget()
    turns, exact = [], []
    for module, parts in _HRA.modules(tensors).items():
        u = matrix(parts, "hra_u", module)
        if u.shape[1] != rank or rank > len(u):
            raise AdapterError("shape mismatch", f"{module[-120:]}: {u.shape[1]} reflections of {len(u)}, r is {rank}")
        up, down = _reflections(u.astype(np.float64), orthogonal=orthogonal)
        budget.take(2 * u.size, module)
        turns.append(Delta(site_of(module), down=down.astype(np.float32), up=up.astype(np.float32)))
        weight = base_weight(base_tensors, module, config, d_in=len(u))
        if weight is not None:
            budget.take(len(weight) * rank, module)
            exact.append(Delta(site_of(module), down=turns[-1].down, up=(weight @ up).astype(np.float32)))
    if len(exact) == len(turns):
        return adapter_of(base, "rotation", exact, variant="hra")
    return adapter_of(base, "rotation", turns, variant="hra", warnings=[f"HRA {WITHOUT_BASE}"])


def _reflections(u: NDArray[np.float64], *, orthogonal: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(up [d, r], down [r, d]) of H - I. The product of reflections in compact form: H = I + Y U^T, one column at a time."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a zero vector makes NaN, which is refused
        if orthogonal:
            for i in range(u.shape[1]):
                u[:, i] -= u[:, :i] @ (u[:, :i].T @ u[:, i])
                u[:, i] /= np.linalg.norm(u[:, i])
        else:
            u = u / np.linalg.norm(u, axis=0)
        y = np.zeros_like(u)
        for i in range(u.shape[1]):
            y[:, i] = -2 * (u[:, i] + y[:, :i] @ (u[:, :i].T @ u[:, i]))
    return y, u.T
