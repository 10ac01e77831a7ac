"""Everything a worker keeps loaded: the base model, the targets' tokens, the sources' tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import bottleneck
import classify
import qa
import sources
from overlap import Draw, draw, seen_by
from plan import QA_TASKS, SOURCE_TASKS, Run, Source
from stacked import StackedBert
from train_zoo import BASE, read_rows

from hubrank.target.base import find_base, load_base


@dataclass(frozen=True, slots=True)
class Target:
    """A target that is ready for its runs; ``left_out``: the tasks whose sources saw its rows, with the part they saw."""

    task: Any
    metric: str
    test_rows: int
    left_out: Mapping[str, float]


class Workbench:
    """Runs what the plan says on one device."""

    def __init__(self, data: Path, zoo: Path, work: Path, device: str) -> None:
        self.device = device
        self._texts, self._questions, self._zoo, self._work = data / "datasets", data / "qa", zoo, work
        self._base = find_base(BASE)
        self._targets: dict[tuple[str, str, int], Target] = {}
        self._sources: dict[Source, dict[str, Any]] = {}
        self._fresh = classify.FreshLoras(self._base)
        self._bottleneck = bottleneck.BottleneckModel(self._base, device)

    def target(self, method: str, name: str, rows: int) -> Target:
        """The target's rows, drawn and tokenised once."""
        kind = "qa" if method == "qa" else "text"
        if (kind, name, rows) not in self._targets:
            self._targets[kind, name, rows] = (self._qa_target if kind == "qa" else self._text_target)(name, rows)
        return self._targets[kind, name, rows]

    def allowed(self, run: Run) -> bool:
        """Whether the run's source did not see the target's rows."""
        return run.source is None or run.source.task not in self.target(run.method, run.target, run.rows).left_out

    def has(self, source: Source) -> bool:
        """Whether the source is there."""
        return self._folder(source).is_dir()

    def measure(self, runs: Sequence[Run]) -> list[float]:
        """Do runs that differ in nothing but their start and its rank: each one's score on the target's test rows."""
        import torch

        run = runs[0]
        task = self.target(run.method, run.target, run.rows).task
        if run.method == "bottleneck":
            tensors = None if run.source is None else self._tensors(run.source)
            starts = classify.OneModel(torch, self._bottleneck.start(run.shape, tensors, run.seed), self.device)
        else:
            adapters = [self._tensors(r.source) if r.source else self._fresh.draw(r.shape, r.seed) for r in runs]
            starts = self._bert.start(adapters, [r.shape.alpha / r.shape.rank for r in runs])
        score = qa.train_and_score if run.method == "qa" else classify.train_and_score
        return score(torch, starts, task, classify.target_plan(run.rows, run.seed), self.device)

    def train(self, source: Source) -> dict[str, object]:
        """Train a source that the zoo does not have and save it: what it reached on its own task."""
        import torch

        folder = self._folder(source)
        if source.shape.method == "lora":
            return sources.train_lora(source, self._base, self._texts, folder)
        if source.shape.method == "bottleneck":
            splits = [tuple(read_rows(self._texts, source.task, split)) for split in ("train", "test")]
            draw = Draw(splits[0], splits[1], {})
            task = classify.prepare(torch, self._tokenizer, source.task, draw, hidden=self._bert.hidden, device=self.device)
            return sources.train_bottleneck(source, self._bottleneck, task, folder, self.device)
        rows = [tuple(self._qa_rows[source.task][1]), tuple(qa.read_qa(self._questions, source.task, "dev"))[: qa.TEST_ROWS]]
        spans = [qa.encode_spans(torch, self._tokenizer, part, self.device) for part in rows]
        return sources.train_qa(
            source, (self._fresh, self._bert), qa.Task(source.task, self._bert.hidden, spans[0], spans[1]), folder, self.device
        )

    def _tensors(self, source: Source) -> dict[str, Any]:
        if source not in self._sources:
            folder = self._folder(source)
            if source.shape.method == "bottleneck":
                self._sources[source] = bottleneck.read(folder, source.task)
            else:
                self._sources[source] = classify.read_source(folder, source.shape)
        return self._sources[source]

    def _folder(self, source: Source) -> Path:
        if source.zoo:
            return self._zoo / source.zoo
        trained = Path("sources", source.shape.method, source.name)
        committed = Path(__file__).parent / trained
        return committed if committed.is_dir() else self._work / trained

    @cached_property
    def _bert(self) -> StackedBert:
        return StackedBert(self._base, self.device)

    @cached_property
    def _seen(self) -> dict[str, frozenset[str]]:
        return {task: seen_by(read_rows(self._texts, task, "train"), task) for task in SOURCE_TASKS}

    @cached_property
    def _qa_rows(self) -> dict[str, tuple[list[Any], list[Any]]]:
        return {task: qa.reserve(task, qa.read_qa(self._questions, task, "train")) for task in QA_TASKS}

    @cached_property
    def _tokenizer(self) -> Any:
        return load_base(self._base)[1]

    def _text_target(self, name: str, rows: int) -> Target:
        import torch

        pool = read_rows(self._texts, name, "dev" if name in SOURCE_TASKS else "train")
        drawn = draw(name, pool, read_rows(self._texts, name, "test"), self._seen, wanted=rows)
        task = classify.prepare(torch, self._tokenizer, name, drawn, hidden=self._bert.hidden, device=self.device)
        return Target(task, "spearman" if task.regression else "accuracy", len(drawn.test), drawn.left_out)

    def _qa_target(self, name: str, rows: int) -> Target:
        import torch

        drawn = qa.drawn(self._questions, self._qa_rows, name, rows)
        parts = [qa.encode_spans(torch, self._tokenizer, part, self.device) for part in (drawn.rows, drawn.test)]
        return Target(qa.Task(name, self._bert.hidden, parts[0], parts[1]), "f1", len(drawn.test), drawn.left_out)
