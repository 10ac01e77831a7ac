"""Read a safetensors file by ranges: the header first, then only the tensors that are wanted.

Format: https://github.com/huggingface/safetensors#format. The header is hostile until checked; everything that the
reference reader refuses (overlaps, holes, trailing bytes, wrong sizes) is refused here too, and so is what it lets
through: duplicate names and shapes whose product overflows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import AdapterError

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["MAX_HEADER_BYTES", "SafetensorsFile", "TensorInfo", "parse_header"]

MAX_HEADER_BYTES = 25_000_000
"""The cap that huggingface_hub sets."""

_GAP = 64 * 1024  # reading this much for nothing is cheaper than another request

_BYTES = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
     "U16": 2, "U32": 4, "U64": 8, "BOOL": 1}
)  # fmt: skip
_NUMPY = MappingProxyType({"F64": "<f8", "F32": "<f4", "F16": "<f2"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a header; ``start`` and ``stop`` count from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """A safetensors file behind a function that reads ranges of it.

    Args:
        read_range: ``(start, stop) -> bytes``, exactly that many.
        size: of the file in bytes.

    Raises:
        AdapterError: the header is not what the format says.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        if size < 8:
            raise AdapterError("damaged file", f"{size} bytes are no safetensors file")
        length = int.from_bytes(read_range(0, 8), "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise AdapterError("damaged file", f"the safetensors header claims {length:,} bytes of a file of {size:,}")
        self._read_range = read_range
        self.tensors: Mapping[str, TensorInfo] = parse_header(read_range(8, 8 + length), size)

    def read(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """The named tensors as float32, neighbours in one read.

        Raises:
            AdapterError: a tensor is of a dtype that holds no weights.
        """
        wanted = sorted((self.tensors[name].start, name) for name in names)
        out: dict[str, FloatArray] = {}
        for run in _coalesce([(name, self.tensors[name]) for _, name in wanted]):
            start = run[0][1].start
            data = self._read_range(start, max(info.stop for _, info in run))
            for name, info in run:
                out[name] = _decode(name, info, memoryview(data)[info.start - start : info.stop - start])
        return out


def parse_header(header: bytes, size: int) -> Mapping[str, TensorInfo]:
    """Check a header against the size of its file.

    Args:
        header: the JSON bytes after the 8-byte length.
        size: of the whole file.

    Raises:
        AdapterError: with reason ``damaged file``.
    """
    data_start = 8 + len(header)
    try:
        value = json.loads(header.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise AdapterError("damaged file", f"the safetensors header is not JSON ({_short(error)})") from None
    if not isinstance(value, dict):
        raise AdapterError("damaged file", "the safetensors header is not an object")
    value.pop("__metadata__", None)
    infos = {name: _info(name, entry, data_start, size) for name, entry in value.items()}
    position = data_start
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != position:
            raise AdapterError("damaged file", f"tensor {_short(name)} overlaps its neighbour or leaves a hole")
        position = info.stop
    if position != size:
        raise AdapterError("damaged file", f"tensors end at byte {position:,} of {size:,}")
    return MappingProxyType(infos)


def _info(name: str, entry: Any, data_start: int, size: int) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]} if dtype in _BYTES:
            pass
        case _:
            raise AdapterError("damaged file", f"tensor {_short(name)} has a malformed entry or an unknown dtype")
    if len(shape) > 8 or not all(type(n) is int and 0 <= n <= size for n in shape):
        raise AdapterError("damaged file", f"tensor {_short(name)} has an impossible shape")
    if isinstance(start, bool) or isinstance(stop, bool) or not 0 <= start <= stop <= size - data_start:
        raise AdapterError("damaged file", f"tensor {_short(name)} lies outside the file")
    if prod(shape) * _BYTES[dtype] != stop - start:
        raise AdapterError("damaged file", f"tensor {_short(name)} has {stop - start:,} bytes, which its shape does not fill")
    return TensorInfo(dtype, tuple(shape), data_start + start, data_start + stop)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _coalesce(infos: list[tuple[str, TensorInfo]]) -> Iterable[list[tuple[str, TensorInfo]]]:
    run: list[tuple[str, TensorInfo]] = []
    for name, info in infos:
        if run and info.start - run[-1][1].stop > _GAP:
            yield run
            run = []
        run.append((name, info))
    if run:
        yield run


def _decode(name: str, info: TensorInfo, data: memoryview) -> FloatArray:
    if info.dtype == "BF16":
        wide = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(info.shape)
    if info.dtype.startswith("F8"):
        return _float8_table(info.dtype)[np.frombuffer(data, dtype=np.uint8)].reshape(info.shape)
    if not info.dtype.startswith("F"):
        raise AdapterError("unexpected dtype", f"tensor {_short(name)} is {info.dtype}, not floating point")
    # What float32 cannot hold becomes infinite, and is refused, with every NaN, where finiteness is checked.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(data, dtype=_NUMPY[info.dtype]).astype(np.float32).reshape(info.shape)


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


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
