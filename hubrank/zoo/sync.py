"""Bring the store up to date with the hubs: read what is new or changed, skip what cannot be read, mark what is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from hubrank.errors import SyncIncompleteError
from hubrank.hubs.protocol import Hub, Query, Traffic
from hubrank.signatures.threads import one_thread
from hubrank.types import SyncReport
from hubrank.zoo.cluster import cluster_jobs, connect_ray
from hubrank.zoo.drive import Drive, Event, Tally
from hubrank.zoo.interrupt import terminable
from hubrank.zoo.lock import sync_lock
from hubrank.zoo.standing import is_local
from hubrank.zoo.store import Zoo
from hubrank.zoo.work import BaseProvider

__all__ = ["JOBS", "BaseProvider", "Event", "queries", "sync_hubs"]

JOBS = 8
"""Adapters read at once from a hub on the network, where nothing else is said: they wait for answers most of the time. Those of
a folder are read one after another."""


def sync_hubs(
    zoo: Zoo,
    hubs: Sequence[Hub],
    query: Query,
    *,
    default_bases: tuple[str, ...] = (),
    on_event: Callable[[Event], None] | None = None,
    base_tensors: BaseProvider | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    offline: bool = False,
    wait: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> SyncReport:
    """Sync every hub in turn; each adapter is committed as it comes, by this thread.

    A fault in one adapter never stops the sync: it is counted under its reason. Sources that a hub no longer lists are
    marked gone, unless the query left some of the hub out. A hub lists (in a thread of its own) while its adapters are read.

    Args:
        default_bases: bases for hubs on the network where the query names none.
        on_event: called for every adapter that has been dealt with.
        base_tensors: finds the tensors of a base model on this machine, for adapters that cannot be read without; where it has
            none, a hub that holds models is asked, see :mod:`hubrank.zoo.base_models`.
        jobs: adapters read at once; None for eight from a hub on the network, and one after another from a folder.
        ray: address of a Ray cluster to read on, see :func:`hubrank.zoo.cluster.connect_ray`; None for threads of this process.
        offline: leave hubs on the network alone.
        wait: for another process that is changing the zoo, instead of raising; ``on_wait`` is told who it is.

    Raises:
        SyncIncompleteError: some hub did not answer to its end. What was read is stored; the error carries the report.
        StoreError: the store cannot be written, or another process is changing it.
        KeyboardInterrupt: also where the process was asked to terminate. What was done is stored.
    """
    started = time.perf_counter()
    tally = Tally()
    not_asked = []
    with terminable(), sync_lock(zoo.folder, wait=wait, on_wait=on_wait), one_thread():
        if ray is not None:
            connect_ray(ray)
        for hub, wanted in queries(hubs, query, default_bases=default_bases):
            if offline and not is_local(hub):
                not_asked.append(hub.name)
                continue
            count = jobs or (cluster_jobs() if ray is not None else 1 if is_local(hub) else JOBS)
            Drive(zoo, hub, wanted, tally, jobs=count, ray=ray is not None, base_tensors=base_tensors, on_event=on_event).run()
    report = _report(tally, time.perf_counter() - started, tuple(not_asked))
    if report.failed:
        raise SyncIncompleteError("; ".join(f"{hub}: {why}" for hub, why in report.failed), report)
    return report


def queries(hubs: Sequence[Hub], query: Query, *, default_bases: tuple[str, ...]) -> list[tuple[Hub, Query]]:
    """What each hub is asked: a hub on the network for the default bases, where the query names none."""
    return [(hub, replace(query, bases=query.bases or (() if is_local(hub) else default_bases))) for hub in hubs]


def _report(tally: Tally, seconds: float, not_asked: tuple[str, ...]) -> SyncReport:
    outcomes: Counter[str] = tally.outcomes
    traffic: Traffic = tally.traffic
    return SyncReport(
        added=outcomes["added"],
        updated=outcomes["updated"],
        removed=tally.removed,
        unchanged=outcomes["unchanged"],
        skipped=dict(tally.reasons.most_common()),
        requests=traffic.requests,
        bytes_read=traffic.bytes_read,
        bytes_whole=traffic.bytes_whole,
        base_requests=tally.bases.requests,
        base_bytes=tally.bases.bytes_read,
        seconds=seconds,
        skips=tuple(tally.skips),
        failed=tuple(tally.failed),
        not_asked=not_asked,
    )
