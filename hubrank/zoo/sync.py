"""Bring the store up to date with the hubs: read what is new or changed, skip what cannot be read, mark what is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hubrank.checkpoints.base_names import canonical_name
from hubrank.checkpoints.reader import read_adapters, read_card
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Hub, Listing, Query
from hubrank.signatures.canonical import sign_adapter
from hubrank.types import Adapter, CardFacts, Source, SyncReport
from hubrank.zoo.store import Skip, Zoo

__all__ = ["Event", "sync_hubs"]

Outcome: TypeAlias = Literal["added", "updated", "unchanged", "skipped"]


@dataclass(frozen=True, slots=True)
class Event:
    """One adapter has been dealt with: for progress displays."""

    name: str
    outcome: Outcome
    detail: str = ""


def sync_hubs(
    zoo: Zoo,
    hubs: Sequence[Hub],
    query: Query,
    *,
    on_event: Callable[[Event], None] | None = None,
) -> SyncReport:
    """Sync every hub in turn; each adapter is committed before the next is read.

    A fault in one adapter never stops the sync: it is counted under its reason. Sources that a hub no longer lists are
    marked gone, unless the query left some of the hub out.

    Raises:
        HubError: a hub does not answer. What was stored until then stays.
        StoreError: the store cannot be written.
    """
    started = time.perf_counter()
    outcomes: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    skips: list[tuple[str, str]] = []
    removed = whole = 0
    for hub in hubs:
        seen = set()
        for listing in hub.discover(query):
            seen.add((listing.repo, listing.subfolder))
            whole += sum(max(size, 0) for size in listing.files.values())
            name = f"{listing.repo}/{listing.subfolder}" if listing.subfolder else listing.repo
            result = _sync_one(zoo, hub, listing, query, name)
            if isinstance(result, Skip):
                outcome: Outcome = "skipped"
                reasons[result.reason] += 1
                skips.append((name, f"{result.reason}: {result.detail}"))
            else:
                outcome = result
            outcomes[outcome] += 1
            if on_event is not None:
                on_event(Event(name, outcome, skips[-1][1] if outcome == "skipped" else ""))
        if query == Query():
            removed += _mark_gone(zoo, hub, seen)
    return SyncReport(
        added=outcomes["added"],
        updated=outcomes["updated"],
        removed=removed,
        unchanged=outcomes["unchanged"],
        skipped=dict(reasons.most_common()),
        requests=sum(hub.requests for hub in hubs),
        bytes_read=sum(hub.bytes_read for hub in hubs),
        bytes_whole=whole,
        seconds=time.perf_counter() - started,
        skips=tuple(skips),
    )


def _sync_one(zoo: Zoo, hub: Hub, listing: Listing, query: Query, name: str) -> Outcome | Skip:
    known = zoo.get(hub.name, listing.repo, listing.subfolder)
    if known is not None and known.revision == listing.revision:
        if known.gone:
            for part in zoo.parts(known):
                zoo.mark(part, gone=False)
        return "unchanged"
    skipped = zoo.get_skip(hub.name, listing.repo, listing.subfolder)
    if skipped is not None and skipped.revision == listing.revision:
        return skipped
    try:
        bundle = hub.open(listing)
        adapters = read_adapters(listing, bundle)
        base = adapters[0].base
        if query.bases and base not in {canonical_name(wanted) for wanted in query.bases}:
            # A matter of this query, not of the adapter: nothing is remembered.
            return Skip(name, listing.revision, "other base", base)
        signatures = [sign_adapter(adapter) for adapter in adapters]
        card = read_card(listing, bundle)
        sources = [_source(hub, listing, adapter, card, first=adapter is adapters[0]) for adapter in adapters]
        del adapters  # of a large model, hundreds of megabytes that storing the signatures can do without
    except AdapterError as error:
        skip = Skip(name, listing.revision, error.reason, error.detail)
        if error.lasting:
            zoo.put_skip(hub.name, listing.repo, listing.subfolder, skip)
        return skip
    first, *others = zip(sources, signatures, strict=True)
    zoo.put(*first, *others)
    return "added" if known is None else "updated"


def _source(hub: Hub, listing: Listing, adapter: Adapter, card: CardFacts, *, first: bool) -> Source:
    return Source(
        hub=hub.name,
        repo=listing.repo,
        revision=listing.revision,
        subfolder=listing.subfolder,
        base=adapter.base,
        method=adapter.method,
        rank=max(len(delta.down) for delta in adapter.deltas),
        card=card,
        warnings=adapter.warnings,
        location=listing.location,
        variant=adapter.variant,
        part=None if first else adapter.method,
    )


def _mark_gone(zoo: Zoo, hub: Hub, seen: set[tuple[str, str | None]]) -> int:
    left = [source for source in zoo.sources() if source.hub == hub.name and (source.repo, source.subfolder) not in seen]
    for source in left:
        zoo.mark(source, gone=True)
    return len(left)
