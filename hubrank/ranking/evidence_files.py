"""What a target's rows say of a zoo's sources, kept: a number a source, so that a search again need not read the rows again.

One JSON file in the cache folder's ``evidence``, named by a hash of all that decides the numbers: the rows as understood, the
base model's weights, the packed zoo, and the versions of the libraries. Nothing that the rows could be told from is kept.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.ranking.first_order import Evidence
from hubrank.signatures.encoding import SIGNATURE_FORMAT
from hubrank.target.frameworks import bfloat16_pays
from hubrank.target.kept_files import keep, key_of, library_versions, prune, read_json
from hubrank.target.measured_files import source_facts
from hubrank.target.site_inputs import MOST_ROWS

if TYPE_CHECKING:
    from hubrank.target.task import Target
    from hubrank.zoo.packed import Packed

__all__ = ["evidence_key", "packed_facts", "read_evidence", "write_evidence"]

FORMAT = 3
"""Raised whenever what is measured, or how, changes."""

FOLDER = "evidence"
_MOST_BYTES = 64 * 1024 * 1024
_LARGEST = 16 * 1024 * 1024


def evidence_key(target: Target, base: str, packed: Packed, *, device: str) -> str:
    """The name of a file.

    Args:
        base: :func:`hubrank.target.tuned_files.base_identity` of the base model, and its precision.
    """
    facts = {
        "format": FORMAT,
        "signature": SIGNATURE_FORMAT,
        "target": target.digest(),
        "base": base,
        "rows": MOST_ROWS,
        "packed": packed_facts(packed),
        "device": device.partition(":")[0],
        "bfloat16": bfloat16_pays(device),
        "libraries": library_versions(),
    }
    return key_of(facts)


def packed_facts(packed: Packed) -> list[Any]:
    """What says which numbers a packed zoo has, as JSON can say it."""
    return [packed.method, packed.generation, packed.basis.p, packed.learned_on, *map(source_facts, packed.sources)]


def read_evidence(cache: Path, key: str, sources: int) -> Evidence | None:
    """What was found before for so many sources; None where nothing was, or its file is damaged or another's."""
    fields = read_json(cache / FOLDER / f"{key}.json", key, largest=_LARGEST)
    if fields is None:
        return None
    try:
        if not isinstance(fields["values"], list):
            return None
        values = np.array([math.nan if value is None else float(value) for value in fields["values"]])
        rows, outputs, seconds = int(fields["rows"]), int(fields["outputs"]), float(fields["seconds"])
        whole = values.shape == (sources,) and not np.isinf(values).any()
        if not whole or not 0 < rows <= MOST_ROWS or outputs < 1 or not 0 <= seconds < 1e9:
            return None
    except (ValueError, LookupError, TypeError, OverflowError):
        return None
    return Evidence(values, rows, outputs, seconds)


def write_evidence(cache: Path, key: str, evidence: Evidence) -> None:
    """Keep what was found, if the disk allows it."""
    values = [float(value) if np.isfinite(value) else None for value in evidence.values]
    with contextlib.suppress(OSError):
        folder = cache / FOLDER
        numbers = {"rows": evidence.rows, "outputs": evidence.outputs, "seconds": evidence.seconds}
        keep(folder, f"{key}.json", json.dumps({"key": key, **numbers, "values": values}).encode())
        prune(folder, "*.json", _MOST_BYTES)
