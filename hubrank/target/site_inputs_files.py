"""What the base's modules read of a target's rows, kept beside the tuned targets: a search again need not run the rows again.

One safetensors file a target in the cache folder's ``inputs``, named by a hash of all that decides the numbers. Numbers are
float16 in parts of the largest of their space, which is far finer than what a ranking tells apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.target.frameworks import bfloat16_pays
from hubrank.target.site_inputs import MOST_ROWS, SiteInputs, Space
from hubrank.target.tuned_files import prune

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.task import Target
    from hubrank.types import FloatArray

__all__ = ["inputs_key", "read_inputs", "write_inputs"]

FORMAT = 1
_FOLDER = "inputs"
_MOST_BYTES = 512 * 1024 * 1024
_LARGEST = 128 * 1024 * 1024
_LABELS, _SCALE = "labels", "scale "


def inputs_key(target: Target, base: str, spaces: Collection[Space], *, device: str) -> str:
    """The name of a file.

    Args:
        base: :func:`hubrank.target.tuned_files.base_identity` of the base model, and its precision.
    """
    facts = {
        "format": FORMAT,
        "target": target.digest(),
        "base": base,
        "spaces": sorted(spaces),
        "rows": MOST_ROWS,
        "device": device.partition(":")[0],
        "bfloat16": bfloat16_pays(device),
        "libraries": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]


def read_inputs(cache: Path, key: str) -> SiteInputs | None:
    """Inputs had before; None where there are none, or their file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = cache / _FOLDER / f"{key}.safetensors"
    try:
        if file.stat().st_size > _LARGEST:
            return None
        arrays = load(file.read_bytes())
        labels = arrays.pop(_LABELS)
        names = {name: json.loads(name) for name in arrays if not name.startswith(_SCALE)}
        spaces: dict[Space, FloatArray] = {
            (str(stack), int(layer), str(reads)): _wide(arrays, name) for name, (stack, layer, reads) in names.items()
        }
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError):
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the oldest in use are the first to go
    sound = all(x.ndim == 2 and len(x) == len(labels) and np.isfinite(x).all() for x in spaces.values())
    return SiteInputs(spaces, labels) if sound else None


def write_inputs(cache: Path, key: str, inputs: SiteInputs) -> SiteInputs:
    """Keep inputs, if they are not too large and the disk allows it; the inputs as they will be read back, in float16."""
    from safetensors.numpy import save

    arrays = {_LABELS: np.ascontiguousarray(inputs.labels)}
    for space, found in inputs.spaces.items():
        largest = float(np.abs(found).max(initial=0.0)) or 1.0
        arrays[json.dumps(space)] = np.ascontiguousarray((found / largest).astype(np.float16))
        arrays[f"{_SCALE}{json.dumps(space)}"] = np.array([largest], dtype=np.float32)
    kept = SiteInputs({space: _wide(arrays, json.dumps(space)) for space in inputs.spaces}, inputs.labels)
    if sum(array.nbytes for array in arrays.values()) > _LARGEST - (1 << 20):
        return kept
    with contextlib.suppress(OSError):
        folder = cache / _FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder, ignore_cleanup_errors=True) as scratch:
            partial = Path(scratch) / "new"
            partial.write_bytes(save(arrays))
            partial.replace(folder / f"{key}.safetensors")
        prune(folder, "*.safetensors", _MOST_BYTES)
    return kept


def _wide(arrays: Mapping[str, NDArray[Any]], name: str) -> FloatArray:
    wide: FloatArray = arrays[name].astype(np.float32) * arrays[f"{_SCALE}{name}"]
    return wide
