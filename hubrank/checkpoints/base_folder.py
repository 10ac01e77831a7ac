"""A base model's parameters from its folder on this disk, one at a time and without loading the model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.checkpoints.config import parse_config
from hubrank.checkpoints.tensor_files import TensorFile, open_tensors
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderBundle
from hubrank.hubs.protocol import Listing

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["FolderTensors", "short_names"]

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_MAX_INDEX = 25_000_000
_HEADED = (
    *("bert", "roberta", "distilbert", "electra", "deberta", "albert", "vit", "model", "transformer", "gpt_neox"),
    "base_model",
)


class FolderTensors:
    """The parameters in ``model.safetensors`` or ``pytorch_model.bin``, in one file or in shards.

    A file may have been saved from a model with a head, whose names carry one more word in front (``bert.encoder...``); a
    name is found with and without it.

    Raises:
        AdapterError: the folder holds no weights, or they are damaged.
    """

    def __init__(self, folder: Path) -> None:
        bundle = FolderBundle(folder)
        files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        listing = Listing(str(folder), "", None, files)
        whole = next((name for name in _WHOLE if name in files), None)
        names = [whole] if whole is not None else _shards(bundle, files)
        self._files: dict[str, TensorFile] = {}
        for name in names:
            file = open_tensors(listing, bundle, (name,))
            self._files |= dict.fromkeys(file.tensors, file)
        self._keys = short_names(self._files)

    def get(self, name: str) -> FloatArray | None:
        """The parameter in float32, or None where the model has none of that name."""
        key = self._keys.get(name)
        return None if key is None else self._files[key].read([key])[key]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The parameter's shape, or None where the model has none of that name."""
        key = self._keys.get(name)
        return None if key is None else tuple(self._files[key].tensors[key].shape)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The keys of a base model's files by the names that they are found under: their own, and less a head's word in front."""
    keys = list(keys)
    split = ((key, key.partition(".")) for key in keys)
    return {rest: key for key, (head, _, rest) in split if head in _HEADED and rest} | {key: key for key in keys}


def _shards(bundle: FolderBundle, files: dict[str, int]) -> list[str]:
    index = next((name for name in _INDICES if name in files), None)
    if index is None:
        raise AdapterError("needs base", "the base model's folder holds no weights")
    shards = parse_config(index, bundle.read(index, limit=_MAX_INDEX)).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise AdapterError("needs base", f"{index} of the base model names no shards")
    return sorted(set(shards.values()))
