"""Where and how large the target's own adapter shall be: as most sources of the zoo are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import BaseModelError

if TYPE_CHECKING:
    from hubrank.zoo.packed import Packed

__all__ = ["usual_modules", "usual_rank"]

_MOST = 0.5
_RANKS = (2, 32)  # a target of a few hundred rows needs no more, and a rank of 1 has no subspace to speak of


def usual_rank(packed: Packed) -> int:
    """The rank that most sources have, within 2 to 32."""
    low, high = _RANKS
    (rank, _), *_ = Counter(source.rank for source in packed.sources).most_common(1)
    return max(low, min(high, rank))


def usual_modules(packed: Packed, modules: Iterable[str]) -> tuple[str, ...]:
    """Those of the base model's modules that at least half of the sources adapt; if none, those of the commonest site.

    Raises:
        BaseModelError: the base model has no module where the zoo's adapters apply.
    """
    shares = dict(zip(packed.sites, packed.there.mean(axis=0), strict=True))
    bar = min(_MOST, max(shares.values()))
    wanted = {site for site, share in shares.items() if share >= bar}
    chosen = tuple(name for name in modules if site_of(name) in wanted)
    if not chosen:
        raise BaseModelError(f"{packed.base}: has none of the modules that the zoo's adapters apply to, such as {min(wanted)}")
    return chosen
