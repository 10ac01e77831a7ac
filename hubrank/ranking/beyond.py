"""What a search does beyond the weights, for who asked: rerank, then verify. Interrupted, it hands over what it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.errors import InputError, UsageError
from hubrank.ranking.rerank import Rerank, check_rerank, reordered
from hubrank.ranking.shelf import FreshModels, Shelf
from hubrank.ranking.verify import Verify
from hubrank.target.objectives import SIZES
from hubrank.target.tuned_files import base_identity
from hubrank.types import MethodRun, Ranking, Scored, Source

if TYPE_CHECKING:
    from hubrank.ranking.search import Listener, SearchSettings
    from hubrank.target.base import BaseModel
    from hubrank.target.task import Target

__all__ = ["SearchInterrupted", "Workplace", "check_beyond", "go_beyond", "rows_needed"]

_MOST = 1000
_NAMED = 3


class SearchInterrupted(KeyboardInterrupt):
    """The interrupt key was pressed when the ranking stood already: ``ranking`` is what there is of it."""

    def __init__(self, ranking: Ranking, done: str) -> None:
        super().__init__(done)
        self.ranking = ranking


@dataclass(frozen=True, slots=True)
class Workplace:
    """All that measuring needs to know.

    Attributes:
        cache: folder that figures are kept in; ``reuse`` says whether those in it count.
        digest, identity: of the target and of the base model, as the names of figures have them.
        steps, seed: of tuning.
    """

    target: Target
    cache: Path
    device: str
    steps: int
    seed: int
    reuse: bool
    listener: Listener
    fresh: FreshModels
    shelf: Shelf
    digest: str
    identity: str
    runs: tuple[MethodRun, ...] = field(default=())

    def seconds_a_row(self) -> float | None:
        """What a row took in a tuning step of this search, or of the one whose result it used; None where none says."""
        steps = sum(run.steps for run in self.runs)
        batch = min(SIZES[self.target.task].batch, len(self.target))
        return sum(run.seconds for run in self.runs) / steps / batch if steps else None


def check_beyond(settings: SearchSettings, task: Target | None = None) -> None:
    """See that what is asked for can be.

    Raises:
        UsageError: a number is out of range, or the task has nothing that could be reranked by.
    """
    for option, value in (("--rerank", settings.rerank), ("--verify", settings.verify)):
        if value is not None and not 1 <= value <= _MOST:
            raise UsageError(f"{option} {value}: give a number of sources from 1 to {_MOST}")
    if settings.rerank is not None and task is not None:
        check_rerank(task.task)


def rows_needed(settings: SearchSettings) -> int | None:
    """How many rows of the ranking there must be, shown or not."""
    return None if settings.top is None else max(settings.top, settings.rerank or 0, settings.verify or 0)


def go_beyond(
    ranking: Ranking,
    target: Target,
    base: BaseModel,
    settings: SearchSettings,
    *,
    cache: Path,
    device: str,
    dtype: str,
    listener: Listener,
) -> Ranking:
    """Rerank and verify as the settings say, and cut the ranking to the rows to be shown.

    Raises:
        SearchInterrupted: the interrupt key was pressed.
    """
    if settings.rerank is None and settings.verify is None:
        return ranking
    fresh = FreshModels(base, target.task, dtype)
    place = Workplace(
        target=target,
        cache=cache,
        device=device,
        steps=settings.steps,
        seed=settings.seed,
        reuse=settings.reuse,
        listener=listener,
        fresh=fresh,
        shelf=Shelf(base, fresh, offline=_offline(settings)),
        digest=target.digest(),
        identity=f"{base_identity(base)} {dtype}",
        runs=ranking.runs,
    )
    if settings.rerank is not None:
        ranking = _rerank(ranking, place, settings.rerank, settings.top)
    if settings.verify is not None:
        ranking = _verify(ranking, place, settings.verify, settings.top)
    return _cut(ranking, settings.top)


def _rerank(ranking: Ranking, place: Workplace, most: int, top: int | None) -> Ranking:
    first, rest = ranking.rows[:most], ranking.rows[most:]
    rerank = Rerank(place, first)
    try:
        if to_do := rerank.to_do:
            loading = place.shelf.bytes_of(to_do)
            what = f"{len(place.target)} rows through {len(to_do)} of {len(first)} sources, as published"
            place.listener.note(f"rerank: {what}{_cost(rerank.seconds(), loading)}")
        rerank.run()
    except KeyboardInterrupt:
        known = (replace(row, logme=rerank.found[row.source].value) if row.source in rerank.found else row for row in first)
        said = f"reranking stopped after {len(rerank.found)} of {len(first)} sources, so the order is still the estimator's"
        stopped = replace(ranking, rows=(*known, *rest), notes=(*ranking.notes, said))
        raise SearchInterrupted(_cut(stopped, top), said) from None
    rows = (*reordered(first, rerank.found, rerank.failed, alone=len(ranking.methods) == 1), *rest)
    told = ("what is explained is the estimator's own order, before reranking",) if ranking.explanations else ()
    return _noted(replace(ranking, rows=rows), place, *_failures("rerank", rerank.failed, first), *told)


def _verify(ranking: Ranking, place: Workplace, most: int, top: int | None) -> Ranking:
    first = ranking.rows[:most]
    try:
        verify = Verify(place, first)
    except InputError as error:
        return _noted(ranking, place, f"verify: {error}")
    problem: list[str] = []
    try:
        loading = place.shelf.bytes_of(verify.to_fetch)
        verify.fetch()
        if runs := verify.runs():
            what = f"{runs} runs of {place.steps} steps each; {verify.split}"
            place.listener.note(f"verify: {what}{_cost(verify.seconds(), loading)}")
        verify.run()
    except InputError as error:  # from scratch it cannot be tuned either
        problem = [f"verify: {error}"]
    except KeyboardInterrupt:
        results = verify.results()
        said = f"measuring stopped after {results[0].seeds if results else 0} of {verify.folds} folds"
        stopped = replace(ranking, verified=results, notes=(*ranking.notes, said))
        raise SearchInterrupted(_cut(stopped, top), said) from None
    notes = [*problem, *_failures("verify", verify.failed, first)]
    notes += [f"verify: {source.name} was {warning}" for source, found in verify.warnings.items() for warning in found]
    results = verify.results()
    split = [f"verify: {verify.split}"] if results else []
    return _noted(replace(ranking, verified=results), place, *split, *notes)


def _cost(seconds: float | None, loading: int) -> str:
    time = "" if seconds is None else f", about {max(1, round(seconds)):,} s"
    return f"{time}, {loading / 1e6:,.1f} MB to download" if loading else f"{time}, nothing to download"


def _failures(option: str, failed: Mapping[Source, str], first: Sequence[Scored]) -> list[str]:
    """One sentence for all sources that could not be run for the same reason."""
    reasons: dict[str, list[str]] = {}
    for row in first:
        if row.source in failed:
            reasons.setdefault(failed[row.source], []).append(row.source.name)
    return [f"{option}: not done for {_some(names)} ({why})" for why, names in reasons.items()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _noted(ranking: Ranking, place: Workplace, *notes: str) -> Ranking:
    for note in notes:
        place.listener.note(note)
    return replace(ranking, notes=(*ranking.notes, *notes))


def _cut(ranking: Ranking, top: int | None) -> Ranking:
    return replace(ranking, rows=ranking.rows[:top])


def _offline(settings: SearchSettings) -> bool:
    from huggingface_hub import constants

    return settings.offline or bool(constants.HF_HUB_OFFLINE)
