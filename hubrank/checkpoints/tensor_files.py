"""One way to read weights, whichever kind of file holds them: names and shapes first, then only the tensors wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from hubrank.checkpoints.dtypes import TensorLike
from hubrank.checkpoints.numpy_file import NumpyFile
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.checkpoints.torch_file import TorchFile
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["SUFFIXES", "TensorFile", "open_tensors"]

SUFFIXES = (".safetensors", ".npy", ".npz", ".bin", ".pt", ".pth", ".ckpt")
"""What is read, best first: a pickle only where nothing else holds the weights."""


class TensorFile(Protocol):
    """An open weights file."""

    @property
    def tensors(self) -> Mapping[str, TensorLike]:
        """Dtype and shape of each tensor, by name; at least all floating-point ones."""

    def read(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """The named tensors as float32.

        Raises:
            AdapterError: a tensor is of a dtype that holds no weights, or the file is damaged there.
            HubError: the hub does not answer.
        """


def open_tensors(listing: Listing, bundle: Bundle, candidates: Iterable[str]) -> TensorFile:
    """Open the best of the candidates that the adapter has: safetensors before numpy before pickles, else in their order.

    Args:
        candidates: file names, such as ``adapter_model.safetensors`` and ``adapter_model.bin``.

    Raises:
        AdapterError: ``no weights`` where none is there; otherwise what the file's own reader says of it.
        HubError: the hub does not answer.
    """
    names = list(candidates)
    there = [name for name in names if name in listing.files and name.endswith(SUFFIXES)]
    if not there:
        raise AdapterError("no weights", f"no {' or '.join(names)}")
    name = min(there, key=lambda name: [name.endswith(suffix) for suffix in SUFFIXES].index(True))

    def read_range(start: int, stop: int) -> bytes:
        return bundle.read_range(name, start, stop)

    if name.endswith(".safetensors"):
        return SafetensorsFile(read_range, bundle.size(name), lambda ranges: bundle.read_ranges(name, ranges))
    return (NumpyFile if name.endswith((".npy", ".npz")) else TorchFile)(read_range, bundle.size(name))
