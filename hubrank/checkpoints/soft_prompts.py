"""A soft prompt as a delta, whichever library wrote it: what its tokens point at on average, and their Gram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.types import Delta

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["prompt_delta"]


def prompt_delta(path: str, tokens: FloatArray) -> Delta:
    """The delta of a prompt E [P, d]: up = E^T, down = E, and as the shift the mean of its tokens, each at unit length.

    The inner product of two such means is the mean cosine over all pairs of a token of one prompt with one of the other, the
    "per-token average" of SPoT (Vu, Lester, Constant, Al-Rfou and Cer, ACL 2022, section 3.2). The length of the mean, from 0
    to 1, is how much the tokens of a prompt agree; long tokens have no more say in it than short ones. A token of zeros points
    nowhere. The mean is that of the tokens in any order.

    Args:
        path: the module's, such as ``layers.0.prompt``.
        tokens: [P, d], finite.
    """
    wide = tokens.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return Delta(site_of(path), down=tokens, up=np.ascontiguousarray(tokens.T), shift=units.mean(axis=0).astype(np.float32))
