"""Weights files in memory: opened as a reader opens them, written as torch writes them, and written as an attacker would."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def opened(kind: Callable[[Callable[[int, int], bytes], int], Any], data: bytes) -> Any:
    """A reader of one of the three kinds over bytes; a read outside them is a bug of the reader."""

    def read_range(start: int, stop: int) -> bytes:
        assert 0 <= start <= stop <= len(data), (start, stop, len(data))
        return data[start:stop]

    return kind(read_range, len(data))


def read_all(kind: Callable[[Callable[[int, int], bytes], int], Any], data: bytes) -> dict[str, NDArray[np.float32]]:
    """Every floating-point tensor of a file."""
    from hubrank.checkpoints.dtypes import FLOATS

    file = opened(kind, data)
    return file.read([name for name, tensor in file.tensors.items() if tensor.dtype in FLOATS])


def saved(value: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def torch_zip(
    program: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    method: int = zipfile.ZIP_STORED,
    byteorder: bytes = b"little",
) -> bytes:
    """A zip file laid out like torch's around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/byteorder", byteorder)
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
        file.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """The instruction that pushes a whole number."""
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    """The instructions that push a tuple of numbers."""
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor_pickle(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: int = 0,
    count: int = 4,
    storage: str = "FloatStorage",
    key: str = "0",
    name: str = "weight",
) -> bytes:
    """A state dict of one tensor that claims any shape over a storage that claims any size."""
    reference = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    arguments = b"(" + reference + number(offset) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}" + text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


class RunsCode:
    """Pickled, it calls a function when it is loaded by Python's own unpickler."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def pickled(value: object, protocol: int = 2) -> bytes:
    """Python's own pickle of anything."""
    return pickle.dumps(value, protocol=protocol)
