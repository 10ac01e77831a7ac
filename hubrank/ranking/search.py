"""The search: tune the target by every method of the zoo, sign it, rank the zoo, and stop as soon as the ranking stands."""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from hubrank.errors import BaseModelError, EmptyZooError, UsageError
from hubrank.ranking.bases import AUTO, auto_base, choose_base, choose_methods, sizes_here
from hubrank.ranking.beyond import SearchInterrupted, check_beyond, go_beyond, rows_needed
from hubrank.ranking.estimators import ESTIMATORS
from hubrank.ranking.explain import explain
from hubrank.ranking.merge import MethodRuns, merge
from hubrank.ranking.rank import Compared, Yardstick, compare, measure, skipped
from hubrank.ranking.runs import Runs, Snapshot
from hubrank.target.base import BaseModel, find_base
from hubrank.target.frameworks import import_peft, pick_device
from hubrank.target.memory import check_fit
from hubrank.target.methods import METHODS
from hubrank.target.placed_files import is_placed, placed_key
from hubrank.target.rows import read_target
from hubrank.target.tuning import STEPS
from hubrank.types import Ranking, TargetRun
from hubrank.zoo.packed_files import open_packed
from hubrank.zoo.store import Zoo

if TYPE_CHECKING:
    from hubrank.target.task import Target

__all__ = [
    "SILENT",
    "Listener",
    "SearchInterrupted",
    "SearchSettings",
    "check_settings",
    "choose_base",
    "choose_methods",
    "search",
]


_ENOUGH_SHARED = 0.5  # of the target's sites, with most sources of a method


class Listener(Protocol):
    """Hears how a search gets on."""

    def stage(self, message: str) -> None:
        """Something that takes a moment begins."""

    def step(self, done: int, total: int) -> None:
        """A tuning step is done."""

    def note(self, message: str) -> None:
        """Something the user should know, once."""

    def ranking(self, snapshot: Snapshot) -> None:
        """The ranking as it is after some of the steps."""


class _Silent:
    def stage(self, message: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def note(self, message: str) -> None: ...
    def ranking(self, snapshot: Snapshot) -> None: ...


SILENT: Listener = _Silent()
"""Hears, and tells nobody."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search.

    Attributes:
        base: model id, folder, or ID=FOLDER; None or ``auto`` for the one with the most sources that fits task and device.
        methods: of :data:`hubrank.target.methods.METHODS`; empty for all of which the zoo has enough sources.
        top: rows of the ranking; None for all.
        steps, seed, device: of tuning the target; ``auto`` takes CUDA, then MPS, then CPU.
        early: stop a run as soon as its ranking has settled (:mod:`hubrank.ranking.stability`).
        budget: seconds for tuning, all runs together; None for no limit.
        repeats: seeds, from ``seed`` on, by which every place gets an interval.
        estimator: a name of :data:`hubrank.ranking.estimators.ESTIMATORS`; None for each method's own.
        offline: never ask a hub for the base model.
        gone: rank what left its hub, too.
        explain: say of so many of the first rows why they stand there, or of the source with this name; 0 for none.
        reuse: take the signature of a target that was tuned before in the same way from the cache folder, and figures of rerank
            and verify that were measured before.
        rerank: run the target's rows through the first so many sources, as they were published, and let LogME have a say in
            their order (:mod:`hubrank.ranking.rerank`).
        verify: tune the target from the first so many sources, as they were published, and from scratch, and measure the gain
            on held-out rows (:mod:`hubrank.ranking.verify`).
    """

    base: str | None = None
    methods: tuple[str, ...] = ()
    top: int | None = 10
    steps: int = STEPS
    seed: int = 0
    device: str = "auto"
    early: bool = True
    budget: float | None = None
    repeats: int = 1
    estimator: str | None = None
    offline: bool = False
    gone: bool = False
    explain: int | str = 0
    reuse: bool = True
    rerank: int | None = None
    verify: int | None = None


def search(
    target: str | Path | Target,
    *,
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    listener: Listener | None = None,
    settings: SearchSettings | None = None,
    **changes: Any,
) -> Ranking:
    """Rank the zoo by predicted transfer to a target task.

    Tunes the target for a few steps on this machine, by each method that the zoo holds, as Zhou, Xu and McAuley,
    "Efficiently Tuned Parameters are Task Embeddings" (EMNLP 2022), and compares it with every source; no source is run, unless
    ``rerank`` or ``verify`` ask for it, and the target leaves this machine in no form. Interrupted, it keeps the runs that were
    finished for the next search.

    Args:
        target: a file of rows, or what :func:`hubrank.target.rows.read_target` made of one.
        zoo: an open zoo; else the one in ``cache_dir`` (see :func:`hubrank.zoo.store.cache_folder`).
        settings, changes: fields of :class:`SearchSettings`, as an object or by name.

    Raises:
        TargetError: the target file cannot be used.
        EmptyZooError: the zoo holds nothing to compare with.
        BaseModelError, HubError: the base model cannot be had or cannot be used.
        StoreError: the store is damaged or locked.
        UsageError: a setting is out of range.
        SearchInterrupted: the interrupt key was pressed while ``rerank`` or ``verify`` were at it; carries the ranking.
    """
    settings = replace(settings or SearchSettings(), **changes)
    listener = listener or SILENT
    check_settings(settings)
    task = read_target(target) if isinstance(target, str | Path) else target
    check_beyond(settings, task)
    opened = zoo or Zoo(cache_dir)
    try:
        return _search(task, opened, settings, listener)
    finally:
        if zoo is None:
            opened.close()


def _search(task: Target, zoo: Zoo, settings: SearchSettings, listener: Listener) -> Ranking:
    device = pick_device(settings.device)
    notes = [f"{task.path}: {note}" for note in task.notes]
    if settings.base in (None, AUTO):
        picked = auto_base(zoo, task.task, device, methods=settings.methods, gone=settings.gone)
        name, folder = picked.name, None
        notes.append(picked.why)
    else:
        name, folder = choose_base(zoo, settings.base, gone=settings.gone)
    methods, left_out = choose_methods(zoo, name, settings.methods, gone=settings.gone)
    notes += left_out
    for note in notes:
        listener.note(note)
    # Loading the frameworks and packing the zoo take a moment each, and different parts of the machine.
    digest = task.digest()
    placed = (is_placed(zoo.folder, placed_key(digest, name, method), zoo.generation) for method in methods)
    known = settings.reuse and all(placed)
    with nullcontext() if known else _in_background(import_peft):
        yardsticks = _yardsticks(zoo, name, methods, settings, notes)
    if not yardsticks:
        raise EmptyZooError(
            f"the {', '.join(methods)} sources for {name} have nothing in common: no site is adapted by a tenth of them"
        )
    if not known:
        listener.stage(f"loading {name}")
    base = find_base(name, folder=folder, offline=settings.offline)
    fit = check_fit(name, base.folder, device, smaller=sizes_here(zoo))
    if fit.dtype != "float32":
        notes.append(f"{name} is loaded in {fit.dtype}: in float32 it would not fit {device}")
    runner = Runs(task, base, zoo.folder, settings, device=device, dtype=fit.dtype, listener=listener)
    results = _run_all(runner, yardsticks, settings, notes)
    ranking = _ranking(task, zoo, settings, results, runner=runner, base=base, device=device, notes=notes)
    return go_beyond(ranking, task, base, settings, cache=zoo.folder, device=device, dtype=fit.dtype, listener=listener)


@contextmanager
def _in_background(work: Callable[[], object]) -> Iterator[None]:
    """Do something beside what the block does, and be done with both at its end."""
    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _yardsticks(zoo: Zoo, base: str, methods: Sequence[str], settings: SearchSettings, notes: list[str]) -> list[Yardstick]:
    """Of every method that has sources to compare; one of which an older hubrank read all is left out if it was not named."""
    found = []
    for method in methods:
        try:
            packed = open_packed(zoo, base, method, gone=settings.gone)
        except EmptyZooError as error:
            if settings.methods or len(methods) == 1:
                raise
            notes.append(f"{method} is left out: {error}")
            continue
        if packed.sources:
            found.append(measure(packed, estimator=settings.estimator))
    return found


def _run_all(runner: Runs, yardsticks: Sequence[Yardstick], settings: SearchSettings, notes: list[str]) -> list[MethodRuns]:
    """Every method, every seed; a method that this base cannot take is left out where nobody asked for it by name."""
    results: list[MethodRuns] = []
    until = None if settings.budget is None else time.perf_counter() + settings.budget
    refused: BaseModelError | EmptyZooError | None = None
    for i, yardstick in enumerate(yardsticks):
        found: list[Compared] = []
        done, noted = len(runner.done), len(runner.notes)
        try:
            informed = runner.informed(yardstick, until)
            for repeat in range(settings.repeats):
                left, last = (len(yardsticks) - i) * settings.repeats - repeat, i == len(yardsticks) - 1
                signature = runner.run(informed, settings.seed + repeat, until, left, last)
                found.append(compare(informed, signature))
        except (BaseModelError, EmptyZooError) as error:
            refused = error
            if settings.methods or len(yardsticks) == 1:
                raise
            notes.append(f"{yardstick.packed.method} is left out: {error}")
            del runner.done[done:], runner.signatures[done:], runner.notes[noted:]
            continue
        results.append(MethodRuns(informed, tuple(found)))
    if not results and refused is not None:
        raise refused
    return results


def _ranking(
    task: Target,
    zoo: Zoo,
    settings: SearchSettings,
    results: list[MethodRuns],
    *,
    runner: Runs,
    base: BaseModel,
    device: str,
    notes: list[str],
) -> Ranking:
    name = base.name
    rows = merge(results, top=rows_needed(settings))
    methods = tuple(result.yardstick.packed.method for result in results)
    everything = zoo.sources(gone=settings.gone)
    reasons = Counter("other base" for source in everything if source.base != name)
    reasons += Counter("other method" for source in everything if source.base == name and source.method not in methods)
    for result in results:
        reasons += Counter(skipped(result.yardstick.packed, result.seeds[0]))
    notes += runner.notes
    for result in results:
        notes += _remarks(result, alone=len(results) == 1)
    # The most prominent method speaks for the target: one relative is enough.
    best = max((one for result in results for one in result.seeds), key=lambda one: one.verdict.prominence or 0.0)
    runs = tuple(
        replace(run, energy=one.energy, sources=len(one.usable))
        for run, one in zip(runner.done, (one for result in results for one in result.seeds), strict=True)
    )
    return Ranking(
        base=name,
        base_folder=str(base.folder) if base.origin == "folder" else None,
        methods=methods,
        estimator=", ".join(dict.fromkeys(result.yardstick.name for result in results)),
        target=TargetRun(
            path=task.path,
            examples=len(task),
            task=task.task,
            labels=len(task.classes),
            steps=sum(run.steps for run in runs),
            seconds=sum(run.seconds for run in runs if not run.cached),
            device=device,
        ),
        sources=len(everything),
        compared=sum(len(result.usable) for result in results),
        skipped=dict(reasons),
        rows=rows,
        verdict=best.verdict,
        energy=results[0].seeds[0].energy,
        notes=tuple(notes),
        runs=runs,
        explanations=explain(results, zoo, settings.explain) if settings.explain else (),
        signature=runner.signatures[0],
    )


def _remarks(result: MethodRuns, *, alone: bool) -> list[str]:
    """What to know of one method's part of the list."""
    method = result.yardstick.packed.method
    remarks = []
    if result.seeds[0].scores is None:
        remarks.append(
            "the zoo is too small for a common scale: no scores are given"
            if alone
            else f"the zoo has too few {method} sources for a common scale: they come last, without scores"
        )
    coverage = result.seeds[0].coverage
    if float(sorted(coverage)[len(coverage) // 2]) < _ENOUGH_SHARED:
        remarks.append(f"{method}: most sources share fewer than half of the target's sites; compare them with care")
    return remarks


def check_settings(settings: SearchSettings) -> None:
    """See that every setting is one that there is; whether the machine has the device is seen later.

    Raises:
        UsageError: a setting is out of range.
    """
    if not 1 <= settings.steps <= 100_000:
        raise UsageError(f"--steps {settings.steps}: give a number from 1 to 100000")
    if settings.top is not None and settings.top < 1:
        raise UsageError(f"--top {settings.top}: give a number from 1")
    if not 0 <= settings.seed < 2**31:
        raise UsageError(f"--seed {settings.seed}: give a number from 0 to 2147483647")
    if not 1 <= settings.repeats <= 100 or settings.seed + settings.repeats > 2**31:
        raise UsageError(f"--repeats {settings.repeats}: give a number from 1 to 100")
    if settings.budget is not None and not 0 < settings.budget < 1e9:
        raise UsageError(f"--budget {settings.budget:g}: give a time above 0, such as 90s or 2m")
    if settings.estimator is not None and settings.estimator not in ESTIMATORS:
        close = difflib.get_close_matches(settings.estimator, ESTIMATORS, n=1)
        hint = f"did you mean {close[0]}? There" if close else "there"
        raise UsageError(f"--estimator {settings.estimator}: unknown; {hint} is {', '.join(sorted(ESTIMATORS))}")
    check_beyond(settings)
    unknown = next((method for method in settings.methods if method not in METHODS), None)
    if unknown is not None:
        raise UsageError(f"--method {unknown}: a target is tuned by {', '.join(METHODS)}")
