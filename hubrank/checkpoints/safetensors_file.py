"""Read a safetensors file by ranges: the header first, then only the tensors that are wanted.

Format: https://github.com/huggingface/safetensors#format. The header is hostile until checked; everything that the
reference reader refuses (overlaps, holes, trailing bytes, wrong sizes) is refused here too, and so is what it lets
through: duplicate names and shapes whose product overflows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.dtypes import BYTES, FLOATS, float32, stored
from hubrank.errors import AdapterError

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["MAX_HEADER_BYTES", "SafetensorsFile", "TensorInfo", "parse_header"]

MAX_HEADER_BYTES = 25_000_000
"""The cap that huggingface_hub sets."""

_MAX_KEPT = 1 << 16

_TOGETHER = 1 << 18
"""Bytes of neighbours that are read and converted at once: an adapter has hundreds of tensors of some kilobytes."""


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
        read_ranges: the same for several ranges in their order, each when its turn comes, so that whoever reads can fetch
            neighbours together; without it they are read one by one.

    Raises:
        AdapterError: the header is not what the format says.
    """

    def __init__(
        self,
        read_range: Callable[[int, int], bytes],
        size: int,
        read_ranges: Callable[[Sequence[tuple[int, int]]], Iterable[bytes]] | None = None,
    ) -> None:
        if size < 8:
            raise AdapterError("damaged file", f"{size} bytes are no safetensors file")
        length = int.from_bytes(read_range(0, 8), "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise AdapterError("damaged file", f"the safetensors header claims {length:,} bytes of a file of {size:,}")
        self._read_ranges = read_ranges or (lambda ranges: (read_range(start, stop) for start, stop in ranges))
        # Adapters of one shape that one library wrote have one and the same header, and there are thousands of them.
        parse = _known_header if length <= _MAX_KEPT else parse_header
        self.tensors: Mapping[str, TensorInfo] = parse(read_range(8, 8 + length), size)

    def read(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """The named tensors as float32, in the order of the file: neighbours of one dtype share an array while they are
        small, and one such array lies in memory at a time beside what it becomes.

        Raises:
            AdapterError: a tensor is of a dtype that holds no weights.
        """
        wanted = sorted({name: self.tensors[name] for name in names}.items(), key=lambda item: (item[1].start, item[1].stop))
        runs = list(_runs(wanted))
        pieces = self._read_ranges([(run[0][1].start, run[-1][1].stop) for run in runs])
        tensors: dict[str, FloatArray] = {}
        for run, data in zip(runs, pieces, strict=True):
            numbers, at = _decode(*run[0], memoryview(data)), 0
            for name, info in run:
                count = prod(info.shape)
                tensors[name] = numbers[at : at + count].reshape(info.shape)
                at += count
        return tensors


def _runs(wanted: Iterable[tuple[str, TensorInfo]]) -> Iterator[list[tuple[str, TensorInfo]]]:
    """Tensors that follow one another, of one dtype and together no larger than what is read at once."""
    run: list[tuple[str, TensorInfo]] = []
    for name, info in wanted:
        if run and (info.start != run[-1][1].stop or info.dtype != run[0][1].dtype or info.stop - run[0][1].start > _TOGETHER):
            yield run
            run = []
        run.append((name, info))
    if run:
        yield run


@lru_cache(maxsize=16)
def _known_header(header: bytes, size: int) -> Mapping[str, TensorInfo]:
    return parse_header(header, size)


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
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        fits = type(shape) is list and type(start) is type(stop) is int and dtype in BYTES
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise AdapterError("damaged file", f"tensor {_short(name)} has a malformed entry or an unknown dtype")
    if len(shape) > 8 or not all(type(n) is int and 0 <= n <= size for n in shape):
        raise AdapterError("damaged file", f"tensor {_short(name)} has an impossible shape")
    if not 0 <= start <= stop <= size - data_start:
        raise AdapterError("damaged file", f"tensor {_short(name)} lies outside the file")
    if prod(shape) * BYTES[dtype] != stop - start:
        raise AdapterError("damaged file", f"tensor {_short(name)} has {stop - start:,} bytes, which its shape does not fill")
    return TensorInfo(dtype, tuple(shape), data_start + start, data_start + stop)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _decode(name: str, info: TensorInfo, data: memoryview) -> FloatArray:
    if info.dtype not in FLOATS:
        raise AdapterError("unexpected dtype", f"tensor {_short(name)} is {info.dtype}, not floating point")
    return float32(info.dtype, stored(info.dtype, data))


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
