"""What a benchmark is asked for, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hubrank.benchmark.judge import Judged
from hubrank.target.tuning import STEPS

__all__ = ["BenchReport", "BenchSettings", "TargetFacts"]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What to judge, and on what. Of several values for one field any will do.

    Attributes:
        zoo: a folder of adapters; None for the zoo in the cache.
        targets: a folder with a file of rows for each target, named after it; None: no target is tuned, and only what needs
            none is judged.
        estimators: names; none for all that there are.
        rivals: judge what else a user could pick, as far as its inputs are at hand.
        source_rows: a folder with rows of each source's own task, named after the source, for rivals that need them.
        kin: keep sources of a target's own task or corpus.
        where: ``FIELD=VALUE`` conditions on the rows.
        least: a target with fewer measured sources is left out.
        base: model id, folder, or ID=FOLDER; None for what most of the measured sources have.
        steps, seed, repeats, device, early, offline: of tuning, as :class:`hubrank.ranking.search.SearchSettings` has them.
    """

    zoo: str | Path | None = None
    targets: str | Path | None = None
    estimators: tuple[str, ...] = ()
    rivals: bool = False
    source_rows: str | Path | None = None
    kin: bool = True
    where: tuple[str, ...] = ()
    least: int = 3
    base: str | None = None
    steps: int = STEPS
    seed: int = 0
    repeats: int = 1
    device: str = "auto"
    early: bool = True
    offline: bool = False


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A target that rankings were judged on: how many sources and seeds, the best source, its value, and no transfer's."""

    name: str
    metric: str
    sources: int
    seeds: int
    best: str
    best_value: float
    no_transfer: float | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What a benchmark found.

    Attributes:
        transfer: the file; ``zoo``: the folder of adapters or the cache.
        sources, matched, unmatched: names in the file, how many of them the zoo has, and (name, why not) of the others.
        lines: references first, then estimators, then rivals.
        left_out: (rival, why) of those that were not judged.
        notes: what the reader should know, one sentence each.
    """

    transfer: str
    zoo: str
    base: str | None
    methods: tuple[str, ...]
    kin: bool
    sources: int
    matched: int
    unmatched: tuple[tuple[str, str], ...]
    targets: tuple[TargetFacts, ...]
    lines: tuple[Judged, ...]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float
