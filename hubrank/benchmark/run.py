"""``hubrank bench``: estimators, rivals and references against a file of measured transfer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.benchmark.facts import BenchReport, BenchSettings, TargetFacts
from hubrank.benchmark.judge import Cost, Judged, ceiling, chance, judge, no_transfer, prior, restricted
from hubrank.benchmark.matching import Matched, match_sources
from hubrank.benchmark.ours import Signing, estimate_all, measured_zoo
from hubrank.benchmark.places import files_of_rows, opened_zoo
from hubrank.benchmark.rivals import rank_rivals
from hubrank.benchmark.run_sources import run_sources, run_targets
from hubrank.benchmark.source_model import SourceModel
from hubrank.benchmark.transfer import MeasuredTarget, Transfer, parse_where, read_transfer
from hubrank.errors import EmptyZooError, InputError, UsageError
from hubrank.ranking.bases import folder_named
from hubrank.ranking.estimators import ESTIMATORS
from hubrank.ranking.search import SILENT, SearchSettings
from hubrank.target.base import find_base, load_base
from hubrank.target.frameworks import pick_device
from hubrank.target.memory import check_fit
from hubrank.target.methods import METHODS
from hubrank.target.rows import read_target
from hubrank.zoo.place import cache_folder, tag_folder

if TYPE_CHECKING:
    from hubrank.benchmark.ours import SignedTarget
    from hubrank.ranking.search import Listener
    from hubrank.target.task import Target
    from hubrank.types import Source
    from hubrank.zoo.store import Zoo

__all__ = ["bench"]


def bench(
    transfer: str | Path,
    *,
    cache_dir: str | Path | None = None,
    listener: Listener | None = None,
    settings: BenchSettings | None = None,
    **changes: Any,
) -> BenchReport:
    """Judge rankings by transfer that was measured.

    Args:
        transfer: a JSONL file, a run a line (:mod:`hubrank.benchmark.transfer`).
        cache_dir: where tuned targets are kept, and the zoo where no folder is given.
        settings, changes: fields of :class:`BenchSettings`, as an object or by name.

    Raises:
        UsageError: a setting is out of range.
        InputError: the file, a target or the base model cannot be used, or nothing in it can be judged.
        HubError: a folder is not there, or the base model is nowhere.
        StoreError: the zoo is damaged, locked or empty.
    """
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    settings = replace(settings or BenchSettings(), **given)
    _checked(settings)
    started = time.perf_counter()
    measured = read_transfer(transfer, where=parse_where(settings.where))
    with opened_zoo(settings.zoo, cache_dir) as zoo:
        report = _Bench(zoo, measured, settings, cache_folder(cache_dir), listener or SILENT).run()
    return replace(report, seconds=time.perf_counter() - started)


class _Bench:
    def __init__(self, zoo: Zoo, transfer: Transfer, settings: BenchSettings, cache: Path, listener: Listener) -> None:
        self.zoo, self.transfer, self.settings, self.cache, self.listener = zoo, transfer, settings, cache, listener
        self.notes = list(transfer.notes)
        self.left_out: list[tuple[str, str]] = []

    def run(self) -> BenchReport:
        sources = self.zoo.sources()
        matched = match_sources(self.transfer.sources, self.transfer.adapters, sources)
        if not matched.found:
            name, why = matched.unmatched[0]
            raise InputError(
                f"{self.transfer.path}: none of its {len(matched.sources)} sources is in {self._where()}, "
                f"such as {name} ({why}); a row's source, or its adapter, is a folder or a repository of the zoo"
            )
        base, matched = self._base(matched)
        kept = np.array([source is not None for source in matched.sources])
        targets = [restricted(target, kept, kin=self.settings.kin) for target in self.transfer.targets]
        targets, files = self._with_rows(self._enough(targets))
        references = [chance(targets), no_transfer(targets), prior(targets), ceiling(targets)]
        lines = [line for line in references if line is not None]
        methods: tuple[str, ...] = ()
        if files:
            signing, shipped = self._signing(base, matched)
            methods = signing.methods
            signed, rows = self._signed(signing, targets, files)
            own = [self._estimator(signing, name, signed, targets, matched) for name in signing.yardsticks]
            lines += [replace(line, default=line.name in shipped) for line in own]
            if self.settings.rivals:
                lines += self._rivals(signing, signed, rows, targets, matched)
        elif self.settings.rivals:
            self.left_out.append(("all rivals that look at the target", "no --targets"))
        return BenchReport(
            transfer=self.transfer.path,
            zoo=self._where(),
            base=base,
            methods=methods,
            kin=self.settings.kin,
            sources=len(matched.sources),
            matched=len(matched.found),
            unmatched=matched.unmatched,
            targets=tuple(_facts(target, self.transfer.sources) for target in targets),
            lines=tuple(lines),
            left_out=tuple(self.left_out),
            notes=tuple(self.notes),
            seconds=0.0,
        )

    def _where(self) -> str:
        return str(self.settings.zoo) if self.settings.zoo is not None else str(self.zoo.folder)

    def _base(self, matched: Matched) -> tuple[str, Matched]:
        """The base that most of the measured sources have, or the one that was named; sources of others are let go of."""
        counts = Counter(source.base for source in matched.found)
        given = self.settings.base
        name = counts.most_common(1)[0][0]
        if given is not None and folder_named(given) is None:
            wanted = given.partition("=")[0]
            name = next((base for base in counts if base.lower() == wanted.lower()), "")
            if not name:
                raise UsageError(f"--base {given}: the measured sources are for {', '.join(counts)}")
        why = f"for another base than {name}"
        others = tuple(
            (self.transfer.sources[i], why)
            for i, source in enumerate(matched.sources)
            if source is not None and source.base != name
        )
        mine = tuple(source if source is not None and source.base == name else None for source in matched.sources)
        return name, Matched(mine, (*matched.unmatched, *others))

    def _enough(self, targets: Sequence[MeasuredTarget]) -> list[MeasuredTarget]:
        enough = [target for target in targets if target.there.sum() >= self.settings.least]
        few = [f"{target.name} ({target.there.sum()})" for target in targets if target.there.sum() < self.settings.least]
        if few:
            self.notes.append(f"left out, with fewer than {self.settings.least} sources measured: {', '.join(few)}")
        if not enough:
            raise InputError(
                f"{self.transfer.path}: no target has {self.settings.least} measured sources that are in the zoo; see --least"
            )
        whole = [target for target in enough if np.isfinite(target.complete[:, target.there]).all()]
        if len(whole) < len(enough):
            odd = ", ".join(target.name for target in enough if target not in whole)
            self.notes.append(f"no seed has every source of {odd}: each source counts with the seeds it has")
        return enough

    def _with_rows(self, targets: Sequence[MeasuredTarget]) -> tuple[list[MeasuredTarget], dict[str, Path]]:
        """Targets that have a file of rows, where rows are given at all."""
        if self.settings.targets is None:
            self.notes.append("no --targets: nothing is tuned, and only what looks at no target is judged")
            return list(targets), {}
        files = files_of_rows(self.settings.targets, "--targets")
        missing = [target.name for target in targets if target.name not in files]
        if len(missing) == len(targets):
            raise InputError(f"{self.settings.targets}: holds no file of rows for any target, such as {missing[0]}.jsonl")
        if missing:
            self.notes.append(f"left out, with no file of rows: {', '.join(missing)}")
        return [target for target in targets if target.name in files], files

    def _signing(self, base: str, matched: Matched) -> tuple[Signing, tuple[str, ...]]:
        methods = [method for method, _ in Counter(source.method for source in matched.found).most_common()]
        tunable = [method for method in methods if method in METHODS]
        if not tunable:
            raise EmptyZooError(f"no target can be tuned by {', '.join(methods)}, which is what the measured sources are")
        self.listener.stage(f"packing {len(matched.found)} sources")
        yardsticks, shipped = measured_zoo(self.zoo, base, tunable, self.settings.estimators)
        device = pick_device(self.settings.device)
        given = self.settings.base or ""
        folder = folder_named(given.partition("=")[2]) or folder_named(given)
        model = find_base(base, folder=folder, offline=self.settings.offline)
        search = SearchSettings(
            steps=self.settings.steps, seed=self.settings.seed, repeats=self.settings.repeats, early=self.settings.early
        )
        tag_folder(self.cache)
        dtype = check_fit(base, model.folder, device).dtype
        return Signing(model, yardsticks, self.cache, search, device, dtype, self.listener), shipped

    def _signed(
        self, signing: Signing, targets: Sequence[MeasuredTarget], files: Mapping[str, Path]
    ) -> tuple[dict[str, SignedTarget], dict[str, Target]]:
        signed, rows = {}, {}
        for i, target in enumerate(targets, 1):
            self.listener.stage(f"{target.name}, target {i} of {len(targets)}")
            rows[target.name] = read_target(files[target.name])
            signed[target.name] = signing.sign(rows[target.name])
        return signed, rows

    def _estimator(
        self,
        signing: Signing,
        name: str,
        signed: Mapping[str, SignedTarget],
        targets: Sequence[MeasuredTarget],
        matched: Matched,
    ) -> Judged:
        values, seconds = {}, []
        for target in targets:
            found = estimate_all(signing.yardsticks[name], signed[target.name])
            values[target.name] = [_in_order(one, matched.sources) for one in found.seeds]
            seconds.append(found.seconds)
        cost = Cost(
            tunes=True,
            tuning_seconds=float(np.mean([one.seconds for one in signed.values()])),
            bytes=signing.bytes_per_source,
            seconds=float(np.mean(seconds)),
        )
        return judge(name, values, targets, kind="estimator", cost=cost)

    def _rivals(
        self,
        signing: Signing,
        signed: Mapping[str, SignedTarget],
        rows: Mapping[str, Target],
        targets: Sequence[MeasuredTarget],
        matched: Matched,
    ) -> list[Judged]:
        own = self._source_rows(matched)
        model = SourceModel(*load_base(signing.base, dtype=signing.dtype), device=signing.device)
        sources = run_sources(model, self.zoo, matched.sources, rows, own_rows=own, stage=self.listener.stage)
        told = zip(sources, self.transfer.source_rows, self.transfer.families, strict=True)
        sources = [replace(one, rows=float(count), family=family or one.family) for one, count, family in told]
        arrays = run_targets(model, signing, signed, rows, gradients=bool(own))
        ranked, left_out = rank_rivals(sources, arrays)
        self.left_out += [*left_out, ("few-shot tuning", "it tunes every source on every target; bench/rivals.py measures it")]
        return [judge(one.name, one.values, targets, cost=one.cost, note=one.note) for one in ranked]

    def _source_rows(self, matched: Matched) -> dict[int, Target]:
        """Rows of the sources' own tasks, by place: named as the file names the source, or as its adapter's folder."""
        if self.settings.source_rows is None:
            return {}
        files = files_of_rows(self.settings.source_rows, "--source-rows")
        found = {}
        for i, source in enumerate(matched.sources):
            names = (self.transfer.sources[i], self.transfer.adapters[i].rstrip("/").rpartition("/")[2])
            path = next((files[name] for name in names if name in files), None)
            if source is not None and path is not None:
                found[i] = read_target(path)
        if not found:
            raise InputError(
                f"{self.settings.source_rows}: holds no file of rows named after a source, such as {names[0]}.jsonl"
            )
        return found


def _in_order(values: Mapping[Source, float], sources: Sequence[Source | None]) -> np.ndarray:
    """[n] values in the order of the file's sources; NaN for one that was not compared."""
    return np.array([values.get(source, np.nan) if source is not None else np.nan for source in sources])


def _facts(target: MeasuredTarget, names: Sequence[str]) -> TargetFacts:
    truth, fresh = target.truth, target.scratch[target.there]
    best = int(np.nanargmax(truth))
    return TargetFacts(
        name=target.name,
        metric=target.metric,
        sources=int(target.there.sum()),
        seeds=len(target.complete),
        best=names[best],
        best_value=float(truth[best]),
        no_transfer=float(np.nanmean(fresh)) if np.isfinite(fresh).any() else None,
    )


def _checked(settings: BenchSettings) -> None:
    unknown = next((name for name in settings.estimators if name not in ESTIMATORS), None)
    if unknown is not None:
        raise UsageError(f"--estimator {unknown}: unknown; there is {', '.join(sorted(ESTIMATORS))}")
    for option, value, low in (
        ("--steps", settings.steps, 1),
        ("--repeats", settings.repeats, 1),
        ("--seed", settings.seed, 0),
        ("--least", settings.least, 2),
    ):
        if value < low:
            raise UsageError(f"{option} {value}: give a number from {low}")
    if settings.source_rows is not None and not settings.rivals:
        raise UsageError("--source-rows is for rivals; say --rivals too")
