"""Where it reads and writes, beyond what is usual for it, and what it makes of the rows: for bottleneck adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubrank.ranking.estimators.four_views import known_z_scores
from hubrank.ranking.estimators.three_views import z_scores

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["read_write"]


def read_write(
    *,
    read: FloatArray,
    write: FloatArray,
    usual_read: FloatArray,
    usual_write: FloatArray,
    evidence: FloatArray,
    trust: float,
) -> FloatArray:
    """R_1 + W_1, each less what is usual for the source, + t E, each z-scored over this target's sources.

    A bottleneck adapter's up and down start at random and are tuned as wholes, so what it computes by both of them together is
    fainter than what it reads and writes; singular values count in full, and some adapters are near to everything. E is as in
    :func:`four_views`, and counts as one view more, as far as it can be trusted.

    On 10 targets of 200 rows and 12 Pfeiffer adapters (bench/bottlenecks.py) regret@1 is 0.9 % and regret@3 0.0 %, where
    C_1 + R_0 + W_0.5 has 11.9 and 9.2 % and the flattened cosine of Zhou, Xu and McAuley (EMNLP 2022) 15.2 and 8.6 %; chosen on
    the other targets each time among 80 formulas, 2.3 and 0.4 %.

    Args:
        read, write: [n] mean cosine of the target with each source.
        usual_read, usual_write: [n] median cosine of each source with the rest of the zoo.
        evidence: [n] of each source; NaN where it is not known, which counts as the mean.
        trust: as :func:`four_views` takes it.

    Returns:
        [n] values; those of one source are 0.
    """
    values: FloatArray = z_scores(read - usual_read) + z_scores(write - usual_write) + trust * known_z_scores(evidence)
    return values
