"""Files of measured transfer with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hubrank.benchmark.transfer import MeasuredTarget


def row(source, target, value, **more):
    """One line of a file."""
    return {"source": source, "target": target, "value": value, **more}


def write_rows(path: Path, rows) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    return path


def measured(seeds, *, name="t", scratch=0.3, kin=None):
    """A target from [seeds, n] values."""
    seeds = np.atleast_2d(np.asarray(seeds, dtype=float))
    n = seeds.shape[1]
    return MeasuredTarget(name, "accuracy", seeds, np.full(n, scratch), np.zeros(n, bool) if kin is None else np.asarray(kin))
