"""Bring the store up to date with the hubs: read what is new or changed, skip what cannot be read, mark what is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from hubrank.checkpoints.base_names import canonical_name
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.reader import base_of, read_adapters, read_card
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Hub, Listing, Query, Traffic
from hubrank.signatures.canonical import sign_adapter
from hubrank.types import Adapter, CardFacts, Source, SyncReport
from hubrank.zoo.store import Skip, Zoo

__all__ = ["BaseProvider", "Event", "sync_hubs"]

Outcome: TypeAlias = Literal["added", "updated", "unchanged", "skipped"]
BaseProvider: TypeAlias = Callable[[str], BaseTensors | None]
_Place: TypeAlias = tuple[str, str | None, str | None]


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
    base_tensors: BaseProvider | None = None,
) -> SyncReport:
    """Sync every hub in turn; each adapter is committed before the next is read.

    A fault in one adapter never stops the sync: it is counted under its reason. Sources that a hub no longer lists are
    marked gone, unless the query left some of the hub out.

    Args:
        base_tensors: finds the tensors of a base model on this machine, for adapters that cannot be read without.

    Raises:
        HubError: a hub does not answer. What was stored until then stays.
        StoreError: the store cannot be written.
    """
    started = time.perf_counter()
    outcomes: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    skips: list[tuple[str, str]] = []
    removed, traffic = 0, Traffic()
    for hub in hubs:
        stored = [source for source in zoo.sources(gone=True) if source.hub == hub.name]
        known = frozenset((source.repo, source.revision) for source in stored if not (source.branch or source.gone))
        seen: set[_Place] = set()
        unmoved: set[str] = set()
        for listing in hub.discover(replace(query, known=known)):
            seen.add((listing.repo, listing.subfolder, listing.branch))
            if listing.branch is None and (listing.repo, listing.revision) in known:
                unmoved.add(listing.repo)
            name = _name(listing)
            result = _sync_one(zoo, hub, listing, bases=query.bases, base_tensors=base_tensors, traffic=traffic)
            if isinstance(result, Skip):
                outcome: Outcome = "skipped"
                reasons[result.reason] += 1
                skips.append((name, f"{result.reason}: {result.detail}"))
            else:
                outcome = result
            outcomes[outcome] += 1
            if on_event is not None:
                on_event(Event(name, outcome, skips[-1][1] if outcome == "skipped" else ""))
        traffic.add(hub.traffic)
        if query.everything:
            removed += _mark_gone(zoo, [source for source in stored if not source.gone], seen, unmoved)
    return SyncReport(
        added=outcomes["added"],
        updated=outcomes["updated"],
        removed=removed,
        unchanged=outcomes["unchanged"],
        skipped=dict(reasons.most_common()),
        requests=traffic.requests,
        bytes_read=traffic.bytes_read,
        bytes_whole=traffic.bytes_whole,
        seconds=time.perf_counter() - started,
        skips=tuple(skips),
    )


def _sync_one(
    zoo: Zoo, hub: Hub, listing: Listing, *, bases: tuple[str, ...], base_tensors: BaseProvider | None, traffic: Traffic
) -> Outcome | Skip:
    name = _name(listing)
    place = (hub.name, listing.repo, listing.subfolder)
    known = zoo.get(*place, branch=listing.branch)
    if known is not None and known.revision == listing.revision:
        if known.gone:
            for part in zoo.parts(known):
                zoo.mark(part, gone=False)
        return "unchanged"
    skipped = zoo.get_skip(*place, branch=listing.branch)
    if skipped is not None and skipped.revision == listing.revision:
        return skipped
    bundle = hub.open(listing)
    try:
        adapters = _read(listing, bundle, base_tensors)
        base = adapters[0].base
        if bases and base not in {canonical_name(wanted) for wanted in bases}:
            # A matter of this query, not of the adapter: nothing is remembered.
            return Skip(name, listing.revision, "other base", base)
        signatures = [sign_adapter(adapter) for adapter in adapters]
        card = read_card(listing, bundle)
        sources = [_source(hub, listing, adapter, card, first=adapter is adapters[0]) for adapter in adapters]
        del adapters  # of a large model, hundreds of megabytes that storing the signatures can do without
    except AdapterError as error:
        skip = Skip(name, listing.revision, error.reason, error.detail)
        if error.lasting:
            zoo.put_skip(*place, skip, branch=listing.branch)
        return skip
    finally:
        traffic.add(bundle.traffic)
    first, *others = zip(sources, signatures, strict=True)
    zoo.put(*first, *others)
    return "added" if known is None else "updated"


def _read(listing: Listing, bundle: Bundle, base_tensors: BaseProvider | None) -> tuple[Adapter, ...]:
    """Read an adapter from its own files; only where that cannot be done, with the base model's tensors beside them.

    So that all adapters of a method are described alike, whether or not somebody has the base model on disk.
    """
    try:
        return read_adapters(listing, bundle)
    except AdapterError as error:
        if error.reason != "needs base":
            raise
        tensors = base_tensors(base_of(listing, bundle)) if base_tensors is not None else None
        if tensors is None:
            raise AdapterError(error.reason, error.detail, lasting=False) from error
        return read_adapters(listing, bundle, base_tensors=tensors)


def _name(listing: Listing) -> str:
    whole = f"{listing.repo}/{listing.subfolder}" if listing.subfolder else listing.repo
    return f"{whole}@{listing.branch}" if listing.branch else whole


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
        branch=listing.branch,
    )


def _mark_gone(zoo: Zoo, stored: list[Source], seen: set[_Place], unmoved: set[str]) -> int:
    """Mark what was not listed; the branches of a repository that has not moved are not listed again, and still there."""
    gone = [
        source
        for source in stored
        if (source.repo, source.subfolder, source.branch) not in seen and not (source.branch and source.repo in unmoved)
    ]
    for source in gone:
        zoo.mark(source, gone=True)
    return len(gone)
