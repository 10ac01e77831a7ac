"""The dtypes that weights come in, and how each becomes float32 without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

__all__ = ["BYTES", "FLOATS", "TensorLike", "float32", "not_finite", "stored"]

BYTES = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
     "U16": 2, "U32": 4, "U64": 8, "BOOL": 1}
)  # fmt: skip
"""Bytes of one number, by safetensors' name of the dtype."""

# BF16 and the 8-bit floats have no numpy dtype: their bits are read, and turned into numbers afterwards.
_NUMPY = MappingProxyType({"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"})

FLOATS = frozenset(_NUMPY)
"""The dtypes that hold weights."""

_SHORT = 10_000  # up to which BLAS takes a product for one thread's work


class TensorLike(Protocol):
    """What every kind of weights file lists of a tensor."""

    @property
    def dtype(self) -> str:
        """By safetensors' name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Checked against the size of the file."""


def stored(dtype: str, data: Any) -> NDArray[Any]:
    """A flat view of a buffer in the numpy dtype that carries the bits of ``dtype``, one of :data:`FLOATS`."""
    return np.frombuffer(data, dtype=_NUMPY[dtype])


def float32(dtype: str, values: NDArray[Any]) -> FloatArray:
    """Bits as :func:`stored` gives them, of any shape and strides, as float32: a new array in C order.

    What float32 cannot hold becomes infinite, and is refused, with every NaN, where finiteness is checked.
    """
    if dtype == "BF16":
        wide = values.astype(np.uint32, order="C")
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "F32":
        return values.astype(np.float32, order="C")
    if dtype.startswith("F8"):
        return np.ascontiguousarray(_float8_table(dtype)[values])
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, order="C")


def not_finite(arrays: Iterable[FloatArray]) -> int | None:
    """The place of the first array that holds NaN or infinity; None where none does."""
    with np.errstate(over="ignore", invalid="ignore"):
        for place, values in enumerate(arrays):
            if values.size <= _SHORT and values.dtype == np.float32:
                # Most arrays are short and good, and a finite sum of squares shows it at half the price.
                flat = values.ravel(order="K")
                if math.isfinite(np.dot(flat, flat)):
                    continue
            if not np.isfinite(values).all():
                return place
    return None


@lru_cache(maxsize=2)
def _float8_table(dtype: str) -> FloatArray:
    """All 256 values: E4M3 (finite: no infinities, one NaN per sign) and E5M2, as in OCP OFP8 and torch."""
    code = np.arange(256, dtype=np.int64)
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    exponent = (code >> mantissa_bits) & ((1 << (7 - mantissa_bits)) - 1)
    mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    value = np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (1 - bias))
    if dtype == "F8_E4M3":
        value[(code & 0x7F) == 0x7F] = np.nan
    else:
        value[exponent == 31] = np.where(mantissa[exponent == 31] == 0, np.inf, np.nan)
    return np.where(code & 0x80, -value, value).astype(np.float32)
