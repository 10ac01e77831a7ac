"""Which map goes with a report: the base and method of what it is about, with that drawn in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hubrank.check.findings import CheckReport
from hubrank.errors import EmptyZooError
from hubrank.ranking.zoo_map import Guest, ZooMap, map_zoo
from hubrank.zoo.packed_files import open_packed

if TYPE_CHECKING:
    from hubrank.types import Ranking
    from hubrank.zoo.store import Zoo

__all__ = ["map_of_check", "map_of_search"]


def map_of_search(zoo: Zoo, ranking: Ranking) -> ZooMap | None:
    """The sources that a target was compared with, and the target in it; None where too few are there.

    Raises:
        StoreError: the zoo cannot be read.
    """
    if ranking.signature is None:
        return None
    try:
        packed = open_packed(zoo, ranking.base, ranking.methods[0])
    except EmptyZooError:
        return None
    name = ranking.target.path.replace("\\", "/").rpartition("/")[2]
    return map_zoo(packed, [Guest(name, ranking.signature)]) if packed.sources else None


def map_of_check(zoo: Zoo, report: CheckReport) -> ZooMap | None:
    """The sources of the base and method that most of the checked adapters have, with those in it; None without any.

    Raises:
        StoreError: the zoo cannot be read.
    """
    drawn = [judged for judged in report.adapters if judged.signature is not None and judged.base and judged.method]
    if not drawn:
        return None
    (place, _), *_ = Counter((judged.base, (judged.method or "").partition(" ")[0]) for judged in drawn).most_common(1)
    base, method = place
    try:
        packed = open_packed(zoo, base or "", method)
    except EmptyZooError:
        return None
    if not packed.sources:
        return None
    guests = [
        Guest(judged.name, judged.signature)
        for judged in drawn
        if judged.signature is not None and (judged.base, (judged.method or "").partition(" ")[0]) == place
    ]
    return map_zoo(packed, guests)
