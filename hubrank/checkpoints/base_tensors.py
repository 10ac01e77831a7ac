"""The base model's own weights, for the families whose change depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.errors import AdapterError

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["BaseTensors", "base_vector", "base_weight"]

_WRAPPERS = 3  # a head's model puts at most this many names before the base model's own path


class BaseTensors(Protocol):
    """Parameters of a base model by their full names, such as ``encoder.layer.0.attention.self.query.weight``."""

    def get(self, name: str) -> FloatArray | None:
        """The parameter in float32, or None where the model has none of that name."""


def base_weight(
    base_tensors: BaseTensors | None,
    module: str,
    config: Mapping[str, Any],
    *,
    d_out: int | None = None,
    d_in: int | None = None,
    transposed: bool = False,
) -> FloatArray | None:
    """The weight of a module as [d_out, d_in], whichever way the model keeps it; None where it is not at hand.

    Args:
        base_tensors: where to look.
        module: as the adapter names it, perhaps with names of a headed model in front.
        config: adapter_config.json; ``fan_in_fan_out`` says that the model keeps [d_in, d_out], as GPT-2's Conv1D does.
        d_out, d_in: what the adapter's own tensors say of the shape.
        transposed: it is kept as [d_in, d_out] whatever the config says, as an embedding is.

    Raises:
        AdapterError: no orientation fits what the adapter says, or the weight is not finite.
    """
    weight = _find(base_tensors, f"{module}.weight")
    if weight is None:
        return None
    if weight.ndim != 2:
        raise AdapterError("shape mismatch", f"{module}: the base weight has {weight.ndim} dimensions, not 2")
    kept = transposed or fields.boolean(config, "fan_in_fan_out")
    for candidate in (weight.T, weight) if kept else (weight, weight.T):
        if d_out in (None, candidate.shape[0]) and d_in in (None, candidate.shape[1]):
            return candidate
    raise AdapterError("shape mismatch", f"{module}: the base weight is {list(weight.shape)}, the adapter says {[d_out, d_in]}")


def base_vector(base_tensors: BaseTensors | None, name: str, size: int) -> FloatArray | None:
    """A bias or a norm's weight, [size]; None where it is not at hand.

    Raises:
        AdapterError: it has another shape, or is not finite.
    """
    vector = _find(base_tensors, name)
    if vector is not None and vector.shape != (size,):
        raise AdapterError("shape mismatch", f"{name}: the base has {list(vector.shape)}, the adapter {[size]}")
    return vector


def _find(base_tensors: BaseTensors | None, name: str) -> FloatArray | None:
    if base_tensors is None:
        return None
    for _ in range(_WRAPPERS):
        tensor = base_tensors.get(name)
        if tensor is not None:
            if not np.isfinite(tensor).all():
                raise AdapterError("not finite", f"{name} of the base model holds NaN or infinity")
            return tensor
        head, _, name = name.partition(".")
        if not name or not head or head.isdigit():
            break
    return None
