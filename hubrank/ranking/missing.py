"""Which base model a search would need first, where the zoo has nothing for the one it is asked for."""

from __future__ import annotations

from hubrank.checkpoints.base_names import canonical_name
from hubrank.errors import BaseModelError, EmptyZooError, HubError
from hubrank.ranking.bases import check_model_id, choose_base, folder_named
from hubrank.target.base import find_base
from hubrank.zoo.defaults import DEFAULT_BASES
from hubrank.zoo.store import Zoo

__all__ = ["missing_base"]


def missing_base(zoo: Zoo, given: str | None, *, gone: bool = False) -> str | None:
    """The id of the base to sync before a search for ``given`` can go ahead; None where it can, or where no sync would help.

    Where nobody names one and the zoo is empty, it is the first of :data:`hubrank.zoo.defaults.DEFAULT_BASES` that is on
    this machine, so that no model needs to be downloaded, else the first of all.

    Raises:
        BaseModelError: ``given`` is neither a model id nor a folder.
    """
    try:
        choose_base(zoo, given, gone=gone)
    except EmptyZooError:
        if given is None:
            # What is in the zoo and gone is not synced again unasked.
            return None if zoo.sources(gone=True) else next(filter(_here, DEFAULT_BASES), DEFAULT_BASES[0])
        name, _, folder = given.partition("=")
        if not name or folder_named(folder) is None:
            name = given
        if folder_named(name) is not None:
            return None
        check_model_id(name)
        return canonical_name(name)
    return None


def _here(name: str) -> bool:
    try:
        find_base(name, offline=True)
    except (HubError, BaseModelError):
        return False
    return True
