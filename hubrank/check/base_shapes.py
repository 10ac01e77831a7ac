"""The shapes of a base model's modules, from the headers of its weights files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.tensor_files import SUFFIXES, open_tensors
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderBundle
from hubrank.hubs.protocol import Listing
from hubrank.signatures.canonical import SHIFT
from hubrank.types import Signature, Site

__all__ = ["base_misfits", "base_shapes"]

_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)")
_MAX_FILES = 256


def base_shapes(folder: Path) -> Mapping[Site, tuple[int, int]]:
    """(rows, columns) of every matrix that is a module's weight, as the file keeps it; empty where nothing can be read."""
    bundle = FolderBundle(folder)
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file() and path.name.endswith(SUFFIXES)}
    names = sorted((name for name in files if _WEIGHTS.fullmatch(name)), key=lambda name: not name.endswith(SUFFIXES[0]))
    shapes: dict[Site, tuple[int, int]] = {}
    for name in names[:_MAX_FILES]:
        if shapes and not name.endswith(SUFFIXES[0]):
            break  # the same weights once more, pickled
        try:
            tensors = open_tensors(Listing(str(folder), "", None, files), bundle, (name,)).tensors
        except AdapterError:
            continue
        for key, tensor in tensors.items():
            if key.endswith(".weight") and len(tensor.shape) == 2:
                shapes[site_of(key.removesuffix(".weight"))] = (tensor.shape[0], tensor.shape[1])
    return shapes


def base_misfits(signature: Signature, shapes: Mapping[Site, tuple[int, int]]) -> tuple[str, ...]:
    """Sites whose update has another shape than the base model's weight there, whichever way round that is kept."""
    found = []
    for factors in signature.factors:
        own = (len(factors.u), len(factors.v))
        kept = shapes.get(factors.site)
        if kept is not None and not factors.site.module.endswith(SHIFT) and own not in (kept, kept[::-1]):
            found.append(f"{factors.site} ({list(own)}, not {list(kept)})")
    return tuple(found)
