"""Keep the zoo small: forget what is gone, what is not wanted, and what an older reader made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubrank.checkpoints.base_names import canonical_name
from hubrank.checkpoints.reader import READER_VERSION
from hubrank.errors import UsageError
from hubrank.types import Source
from hubrank.zoo.lock import sync_lock
from hubrank.zoo.store import Zoo

__all__ = ["Pruned", "prune"]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was forgotten: names of sources, the skips remembered of unreadable adapters, and bytes freed on disk."""

    sources: tuple[str, ...]
    skips: int
    bytes: int


def prune(
    zoo: Zoo,
    *,
    gone: bool = False,
    bases: Sequence[str] = (),
    older_reader: bool = False,
    dry_run: bool = False,
    wait: bool = False,
) -> Pruned:
    """Forget sources for any of the reasons given. The next sync reads again what is still on its hub and is asked for.

    Args:
        gone: what is no longer on its hub.
        bases: what belongs to these base models.
        older_reader: what an older version of hubrank read or could not read, where this one may see more.
        dry_run: change nothing, and take no lock; what would be forgotten, without the bytes that would be freed.
        wait: for another process that is changing the zoo.

    Raises:
        UsageError: no reason is given.
        StoreError: the store cannot be written, or another process is changing it.
    """
    if not (gone or bases or older_reader):
        raise UsageError("nothing to prune: say what, with --gone, --base or --older")
    wanted = {canonical_name(base) for base in bases}

    def doomed() -> list[Source]:
        return [
            source
            for source in zoo.sources(gone=True)
            if (gone and source.gone) or source.base in wanted or (older_reader and source.reader != READER_VERSION)
        ]

    if dry_run:
        skips = zoo.drop_skips(older_reader=True, dry_run=True) if older_reader else 0
        return Pruned(tuple(source.name for source in doomed()), skips, 0)
    with sync_lock(zoo.folder, wait=wait):
        before = zoo.size()
        found = doomed()
        zoo.remove(*found)
        skips = zoo.drop_skips(older_reader=True) if older_reader else 0
        zoo.shrink()
        return Pruned(tuple(source.name for source in found), skips, max(0, before - zoo.size()))
