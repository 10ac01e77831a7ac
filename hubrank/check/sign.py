"""Tune the user's targets where the zoo's sources were tuned, so that newcomers can be ranked for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.check.targets import SignedTarget, Signer
from hubrank.errors import EmptyZooError
from hubrank.ranking.bases import choose_base, choose_methods
from hubrank.ranking.rank import measure
from hubrank.ranking.runs import Runs
from hubrank.ranking.search import SILENT, SearchSettings
from hubrank.target.base import find_base
from hubrank.target.frameworks import pick_device
from hubrank.target.memory import check_fit
from hubrank.target.rows import read_target
from hubrank.zoo.packed_files import open_packed

if TYPE_CHECKING:
    from hubrank.ranking.search import Listener
    from hubrank.zoo.store import Zoo

__all__ = ["tuned_target"]


def tuned_target(zoo: Zoo, *, base: str | None, device: str, offline: bool, listener: Listener | None) -> Signer:
    """A signer that tunes as a search does, by the method with the most sources; what was tuned before is not tuned again.

    Raises:
        EmptyZooError: the zoo has nothing for that base.
        BaseModelError, HubError: the base model cannot be had.
    """
    name, folder = choose_base(zoo, base)
    method = choose_methods(zoo, name, ())[0][0]
    packed = open_packed(zoo, name, method)
    if not packed.sources:
        raise EmptyZooError(f"the {method} sources for {name} have nothing in common: no site is adapted by a tenth of them")

    def sign(path: str | Path) -> SignedTarget:
        chosen = pick_device(device)
        model = find_base(name, folder=folder, offline=offline)
        dtype = check_fit(name, model.folder, chosen).dtype
        settings = SearchSettings(base=base, device=device, offline=offline)
        runs = Runs(read_target(path), model, zoo.folder, settings, device=chosen, dtype=dtype, listener=listener or SILENT)
        yardstick = runs.informed(measure(packed))
        signature = runs.run(yardstick, settings.seed, None, 1, last=True)
        return SignedTarget(str(path), name, packed, signature, yardstick.evidence)

    return sign
