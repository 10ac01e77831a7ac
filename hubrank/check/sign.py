"""Tune the user's targets where the zoo's sources were tuned, so that newcomers can be ranked for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.check.targets import SignedTarget, Signer
from hubrank.errors import EmptyZooError
from hubrank.ranking.placement import usual_rank
from hubrank.ranking.search import METHOD, choose_base, sign_target
from hubrank.target.base import find_base
from hubrank.target.frameworks import pick_device
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan
from hubrank.zoo.packed_files import open_packed

if TYPE_CHECKING:
    from hubrank.ranking.search import Listener
    from hubrank.zoo.store import Zoo

__all__ = ["tuned_target"]


def tuned_target(zoo: Zoo, *, base: str | None, device: str, offline: bool, listener: Listener | None) -> Signer:
    """A signer that tunes as a search does.

    Raises:
        EmptyZooError: the zoo has nothing for that base.
        BaseModelError, HubError: the base model cannot be had.
    """
    name, folder = choose_base(zoo, base)
    packed = open_packed(zoo, name, METHOD)
    if not packed.sources:
        raise EmptyZooError(f"the {METHOD} sources for {name} have nothing in common: no site is adapted by a tenth of them")

    def sign(path: str | Path) -> SignedTarget:
        model = find_base(name, folder=folder, offline=offline)
        plan = TuningPlan(modules=(), rank=usual_rank(packed))
        signature, _ = sign_target(read_target(path), model, packed, plan, device=pick_device(device), listener=listener)
        return SignedTarget(str(path), name, packed, signature)

    return sign
