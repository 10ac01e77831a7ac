"""What it computes, standardised per source: for prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.standardise import standardise

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["ENOUGH_PAIRS", "standardised_compute"]

ENOUGH_PAIRS = 5
"""A source compared with fewer others has no mean and deviation to speak of.

Of random parts of the prompts in bench/prompts.py, zoos of 5 were ranked better without standardising, zoos of 6 with it.
"""


def standardised_compute(*, compute: FloatArray, zoo: FloatArray) -> FloatArray:
    """C_1, in standard deviations from what each source has with the rest of the zoo.

    A soft prompt is a task embedding: SPoT (Vu, Lester, Constant, Al-Rfou and Cer, ACL 2022) chooses the prompt to start
    from by the cosine of the token averages, and "Efficiently Tuned Parameters are Task Embeddings" (Zhou, Xu and McAuley,
    EMNLP 2022) does so across all of parameter-efficient tuning. At a shift's site the compute cosine is that of the two
    shifts, and a prefix's are the means of its keys and values, a prompt's the mean of its unit tokens: so this is their
    measure, but for the lengths of a prompt's tokens, and blind to their order. All prompts of one base lie in one corner of
    the embedding space, though, and some in its middle, near to every other. What tells is how much nearer a source is than
    it usually is. (Prompts are ranked by :func:`standardised_tokens` now, which keeps more of SPoT's measure.)

    Measured in a pilot, not repeated here, on 61 targets of four backbones (thunlp/Prompt-Transferability), regret in percent:

        =========================================  =========  =========
        ranking of soft prompts                    regret@1   regret@3
        =========================================  =========  =========
        all tokens flattened, cosine               30.0       19.9
        token subspace overlap, k=10               13.7        6.3
        mean over tokens, cosine (the papers)       9.9        4.8
        mean over tokens, standardised              7.8        1.6
        =========================================  =========  =========

    For prefixes, token means of keys and values and the product of the two, standardised, found the same task (MRR 0.96
    to 1.00) where what they read and write failed. For the transfer of LoRAs standardising does harm.

    Args:
        compute: [n] mean cosine of the target with each source.
        zoo: [m, n] the same of m sources of the zoo, NaN where a pair does not count.

    Returns:
        [n] values; 0, as near as usual, for a source whose usual cannot be measured. If that is so for all, as in a zoo of
        fewer than 6 sources, the cosines themselves, z-scored over the sources.
    """
    values = standardise(compute, zoo, least=ENOUGH_PAIRS)
    if np.isnan(values).all():
        return z_scores(compute)
    filled: FloatArray = np.nan_to_num(values, nan=0.0)
    return filled
