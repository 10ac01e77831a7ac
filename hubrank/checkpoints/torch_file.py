"""Read the tensors of a .bin, .pt, .pth or .ckpt file that ``torch.save`` wrote, without torch and without running its pickle.

Both formats are read by ranges: the zip file of torch 1.6 and later, whose directory and pickle say where every storage
lies, and the format before it (five pickles, then the storages one after the other; ``torch/serialization.py``,
``_legacy_load``). What a tensor claims is checked against its storage, and every storage against the file, before
anything is allocated. Tar files, from before torch 0.1.10, are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.lib.stride_tricks import as_strided

from hubrank.checkpoints.dtypes import BYTES, FLOATS, float32, stored
from hubrank.checkpoints.torch_pickle import View, run_pickle
from hubrank.errors import AdapterError
from hubrank.hubs.zip_file import Member, ZipFile, member_payload

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["MAX_FILE_BYTES", "MAX_PICKLE_BYTES", "TorchFile", "TorchTensor"]

MAX_FILE_BYTES = 4 * 1024**3
MAX_PICKLE_BYTES = 16_000_000

_MAGIC = 0x1950A86A20F9469CFC6C
_RUN = 32_000_000  # neighbouring storages are read together up to this many bytes
_GAP = 64 * 1024
# Checkpoints of trainers keep the weights one level down, beside optimizer states and the like.
_INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "adapter")


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """One tensor: ``strides`` and ``offset`` count numbers of the storage ``key``."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    key: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bytes of a storage lie: ``data_start`` is None in a zip file, whose local header has to be seen first."""

    start: int
    stop: int
    data_start: int | None
    member: Member | None


class TorchFile:
    """A torch checkpoint behind a function that reads ranges of it.

    ``tensors`` lists the floating-point tensors by name: those of the outermost dictionary, or where it has none, of the
    first dictionary in it that has a usual name, such as ``state_dict``. A file that is one bare tensor lists it as ``""``.

    Args:
        read_range: ``(start, stop) -> bytes``, exactly that many.
        size: of the file in bytes.

    Raises:
        AdapterError: ``unsafe file`` where the pickle asks for anything but tensors, or a tensor for more than its storage;
            ``damaged file``; ``file too large``; ``unsupported format``.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise AdapterError("file too large", f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        self._read_range = read_range
        self._size = size
        head = read_range(0, min(4, size))
        views, self._places = _open_zip(read_range, size) if head.startswith(b"PK") else _open_legacy(read_range, size)
        self.tensors: Mapping[str, TorchTensor] = MappingProxyType(
            {name: _checked(name, view, size) for name, view in views.items() if view.dtype in FLOATS}
        )

    def read(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """The named tensors as float32 in C order; names that share one tensor share one array.

        Raises:
            AdapterError: ``unsafe file`` where tensors overlap so much that they ask for more memory than the file is worth.
        """
        wanted = {name: self.tensors[name] for name in names}
        by_storage: dict[str, set[TorchTensor]] = {}
        for tensor in wanted.values():
            by_storage.setdefault(tensor.key, set()).add(tensor)
        self._check_memory(by_storage)
        arrays: dict[TorchTensor, FloatArray] = {}
        for run in _runs([(key, self._places[key]) for key in by_storage]):
            start = run[0][1].start
            data = memoryview(self._read_range(start, run[-1][1].stop))
            for key, place in run:
                payload = _payload(place, data[place.start - start : place.stop - start])
                arrays |= {tensor: _array(tensor, payload) for tensor in by_storage[key]}
        return {name: arrays[tensor] for name, tensor in wanted.items()}

    def _check_memory(self, by_storage: Mapping[str, Iterable[TorchTensor]]) -> None:
        out = sum(4 * prod(tensor.shape) for tensors in by_storage.values() for tensor in tensors)
        raw = max((self._places[key].stop - self._places[key].start for key in by_storage), default=0)
        if out + raw > 4 * self._size + 160_000_000:
            raise AdapterError("unsafe file", f"tensors of {out:,} bytes in a file of {self._size:,}")


def _open_zip(read_range: Callable[[int, int], bytes], size: int) -> tuple[dict[str, View], dict[str, _Place]]:
    zipped = ZipFile(read_range, size)
    if not all(member.stored for member in zipped.members.values()):
        raise AdapterError("unsafe file", "the checkpoint is a compressed zip file, which torch never writes")
    pickles = [name for name in zipped.members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise AdapterError("damaged file", "the zip file holds no data.pkl of a torch checkpoint")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in zipped.members and bytes(zipped.read(f"{root}byteorder", limit=16)) != b"little":
        raise AdapterError("unsupported format", "the checkpoint was written by a big-endian machine")
    views = _views(run_pickle(zipped.read(pickles[0], limit=MAX_PICKLE_BYTES)).value)
    places = {}
    for view in views.values():
        member = zipped.members.get(f"{root}data/{view.storage.key}")
        if member is None or member.size != view.storage.item * view.storage.count:
            raise AdapterError("damaged file", "a tensor's storage is missing from the file, or of another size than stated")
        places[view.storage.key] = _Place(member.start, member.stop, None, member)
    return views, places


def _open_legacy(read_range: Callable[[int, int], bytes], size: int) -> tuple[dict[str, View], dict[str, _Place]]:
    head = read_range(0, min(size, MAX_PICKLE_BYTES))
    magic = run_pickle(head)
    if magic.value != _MAGIC:
        raise AdapterError("damaged file", "neither a zip file nor a torch checkpoint of the older format")
    version = run_pickle(head, magic.end)
    system = run_pickle(head, version.end)
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise AdapterError("unsupported format", "the checkpoint was written by a big-endian machine")
    pickled = run_pickle(head, system.end)
    listed = run_pickle(head, pickled.end)
    views, keys, at = _views(pickled.value), listed.value, listed.end
    if not isinstance(keys, list):
        raise AdapterError("damaged file", "the checkpoint lists no storages")
    places = {}
    for key in keys:
        storage = pickled.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in places:
            raise AdapterError("damaged file", "the checkpoint lists a storage that no tensor uses")
        start, stop = at, at + 8 + storage.count * storage.item
        if stop > size or int.from_bytes(read_range(start, start + 8), "little", signed=True) != storage.count:
            raise AdapterError("damaged file", "a tensor's storage is not where the checkpoint says")
        places[key] = _Place(start, stop, 8, None)
        at = stop
    if any(view.storage.key not in places for view in views.values()):
        raise AdapterError("damaged file", "a tensor's storage is missing from the file")
    return views, places


def _views(value: Any) -> dict[str, View]:
    if isinstance(value, View):
        return {"": value}
    if not isinstance(value, dict):
        return {}
    candidates = [value, *(value[name] for name in _INSIDE if isinstance(value.get(name), dict))]
    for candidate in candidates:
        views = {name: view for name, view in candidate.items() if isinstance(view, View)}
        if any(view.dtype in FLOATS for view in views.values()):
            return views
    return {}


def _checked(name: str, view: View, size: int) -> TorchTensor:
    """A view whose numbers are all its own and all in its storage."""
    if not all(0 <= n <= size for n in (*view.shape, *view.strides, view.offset)):
        raise AdapterError("unsafe file", f"tensor {name[:60]!r} has an impossible shape")
    extent = 1
    for stride, length in sorted(pair for pair in zip(view.strides, view.shape, strict=True) if pair[1] > 1):
        if stride < extent:
            raise AdapterError("unsafe file", f"tensor {name[:60]!r} repeats its numbers (shape {list(view.shape)})")
        extent += stride * (length - 1)
    if prod(view.shape) == 0:
        extent = 0
    if (view.offset + extent) * BYTES[view.dtype] > view.storage.item * view.storage.count:
        raise AdapterError("unsafe file", f"tensor {name[:60]!r} reaches beyond its storage")
    return TorchTensor(view.dtype, view.shape, view.strides, view.offset, view.storage.key)


def _runs(places: list[tuple[str, _Place]]) -> Iterable[list[tuple[str, _Place]]]:
    run: list[tuple[str, _Place]] = []
    for key, place in sorted(places, key=lambda item: item[1].start):
        if run and (place.start - run[-1][1].stop > _GAP or place.stop - run[0][1].start > _RUN):
            yield run
            run = []
        run.append((key, place))
    if run:
        yield run


def _payload(place: _Place, region: memoryview) -> memoryview:
    return member_payload(place.member, region) if place.member else region[place.data_start :]


def _array(tensor: TorchTensor, payload: memoryview) -> FloatArray:
    item = BYTES[tensor.dtype]
    # A byte at the end may belong to no number where the storage is untyped.
    numbers = stored(tensor.dtype, payload[: len(payload) // item * item])[tensor.offset :]
    view = as_strided(numbers, tensor.shape, [stride * item for stride in tensor.strides], writeable=False)
    return float32(tensor.dtype, view)
