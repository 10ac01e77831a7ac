"""What ``hubrank sync`` does, as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.checkpoints.base_names import all_names
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.reader import METHODS
from hubrank.errors import HubError, InputError, UsageError
from hubrank.hubs.budget import Budget
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Hub, Query
from hubrank.target.base import find_base
from hubrank.types import SyncPlan, SyncReport
from hubrank.zoo.defaults import bases_to_sync
from hubrank.zoo.plan import plan_sync
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import Event, sync_hubs

__all__ = ["SyncSettings", "ensure_base", "open_hub", "plan", "sync"]


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """What to sync, and how. Of several values for one field any will do.

    Attributes:
        bases: of these base models; ``all`` for every one. Empty: on the network those that are in the zoo, or for an empty
            zoo :data:`hubrank.zoo.defaults.DEFAULT_BASES`; a folder is read whole.
        methods: of these, of :data:`hubrank.checkpoints.reader.METHODS`. Others are counted as ``other method``.
        tasks, languages, licenses, authors, min_downloads, limit: see :class:`hubrank.hubs.protocol.Query`.
        jobs: adapters read at once; None for eight from a hub on the network, and one after another from a folder.
        ray: address of a Ray cluster to read on: ``auto``, ``local`` or ``HOST:PORT``.
        offline: ask no hub on the network.
        wait: where another process is changing the zoo, wait until it is done.
    """

    bases: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    min_downloads: int | None = None
    limit: int | None = None
    jobs: int | None = None
    ray: str | None = None
    offline: bool = False
    wait: bool = False


def sync(
    hubs: Sequence[str | Path | Hub] = ("hf",),
    *,
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    settings: SyncSettings | None = None,
    **changes: Any,
) -> SyncReport:
    """Bring the zoo up to date with hubs.

    Args:
        hubs: ``"hf"``, folders of adapters, or objects with the methods of :class:`hubrank.hubs.protocol.Hub`.
        zoo: an open zoo; else the one in ``cache_dir`` (see :func:`hubrank.zoo.store.cache_folder`).
        on_event: called for every adapter that has been dealt with.
        on_wait: told once who is waited for.
        settings, changes: fields of :class:`SyncSettings`, as an object or by name.

    Raises:
        SyncIncompleteError: some hub did not answer to its end; carries the report of what was done.
        HubError: a hub is not there.
        StoreError: the zoo cannot be written, or another process is changing it.
        UsageError: an argument is out of range.
    """
    settings = _checked(settings, changes)
    budget = _shared_budget(settings.ray) if settings.ray is not None else None
    opened_hubs = [open_hub(hub, budget=budget) if isinstance(hub, str | Path) else hub for hub in hubs]
    with _opened(zoo, cache_dir, create=True) as opened:
        query, default_bases = _query(opened, settings)
        return sync_hubs(
            opened,
            opened_hubs,
            query,
            default_bases=default_bases,
            on_event=on_event,
            base_tensors=_local_base,
            jobs=settings.jobs,
            ray=settings.ray,
            offline=settings.offline,
            wait=settings.wait,
            on_wait=on_wait,
        )


def plan(
    hubs: Sequence[str | Path | Hub] = ("hf",),
    *,
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    settings: SyncSettings | None = None,
    **changes: Any,
) -> SyncPlan:
    """What :func:`sync` with the same arguments would do: hubs are listed, nothing is read, and nothing is written.

    Raises:
        HubError: a hub is not there. One that does not answer is named in the plan.
        StoreError: the zoo cannot be read.
        UsageError: an argument is out of range.
    """
    settings = _checked(settings, changes)
    opened_hubs = [open_hub(hub) if isinstance(hub, str | Path) else hub for hub in hubs]
    with _opened(zoo, cache_dir, create=False) as opened:
        query, default_bases = _query(opened, settings)
        return plan_sync(opened, opened_hubs, query, default_bases=default_bases, offline=settings.offline)


def ensure_base(
    base: str,
    *,
    hubs: Sequence[str | Path | Hub] = ("hf",),
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    announce: Callable[[SyncPlan], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    **changes: Any,
) -> SyncReport | None:
    """Sync a base model's adapters where the zoo has none, so that a search can follow; None where it has some.

    Args:
        base: id of the model.
        announce: told what will be read, before it is; it may raise to refuse.
        changes: further fields of :class:`SyncSettings`.

    Raises:
        SyncIncompleteError, HubError, StoreError, UsageError: as :func:`sync`.
    """
    with _opened(zoo, cache_dir, create=True) as opened:
        if any(opened.sources(base=name) for name in all_names(base)):
            return None
        opened_hubs = [open_hub(hub) if isinstance(hub, str | Path) else hub for hub in hubs]
        if announce is not None:
            announce(plan(opened_hubs, zoo=opened, bases=(base,), **changes))
        return sync(opened_hubs, zoo=opened, on_event=on_event, bases=(base,), **changes)


def open_hub(name: str | Path, *, budget: Budget | None = None) -> Hub:
    """A hub by the name that the command line gives it.

    Args:
        budget: counts the requests of a hub on the network, where that is not for it alone to do.

    Raises:
        HubError: it is a folder that is not there, or holds no index where one is meant.
        UsageError: it is empty.
    """
    if name == "hf":
        from hubrank.hubs.huggingface import HuggingFaceHub

        return HuggingFaceHub(budget=budget)
    if name == "adapterhub":
        from hubrank.hubs.adapterhub import AdapterHub

        return AdapterHub(budget=budget)
    if isinstance(name, str) and (name == "zips" or name.startswith("zips:")):
        from hubrank.hubs.adapterhub import open_zips

        return open_zips(name, budget=budget)
    if not str(name).strip():
        raise UsageError("--hub '': give hf, adapterhub, zips or a folder of adapters")
    return FolderHub(name)


def _checked(settings: SyncSettings | None, changes: dict[str, Any]) -> SyncSettings:
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    settings = replace(settings or SyncSettings(), **given)
    for option, value, low in (
        ("--limit", settings.limit, 1),
        ("--jobs", settings.jobs, 1),
        ("--min-downloads", settings.min_downloads, 0),
    ):
        if value is not None and value < low:
            raise UsageError(f"{option} {value}: give a number from {low}")
    unknown = next((method for method in settings.methods if method not in METHODS), None)
    if unknown is not None:
        raise UsageError(f"--method {unknown}: adapters are of {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    return settings


def _query(zoo: Zoo, settings: SyncSettings) -> tuple[Query, tuple[str, ...]]:
    bases, default_bases = bases_to_sync(zoo, settings.bases)
    query = Query(
        bases,
        methods=settings.methods,
        tasks=settings.tasks,
        languages=settings.languages,
        licenses=settings.licenses,
        authors=settings.authors,
        min_downloads=settings.min_downloads,
        limit=settings.limit,
    )
    return query, default_bases


@contextmanager
def _opened(zoo: Zoo | None, cache_dir: str | Path | None, *, create: bool) -> Iterator[Zoo]:
    opened = zoo or Zoo(cache_dir, create=create)
    try:
        yield opened
    finally:
        if zoo is None:
            opened.close()


def _shared_budget(address: str) -> Budget:
    """One count of requests for every machine of a Ray cluster."""
    from hubrank.hubs.budget import ANONYMOUS, WITH_TOKEN, RateBudget
    from hubrank.hubs.identity import hub_token
    from hubrank.zoo.cluster import SharedBudget, connect_ray

    connect_ray(address)
    return SharedBudget(RateBudget(WITH_TOKEN if hub_token() else ANONYMOUS))


def _local_base(name: str) -> BaseTensors | None:
    """The parameters of a base model that is on this machine already."""
    try:
        return FolderTensors(find_base(name, offline=True).folder)
    except (HubError, InputError):
        return None
