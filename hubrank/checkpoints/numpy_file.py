"""Read the floating-point arrays of a .npy or .npz file; shapes are checked before anything is allocated.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. numpy evaluates the header as a Python
literal; here it has to be written exactly as numpy writes it, so that nothing is evaluated. Arrays of objects are
pickles, and are never loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hubrank.checkpoints.dtypes import BYTES
from hubrank.errors import AdapterError
from hubrank.hubs.zip_file import ZipFile

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["MAX_ARRAY_BYTES", "NumpyArray", "NumpyFile"]

MAX_ARRAY_BYTES = 4 * 1024**3
_MAX_HEADER = 4096
_MAX_ARRAYS = 10_000
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[<>|=][a-zA-Z]\d{0,4})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\d, L]{0,200})\),? ?\} *\n?"
)
_DTYPES = MappingProxyType({"f8": "F64", "f4": "F32", "f2": "F16"})


@dataclass(frozen=True, slots=True)
class NumpyArray:
    """One array: ``descr`` is numpy's own name of its dtype, ``data_start`` counts from the magic bytes."""

    dtype: str
    shape: tuple[int, ...]
    descr: str
    fortran: bool
    data_start: int


class NumpyFile:
    """A .npy or .npz file behind a function that reads ranges of it; the array of a .npy file is called ``""``.

    Args:
        read_range: ``(start, stop) -> bytes``, exactly that many.
        size: of the file in bytes.

    Raises:
        AdapterError: ``damaged file``, ``unsafe file``, ``file too large`` or ``unsupported format``.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        if size > MAX_ARRAY_BYTES:
            raise AdapterError("file too large", f"{size:,} bytes; at most {MAX_ARRAY_BYTES:,} are read")
        self._read_range, self._size = read_range, size
        head = read_range(0, min(size, 10 + _MAX_HEADER))
        self._zip = ZipFile(read_range, size) if head.startswith(b"PK") else None
        if self._zip is None:
            arrays = {"": _parse(head, size)}
        else:
            names = [name for name in self._zip.members if name.endswith(".npy")]
            if len(names) > _MAX_ARRAYS:
                raise AdapterError("file too large", f"the file holds {len(names):,} arrays; at most {_MAX_ARRAYS:,} are read")
            arrays = {name.removesuffix(".npy"): self._member_header(self._zip, name) for name in names}
        self.tensors: Mapping[str, NumpyArray] = MappingProxyType({n: a for n, a in arrays.items() if a.dtype in BYTES})

    def read(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """The named arrays as float32 in C order.

        Raises:
            AdapterError: ``file too large`` where together they ask for more memory than the file is worth.
        """
        wanted = {name: self.tensors[name] for name in names}
        # What inflates more than threefold is no trained weights; a margin lets small files of zeros through.
        sizes = [prod(array.shape) * max(4, BYTES[array.dtype]) for array in wanted.values()]
        if sum(sizes) + max(sizes, default=0) > 3 * self._size + 100_000_000:
            raise AdapterError("file too large", f"arrays of {sum(sizes):,} bytes in a file of {self._size:,}")
        return {name: _array(array, self._data(name, array)) for name, array in wanted.items()}

    def _data(self, name: str, array: NumpyArray) -> bytes | memoryview:
        length = prod(array.shape) * BYTES[array.dtype]
        if self._zip is None:
            return self._read_range(array.data_start, array.data_start + length)
        return self._zip.read(f"{name}.npy", limit=array.data_start + length)[array.data_start :]

    def _member_header(self, zipped: ZipFile, name: str) -> NumpyArray:
        member = zipped.members[name]
        return _parse(bytes(zipped.read(name, limit=MAX_ARRAY_BYTES, first=10 + _MAX_HEADER)), member.size)


def _parse(head: bytes, size: int) -> NumpyArray:
    if not head.startswith(b"\x93NUMPY") or len(head) < 12 or head[6] not in (1, 2, 3):
        raise AdapterError("damaged file", "no .npy file")
    start = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:start], "little")
    match = _HEADER.fullmatch(head[start : start + length].decode("latin-1"))
    if length > _MAX_HEADER or match is None:
        raise AdapterError("unsupported format", "the header of the .npy file is not one of a plain array")
    dims = [part.strip().removesuffix("L") for part in match["shape"].split(",")]
    if not all(part.isdecimal() and len(part) <= 12 for part in dims if part) or len(dims) > 9:
        raise AdapterError("damaged file", "the .npy file has an impossible shape")
    shape = tuple(int(part) for part in dims if part)
    descr = match["descr"]
    if descr[1] == "O":
        raise AdapterError("unsafe file", "the .npy file holds Python objects, which are never loaded")
    dtype = _DTYPES.get(descr[1:], descr)
    if dtype in BYTES and start + length + prod(shape) * BYTES[dtype] != size:
        raise AdapterError("damaged file", "the shape in the .npy header does not fill the file")
    return NumpyArray(dtype, shape, descr, match["fortran"] == "True", start + length)


def _array(array: NumpyArray, data: bytes | memoryview) -> FloatArray:
    values = np.frombuffer(data, dtype=array.descr).reshape(array.shape, order="F" if array.fortran else "C")
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused where finiteness is checked
        return values.astype(np.float32, order="C")
