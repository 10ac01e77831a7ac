"""A search for a base that the zoo has nothing for reads that base's adapters first, so that one command is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubrank.cli.options import CacheDir
from hubrank.cli.output import Output
from hubrank.cli.progress import Interrupted, SyncProgress

if TYPE_CHECKING:
    from hubrank.ranking.search import SearchSettings
    from hubrank.types import SyncPlan

__all__ = ["sync_what_is_missing"]


def sync_what_is_missing(output: Output, settings: SearchSettings, cache_dir: CacheDir) -> None:
    """Sync the base that a search with these settings is for from the HF Hub, where the zoo has nothing for it.

    What will be read is announced before it is. Offline nothing happens: the search itself says what it lacks.

    Raises:
        BaseModelError, UsageError: the settings cannot be, whatever the zoo holds.
        HubError: the Hub does not answer, and nothing was read.
        StoreError: the zoo cannot be written, or another process is changing it.
    """
    from huggingface_hub import constants

    from hubrank.ranking.missing import missing_base
    from hubrank.ranking.search import check_settings
    from hubrank.zoo.store import Zoo

    if settings.offline or constants.HF_HUB_OFFLINE:
        return
    check_settings(settings)
    with Zoo(cache_dir) as zoo:
        base = missing_base(zoo, settings.base, gone=settings.gone)
    if base is None:
        return
    from hubrank.target.frameworks import pick_device

    pick_device(settings.device)  # a device that is not there is complained of before anything is downloaded
    _sync(output, base, cache_dir)


def _sync(output: Output, base: str, cache_dir: CacheDir) -> None:
    from hubrank.api import ensure_base
    from hubrank.errors import SyncIncompleteError
    from hubrank.report.plan import plan_line

    with SyncProgress(output) as progress:

        def announce(plan: SyncPlan) -> None:
            if plan.new or plan.changed:
                progress.note(f"the zoo has nothing for {base} yet: reading {plan_line(plan)}")
            elif not plan.failed:
                progress.note(f"the zoo has nothing for {base}, and neither has the HF Hub")

        try:
            ensure_base(base, cache_dir=cache_dir, announce=announce, on_event=progress.event)
        except SyncIncompleteError as error:
            if not error.report.added:
                raise
            for hub, why in error.report.failed:
                output.fault(f"{hub}: {why}; searching what was read")
        except KeyboardInterrupt:
            raise Interrupted(progress.kept()) from None
