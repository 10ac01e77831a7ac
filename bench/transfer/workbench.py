"""Everything a worker keeps loaded: the base model per adapter shape, the targets' tokens, the sources' tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from classify import LoraModels, prepare, read_source, run_lora
from overlap import Draw, draw, seen_by
from plan import SOURCE_TASKS, Run, Source
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
        self._data, self._zoo, self._work = data, zoo, work
        self._base = find_base(BASE)
        self._targets: dict[tuple[str, str, int], Target] = {}
        self._sources: dict[Source, dict[str, Any]] = {}
        self._lora = LoraModels(self._base, device)

    def target(self, method: str, name: str, rows: int) -> Target:
        """The target's rows, drawn and tokenised once."""
        kind = "qa" if method == "qa" else "text"
        if (kind, name, rows) not in self._targets:
            self._targets[kind, name, rows] = self._text_target(name, rows)
        return self._targets[kind, name, rows]

    def allowed(self, run: Run) -> bool:
        """Whether the run's source did not see the target's rows."""
        return run.source is None or run.source.task not in self.target(run.method, run.target, run.rows).left_out

    def has(self, source: Source) -> bool:
        return self._folder(source).is_dir()

    def measure(self, run: Run) -> float:
        """Do a run: its score on the target's test rows."""
        task = self.target(run.method, run.target, run.rows).task
        tensors = None
        if run.source is not None:
            if run.source not in self._sources:
                self._sources[run.source] = read_source(self._folder(run.source), run.shape)
            tensors = self._sources[run.source]
        return run_lora(self._lora, task, run, tensors, self.device)

    def train(self, source: Source) -> dict[str, object]:
        """Train a source that the zoo does not have and save it."""
        raise NotImplementedError

    def _folder(self, source: Source) -> Path:
        return self._zoo / source.zoo if source.zoo else self._work / "sources" / source.name

    @cached_property
    def _seen(self) -> dict[str, frozenset[str]]:
        folder = self._data / "datasets"
        return {task: seen_by(read_rows(folder, task, "train"), task) for task in SOURCE_TASKS}

    @cached_property
    def _tokenizer(self) -> Any:
        return load_base(self._base)[1]

    def _text_target(self, name: str, rows: int) -> Target:
        import torch

        folder = self._data / "datasets"
        pool = read_rows(folder, name, "dev" if name in SOURCE_TASKS else "train")
        drawn: Draw = draw(name, pool, read_rows(folder, name, "test"), self._seen, rows)
        task = prepare(torch, self._tokenizer, name, drawn, self.device)
        return Target(task, "spearman" if task.regression else "accuracy", len(drawn.test), drawn.left_out)
