"""What a sync would do, from listings alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hubrank.checkpoints.bare_files import MANIFEST
from hubrank.checkpoints.card import MAX_CARD_BYTES
from hubrank.checkpoints.reader import CONFIG
from hubrank.checkpoints.tensor_files import SUFFIXES
from hubrank.errors import HubError
from hubrank.hubs.protocol import Hub, Listing, Query
from hubrank.types import SyncPlan
from hubrank.zoo.standing import Standing, is_local, name_of
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import queries

__all__ = ["REQUESTS_PER_ADAPTER", "plan_sync"]

REQUESTS_PER_ADAPTER = 3
"""Its config, the header of its weights, its weights; a card comes with the listing."""


@dataclass(slots=True)
class _Sum:
    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    requests: int = 0
    bytes: int = 0
    unsized: int = 0


def plan_sync(
    zoo: Zoo, hubs: Sequence[Hub], query: Query, *, default_bases: tuple[str, ...] = (), offline: bool = False
) -> SyncPlan:
    """List every hub as a sync would, and say what would follow. Reads no adapter and writes nothing.

    Args:
        default_bases, offline: as for :func:`hubrank.zoo.sync.sync_hubs`.

    Raises:
        StoreError: the store cannot be read.
    """
    plan = _Sum()
    for hub, wanted in queries(hubs, query, default_bases=default_bases):
        if offline and not is_local(hub):
            plan.not_asked.append(hub.name)
            continue
        before = hub.traffic.requests
        try:
            _plan_hub(plan, zoo, hub, wanted)
        except HubError as error:
            plan.failed.append((hub.name, str(error)))
        plan.requests += hub.traffic.requests - before
    lists = (plan.new, plan.changed, plan.gone, plan.unchanged, plan.skipped)
    new, changed, gone, unchanged, skipped = (tuple(names) for names in lists)
    return SyncPlan(
        new,
        changed,
        gone,
        unchanged,
        skipped,
        plan.requests,
        plan.bytes,
        plan.unsized,
        tuple(plan.failed),
        tuple(plan.not_asked),
    )


def _plan_hub(plan: _Sum, zoo: Zoo, hub: Hub, query: Query) -> None:
    standing = Standing(zoo, hub, query)
    whole: set[tuple[str, str | None]] = set()
    for listing in hub.discover(replace(query, known=standing.known)):
        if not standing.see(listing):
            continue
        verdict, _ = standing.judge(listing)
        name = name_of(listing)
        match verdict:
            case "unchanged" | "back":
                plan.unchanged.append(name)
            case "skipped":
                plan.skipped.append(name)
            case "new" | "changed":
                (plan.new if verdict == "new" else plan.changed).append(name)
                plan.requests += 0 if is_local(hub) else REQUESTS_PER_ADAPTER
                _add_bytes(plan, listing, whole)
    plan.gone.extend(source.name for source in standing.gone())


def _add_bytes(plan: _Sum, listing: Listing, whole: set[tuple[str, str | None]]) -> None:
    weights = [name for name in listing.files if name.endswith(SUFFIXES)]
    best = min(weights, key=lambda name: [name.endswith(suffix) for suffix in SUFFIXES].index(True), default=None)
    names = [name for name in (CONFIG, MANIFEST, best) if name is not None and name in listing.files]
    sizes = [listing.files[name] for name in names]
    if min(sizes, default=0) >= 0:
        card = 0 if listing.card else min(max(listing.files.get("README.md", 0), 0), MAX_CARD_BYTES)
        plan.bytes += sum(sizes) + card
    elif listing.storage is None:
        plan.unsized += 1
    elif (listing.repo, listing.branch) not in whole:  # several adapters of a repository share what it holds
        whole.add((listing.repo, listing.branch))
        plan.bytes += listing.storage
