"""What ``hubrank sync`` does, as a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.checkpoints.base_names import all_names
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.errors import HubError, InputError, UsageError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Hub, Query
from hubrank.target.base import find_base
from hubrank.types import SyncReport
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import Event, sync_hubs

__all__ = ["open_hub", "sync"]


def sync(
    hubs: Sequence[str | Path | Hub] = ("hf",),
    *,
    bases: Sequence[str] = (),
    limit: int | None = None,
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> SyncReport:
    """Bring the zoo up to date with hubs.

    Args:
        hubs: ``"hf"``, folders of adapters, or objects with the methods of :class:`hubrank.hubs.protocol.Hub`.
        bases: only adapters of these base models; empty for all.
        limit: at most so many repositories per hub.
        zoo: an open zoo; else the one in ``cache_dir`` (see :func:`hubrank.zoo.store.cache_folder`).
        on_event: called for every adapter that has been dealt with.

    Raises:
        HubError: a hub is not there or does not answer.
        StoreError: the zoo cannot be written.
        UsageError: an argument is out of range.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: give a number from 1")
    opened_hubs = [open_hub(hub) if isinstance(hub, str | Path) else hub for hub in hubs]
    opened = zoo or Zoo(cache_dir, create=True)
    try:
        # A hub lists by the name that a card states, which may be an older one of the same model.
        names = tuple(dict.fromkeys(name for base in bases for name in all_names(base)))
        return sync_hubs(opened, opened_hubs, Query(names, limit=limit), on_event=on_event, base_tensors=_local_base)
    finally:
        if zoo is None:
            opened.close()


def _local_base(name: str) -> BaseTensors | None:
    """The parameters of a base model that is on this machine already."""
    try:
        return FolderTensors(find_base(name, offline=True).folder)
    except (HubError, InputError):
        return None


def open_hub(name: str | Path) -> Hub:
    """A hub by the name that the command line gives it.

    Raises:
        HubError: it is a folder that is not there.
    """
    if name == "hf":
        from hubrank.hubs.huggingface import HuggingFaceHub

        return HuggingFaceHub()
    return FolderHub(name)
