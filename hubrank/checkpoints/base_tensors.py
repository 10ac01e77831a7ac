"""The base model's own weights, for the families whose change depends on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.errors import AdapterError

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["BaseShapes", "BaseTensors", "base_shape", "base_vector", "base_weight"]

_Found = TypeVar("_Found")
_WRAPPERS = 3  # a head's model puts at most this many names before the base model's own path


class BaseTensors(Protocol):
    """Parameters of a base model by their full names, such as ``encoder.layer.0.attention.self.query.weight``."""

    def get(self, name: str) -> FloatArray | None:
        """The parameter in float32, or None where the model has none of that name."""


@runtime_checkable
class BaseShapes(BaseTensors, Protocol):
    """Base tensors that know a shape without reading the numbers: over a network it costs nothing, a matrix megabytes."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The parameter's shape, or None where the model has none of that name."""


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
    kept = transposed or fields.boolean(config, "fan_in_fan_out")
    return weight.T if _turned(module, weight.shape, kept, d_out, d_in) else weight


def base_shape(
    base_tensors: BaseTensors | None, module: str, config: Mapping[str, Any], *, d_out: int | None = None
) -> tuple[int, int] | None:
    """(d_out, d_in) of a module's weight, as :func:`base_weight` would give it, without reading its numbers where that can be.

    Raises:
        AdapterError: no orientation fits what the adapter says.
    """
    if isinstance(base_tensors, BaseShapes):
        shape = _named(base_tensors.shape, f"{module}.weight")
    else:
        weight = _find(base_tensors, f"{module}.weight")
        shape = None if weight is None else weight.shape
    if shape is None:
        return None
    turned = _turned(module, shape, fields.boolean(config, "fan_in_fan_out"), d_out, None)
    return (shape[1], shape[0]) if turned else (shape[0], shape[1])


def _turned(module: str, shape: tuple[int, ...], kept: bool, d_out: int | None, d_in: int | None) -> bool:
    """Whether a weight that is kept in this shape is [d_in, d_out]: as the config says, if the adapter's tensors fit that."""
    if len(shape) != 2:
        raise AdapterError("shape mismatch", f"{module}: the base weight has {len(shape)} dimensions, not 2")
    for turned in (kept, not kept):
        rows, columns = shape[::-1] if turned else shape
        if d_out in (None, rows) and d_in in (None, columns):
            return turned
    raise AdapterError("shape mismatch", f"{module}: the base weight is {list(shape)}, the adapter says {[d_out, d_in]}")


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
    tensor = None if base_tensors is None else _named(base_tensors.get, name)
    if tensor is not None and not np.isfinite(tensor).all():
        raise AdapterError("not finite", f"{name} of the base model holds NaN or infinity")
    return tensor


def _named(look: Callable[[str], _Found | None], name: str) -> _Found | None:
    """What is found under a name, or under it less the words that a head's model puts in front."""
    for _ in range(_WRAPPERS):
        found = look(name)
        if found is not None:
            return found
        head, _, name = name.partition(".")
        if not name or not head or head.isdigit():
            break
    return None
