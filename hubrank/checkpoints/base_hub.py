"""A base model's parameters from its repository on a hub: the headers of its safetensors files, and what is asked for.

A model of gigabytes costs little so: shapes are in the headers, biases and norms are kilobytes. What has been read is kept in
a temporary file, so that the next adapter of the same base reads nothing again.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, TYPE_CHECKING

import numpy as np

from hubrank.checkpoints.base_folder import short_names
from hubrank.checkpoints.card import plain
from hubrank.checkpoints.config import parse_config
from hubrank.checkpoints.dtypes import FLOATS
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.hubs.ranged_files import GAP

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["INDEX", "MAX_HEADERS", "WHOLE", "HubTensors"]

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADERS = 16_000_000
"""Bytes of the index and the headers of one base; they stay in memory for the sync, at several times that."""
_RUN = 1 << 20  # vectors that lie this close together come along: a norm's bias and weight, the bias of the next module


class HubTensors:
    """The parameters in ``model.safetensors`` or its shards. May be used by many threads.

    Args:
        listing: of the model's repository, at the commit that is read.
        bundle: its files.
        room: how many bytes may still be read. More are not, whatever is asked for.

    Attributes:
        headers: bytes of index and headers that are held.

    Raises:
        AdapterError: always ``needs base``, never lasting: the repository has no safetensors, is closed, damaged, or too large.
        HubError: the hub does not answer.
    """

    def __init__(self, listing: Listing, bundle: Bundle, *, room: Callable[[], int]) -> None:
        self._repo, self._bundle, self._room = listing.repo, bundle, room
        self._lock = threading.Lock()
        self._open: dict[str, _Shard] = {}
        self._shelf = _Shelf()
        self.headers = 0
        with self._errors():
            if WHOLE in listing.files:
                self._shards = dict.fromkeys(self._shard(WHOLE).file.tensors, WHOLE)
            elif INDEX in listing.files:
                self._shards = self._index(listing)
            else:
                raise AdapterError("needs base", "it has no safetensors weights on the Hub")
        self._keys = short_names(self._shards)

    def get(self, name: str) -> FloatArray | None:
        """The parameter in float32, or None where the model has none of that name."""
        key = self._keys.get(name)
        if key is None:
            return None
        with self._lock, self._errors():
            if key not in self._shelf:
                shard = self._shard(self._shards[key])
                if key not in shard.file.tensors:
                    return None
                self._fetch(shard, [name for name in shard.around(key) if name not in self._shelf])
            return self._shelf.take(key)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The parameter's shape, or None where the model has none of that name."""
        key = self._keys.get(name)
        if key is None:
            return None
        with self._lock, self._errors():
            info = self._shard(self._shards[key]).file.tensors.get(key)
        return None if info is None else info.shape

    def _index(self, listing: Listing) -> dict[str, str]:
        raw = self._bundle.read(INDEX, limit=MAX_HEADERS)
        self.headers += len(raw)
        shards = parse_config(INDEX, raw).get("weight_map")
        sound = isinstance(shards, dict) and all(
            isinstance(shard, str) and shard.endswith(".safetensors") and shard in listing.files for shard in shards.values()
        )
        if not isinstance(shards, dict) or not sound:
            raise AdapterError("bad config", f"{INDEX} names no shards that are there")
        return {key: str(shard) for key, shard in shards.items()}

    def _shard(self, name: str) -> _Shard:
        """A shard, whose header is read when the first tensor in it is asked for."""
        if name not in self._open:
            length = int.from_bytes(self._bundle.read_range(name, 0, 8), "little") if self._bundle.size(name) >= 8 else 0
            if self.headers + length > MAX_HEADERS:
                raise AdapterError("too large", f"its headers have more than {MAX_HEADERS:,} bytes")
            self._need(length)
            file = SafetensorsFile(
                lambda start, stop: self._bundle.read_range(name, start, stop),
                self._bundle.size(name),
                lambda ranges: self._bundle.read_ranges(name, ranges),
            )
            self.headers += length
            self._open[name] = _Shard.of(file)
        return self._open[name]

    def _fetch(self, shard: _Shard, keys: list[str]) -> None:
        infos = [shard.file.tensors[key] for key in keys]
        self._need(sum(info.stop - info.start for info in infos))
        for key, tensor in shard.file.read(keys).items():
            self._shelf.put(key, tensor)

    def _need(self, count: int) -> None:
        room = self._room()
        if count > room:
            raise AdapterError("too large", f"{count:,} bytes of it are needed, and this sync may read {max(room, 0):,} more")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What is wrong with the base is not the adapter's fault, and may be mended."""
        try:
            yield
        except AdapterError as error:
            detail = error.detail if error.reason == "needs base" else f"{error.reason}: {error.detail}"
            raise AdapterError("needs base", f"{plain(self._repo, 120)}: {detail}", lasting=False) from error


@dataclass(frozen=True, slots=True)
class _Shard:
    """A file of a model, and where its vectors lie: ``starts`` rises, ``vectors`` are the names to it."""

    file: SafetensorsFile
    starts: list[int]
    vectors: list[str]

    @classmethod
    def of(cls, file: SafetensorsFile) -> _Shard:
        flat = sorted(
            (info.start, name) for name, info in file.tensors.items() if len(info.shape) == 1 and info.dtype in FLOATS
        )
        return cls(file, [start for start, _ in flat], [name for _, name in flat])

    def around(self, key: str) -> list[str]:
        """A matrix alone; a vector with those that lie beside it, as one request reads them all."""
        info = self.file.tensors[key]
        place = bisect_left(self.starts, info.start)
        while place < len(self.vectors) and self.vectors[place] != key and self.starts[place] == info.start:
            place += 1  # empty tensors begin where the next one does
        if len(info.shape) != 1 or place == len(self.vectors) or self.vectors[place] != key:
            return [key]
        first, last = place, place
        while first > 0 and self._close(first - 1, first) and info.stop - self.starts[first - 1] <= _RUN:
            first -= 1
        begin = self.starts[first]
        while last + 1 < len(self.vectors) and self._close(last, last + 1) and self._stop(last + 1) - begin <= _RUN:
            last += 1
        return self.vectors[first : last + 1]

    def _close(self, one: int, other: int) -> bool:
        return self.starts[other] - self._stop(one) <= GAP

    def _stop(self, place: int) -> int:
        return self.file.tensors[self.vectors[place]].stop


class _Shelf:
    """Tensors in a temporary file that nobody else sees and that goes with the process."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._end = 0

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def put(self, key: str, tensor: FloatArray) -> None:
        data = np.ascontiguousarray(tensor, dtype=np.float32)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by the finalizer
                weakref.finalize(self, self._file.close)
            self._file.seek(self._end)
            self._file.write(data.tobytes())
        except OSError as error:
            where = f"{tempfile.gettempdir()}: {error.strerror}"
            raise AdapterError("no temporary space", f"it cannot be kept in {where}", lasting=False) from error
        self._places[key] = self._end, tensor.shape
        self._end += data.nbytes

    def take(self, key: str) -> FloatArray:
        start, shape = self._places[key]
        if self._file is None:
            raise ValueError(f"{key} was never put there")
        self._file.seek(start)
        return np.frombuffer(self._file.read(4 * prod(shape)), np.float32).reshape(shape)
