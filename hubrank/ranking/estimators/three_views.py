"""What it computes, where it reads, where it writes: each z-scored over the sources, summed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["three_views", "z_scores"]


def three_views(*, compute: FloatArray, read: FloatArray, write: FloatArray) -> FloatArray:
    """C_1 + R_0 + W_0.5, each z-scored over this target's sources.

    Reading names the task (similar inputs matter), computing and writing tell what transfers once the target is tuned;
    together they are steadier than any one. In a pilot, not repeated here, on 12 targets of 200 rows and 17 sources of one rank
    its regret@1 was 1.5 %, against 1.9 to 3.4 % for a single view and 9.3 % for the flattened cosine of Zhou, Xu and McAuley
    (EMNLP 2022); on 16 targets and 24 sources of mixed ranks and sites (bench/rivals.py) 4.5 %, against 24.4 %.

    (Bottleneck adapters are compared by whole singular values, so that of them this is C_1 + R_1 + W_1.)

    Args:
        compute, read, write: [n] mean cosine of the target with each source.

    Returns:
        [n] values; those of one source are 0.
    """
    values: FloatArray = z_scores(compute) + z_scores(read) + z_scores(write)
    return values


def z_scores(similarities: FloatArray) -> FloatArray:
    """(s - mean) / standard deviation over the sources; zeros where all are equal."""
    wide = np.asarray(similarities, dtype=np.float64)
    deviation = wide.std()
    scores: FloatArray = (wide - wide.mean()) / deviation if deviation > 1e-12 else np.zeros_like(wide)
    return scores
