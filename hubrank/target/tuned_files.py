"""Signatures of tuned targets, kept so that a target tuned before is not tuned again.

One file a run in the cache folder's ``tuned``, named by a hash of all that decides what tuning gives: the rows as understood,
the base model's weights, the plan with its placement and seed, whether the run could stop early, the versions of the
libraries, and the formats here. Not the zoo: it says when a run stops, not what it is. A file is JSON in one line and the
signature as the store keeps it; one that is not what it says is tuned again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import StoreDamagedError
from hubrank.signatures.encoding import SIGNATURE_FORMAT, decode_signature, encode_signature
from hubrank.target.frameworks import bfloat16_pays
from hubrank.target.kept_files import keep, key_of, library_versions, prune
from hubrank.types import Signature

if TYPE_CHECKING:
    from hubrank.target.base import BaseModel
    from hubrank.target.task import Target
    from hubrank.target.tuning import TuningPlan

__all__ = ["TunedRecord", "base_identity", "read_tuned", "run_key", "write_tuned"]

FORMAT = 1
_FOLDER = "tuned"
_MOST_BYTES = 512 * 1024 * 1024
_LARGEST = 64 * 1024 * 1024
_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class TunedRecord:
    """A finished run: its signature as the store's int8 keeps it, the steps done, why it stopped, and the seconds it took."""

    signature: Signature
    steps: int
    stopped: str
    seconds: float


def run_key(target: Target, base: str, plan: TuningPlan, *, device: str, early: bool, order: str = "") -> str:
    """The name of a run.

    Args:
        base: :func:`base_identity` of the base model.
        early: whether the run may stop early, and ``order``, what its ranking is made by, by which it then stops.
        device: CPU and GPU do not round alike, nor do those with units for bfloat16 and those without.
    """
    facts = {
        "format": FORMAT,
        "signature": SIGNATURE_FORMAT,
        "reader": READER_VERSION,
        "target": target.digest(),
        "base": base,
        "plan": asdict(plan),
        "device": device.partition(":")[0],
        "bfloat16": bfloat16_pays(device),
        "early": f"by {order}" if early and order else early,
        "libraries": library_versions(),
    }
    return key_of(facts)


def base_identity(base: BaseModel) -> str:
    """The base model's id with the revision of the hub's cache it lies in, or else a hash of its files."""
    parts = base.folder.resolve().parts
    if base.origin in ("cache", "hub") and len(parts) > 1 and parts[-2] == "snapshots":
        return f"{base.name}@{parts[-1]}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _WEIGHTS for file in base.folder.glob(pattern)}):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\0".encode() + hashlib.file_digest(stream, "sha256").digest())
    return f"{base.name}#{digest.hexdigest()}"


def read_tuned(cache: Path, key: str) -> TunedRecord | None:
    """A run done before; None where there is none, or its file is damaged or another's."""
    file = cache / _FOLDER / f"{key}.bin"
    try:
        if file.stat().st_size > _LARGEST:
            return None
        head, _, body = file.read_bytes().partition(b"\n")
        fields = json.loads(head)
        if fields["key"] != key or fields["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        record = TunedRecord(
            decode_signature(body), int(fields["steps"]), str(fields["stopped"])[:20], float(fields["seconds"])
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError, StoreDamagedError):
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the oldest in use are the first to go
    sound = 1 <= record.steps <= 100_000 and 0 <= record.seconds < 1e9 and record.signature.factors
    return record if sound else None


def write_tuned(cache: Path, key: str, record: TunedRecord) -> TunedRecord:
    """Keep a run, if the disk allows it; the record as it will be read back, in the store's int8."""
    body = encode_signature(record.signature)
    fields = {
        "key": key,
        "sha256": hashlib.sha256(body).hexdigest(),
        "steps": record.steps,
        "stopped": record.stopped,
        "seconds": record.seconds,
    }
    with contextlib.suppress(OSError):
        folder = cache / _FOLDER
        keep(folder, f"{key}.bin", json.dumps(fields).encode() + b"\n" + body)
        prune(folder, "*.bin", _MOST_BYTES)
    return TunedRecord(decode_signature(body), record.steps, record.stopped, record.seconds)
