"""What the rivals of bench/rivals.py look at, computed once and kept: features, gradients, activations, each with its CPU seconds.

In the work folder, one file a task (base features of its rows), a source and a target; whatever is there is not done again.
Everything runs on one thread, and seconds are CPU seconds, so that a busy machine does not show in them.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from classify import Task, encode_rows, read_source, train_and_score
from overlap import draw, seen_by
from plan import SOURCE_TASKS, Source
from recipe import Plan
from stacked import StackedBert
from train_zoo import BASE, as_target, read_rows

from hubrank.benchmark.source_model import PROBES, SourceModel, fit_head
from hubrank.checkpoints.adapters_families import read_adapters
from hubrank.checkpoints.peft_lora import read_lora
from hubrank.ranking.first_order import Evidence, first_order_evidence
from hubrank.ranking.placement import usual_placement
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import find_base, load_base
from hubrank.target.rows import Target
from hubrank.target.site_inputs import SiteInputs, site_inputs, space_of
from hubrank.types import Adapter, Signature
from hubrank.types import Source as ZooSource
from hubrank.zoo.packed import Packed, pack

SOURCE_ROWS = 1000
"""Rows of a source's own task that the rivals which need them get, at most: of fewer than the base has dimensions (384) an
embedding space map is underdetermined."""

FISHER_ROWS = 100

FEW_STEPS, FEW_SEED = 10, 91

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A target's own adapter: its tensors as its library names them, what they do, and the seconds that tuning took."""

    tensors: Mapping[str, np.ndarray]
    signature: Signature
    seconds: float
    name: str = ""
    """What the adapters library calls it, in the keys of its tensors."""


class Workshop:
    """Computes and keeps the arrays.

    Args:
        data: folder with datasets/TASK/{train,dev,test}.jsonl.gz.
        work: where arrays are kept.
        zoo: the example zoo; ``trained``: folder of the sources that the transfer runner trained.
        targets: folder of TARGET-STEPS-SEED.safetensors, as transfer/targets.py writes them.
        compute: whether what is not there is computed; else it is missing.
        rows: of a target.
        source_rows: of each source's own task, at most.
    """

    def __init__(
        self,
        data: Path,
        work: Path,
        *,
        zoo: Path,
        trained: Path,
        targets: Path,
        compute: bool = True,
        rows: int = 200,
        source_rows: int = SOURCE_ROWS,
    ) -> None:
        self._data, self._work, self._zoo, self._trained, self._targets = data / "datasets", work, zoo, trained, targets
        self._compute, self._rows_wanted, self._source_rows = compute, rows, source_rows
        self._signatures: dict[Source, Signature] = {}
        self._rows: dict[str, Target] = {}
        work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def model(self) -> SourceModel:
        return SourceModel(*load_base(find_base(BASE)))

    @cached_property
    def _seen(self) -> dict[str, frozenset[str]]:
        return {task: seen_by(read_rows(self._data, task, "train"), task) for task in SOURCE_TASKS}

    def folder(self, source: Source) -> Path:
        """Where a source's files lie."""
        return self._zoo / source.zoo if source.zoo else self._trained / source.name

    def weights(self, source: Source) -> Path:
        """Its file of tensors."""
        name = "adapter.safetensors" if source.shape.method == "bottleneck" else "adapter_model.safetensors"
        return self.folder(source) / name

    def source_files(self, source: Source) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(config, tensors) of a source as it was published."""
        from safetensors.numpy import load_file

        tensors = {name: value.astype(np.float32) for name, value in load_file(self.weights(source)).items()}
        return json.loads((self.folder(source) / "adapter_config.json").read_text("utf-8")), tensors

    def signature(self, source: Source) -> Signature:
        if source not in self._signatures:
            self._signatures[source] = sign_adapter(read_published(*self.source_files(source)))
        return self._signatures[source]

    def packed(self, sources: Sequence[Source]) -> Packed:
        """A zoo of just these sources, all of one method, as a search reads it."""
        method, pairs = "lora" if sources[0].shape.method == "qa" else sources[0].shape.method, []
        for source in sources:
            signature = self.signature(source)
            # A bottleneck's shape has its reduction, not its units.
            rank = max(len(factors.spectrum) for factors in signature.factors)
            pairs.append((ZooSource("bench", source.name, "0" * 40, None, BASE, method, rank), signature))
        return pack(BASE, method, 0, pairs)

    def target_rows(self, name: str) -> Target:
        """The rows that transfer to the target is measured with."""
        if name in self._rows:
            return self._rows[name]
        file = self._work / "rows" / f"{name}.jsonl"
        if not file.exists():
            pool = read_rows(self._data, name, "dev" if name in SOURCE_TASKS else "train")
            drawn = draw(name, pool, read_rows(self._data, name, "test"), self._seen, wanted=self._rows_wanted)
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(json.dumps(dict(row)) + "\n" for row in drawn.rows), encoding="utf-8")
        self._rows[name] = as_target(name, [json.loads(line) for line in file.read_text("utf-8").splitlines()])
        return self._rows[name]

    def source_rows(self, task: str) -> Target:
        """Rows of a source's own task, drawn from those that it was trained on."""
        rows = read_rows(self._data, task, "train")
        order = np.random.default_rng(zlib.crc32(task.encode())).permutation(len(rows))[: self._source_rows]
        return as_target(task, [rows[i] for i in order], tuple(sorted({str(row["label"]) for row in rows})))

    def rows_trained_on(self, source: Source) -> int:
        return len(read_rows(self._data, source.task, "train"))

    def tuned(self, target: str, steps: int, seed: int) -> Tuned | None:
        """The target's own adapter; None where it has not been tuned yet."""
        from safetensors import safe_open

        file = self._targets / f"{target}-{steps}-{seed}.safetensors"
        if not file.exists():
            return None
        with safe_open(file, "np") as opened:
            tensors = {name: opened.get_tensor(name).astype(np.float32) for name in opened.keys()}  # noqa: SIM118
            stated = json.loads((opened.metadata() or {}).get("config", "{}"))
        config = stated.get("adapter_config")
        if config is None:
            rank = min(min(value.shape) for value in tensors.values())
            config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2.0 * rank, "base_model_name_or_path": BASE}
        signature, seconds = sign_adapter(read_published(config, tensors)), float(stated.get("seconds", "nan"))
        return Tuned(tensors, signature, seconds, str(config.get("name", "")))

    def of_task(self, task: str) -> Arrays | None:
        """``states`` [n, d] of the base for a source task's rows."""
        return self._kept(f"task-{task}-{self._source_rows}", lambda: {"states": self._states(self.source_rows(task))})

    def of_source(self, source: Source) -> Arrays | None:
        """``states`` [n, d] of the source for its own rows, ``delta`` [d] of its activations, ``fisher`` [k]."""

        def compute() -> dict[str, np.ndarray]:
            rows, probes = self.source_rows(source.task), self.probes
            with self.model.wearing(self.signature(source)):
                states, seconds = timed(lambda: self._states(rows))
                delta, delta_seconds = timed(lambda: self._activation() - probes)
                fisher, fisher_seconds = timed(lambda: self._fisher(rows, states))
            return {
                "states": states,
                "delta": delta,
                "fisher": fisher,
                "states_seconds": np.array(seconds),
                "delta_seconds": np.array(delta_seconds),
                "fisher_seconds": np.array(fisher_seconds),
            }

        return self._kept(f"source-{source.name}-{self._source_rows}-{FISHER_ROWS}", compute)

    def features(self, source: Source, target: str) -> Arrays | None:
        """``states`` [200, d] of the source for the target's rows."""

        def compute() -> dict[str, np.ndarray]:
            with self.model.wearing(self.signature(source)):
                states, seconds = timed(lambda: self._states(self.target_rows(target)))
            return {"states": states.astype(np.float16), "states_seconds": np.array(seconds)}

        return self._kept(f"features/{source.name}/{target}", compute)

    def of_target(self, target: str) -> Arrays | None:
        """``states`` [200, d] of the base for the target's rows."""
        return self._kept(f"target-{target}", lambda: {"states": self._states(self.target_rows(target))})

    def evidence(self, packed: Packed, target: str) -> tuple[Evidence, float] | None:
        """(what the target's rows say of a zoo's sources, as a search asks them; CPU seconds, the pass included); None
        where it is not kept and not to be computed."""
        spaces = sorted({space_of(site) for site in packed.sites})

        def compute() -> dict[str, np.ndarray]:
            model, tokenizer = load_base(find_base(BASE))
            placement = usual_placement(packed, model) if packed.method == "bottleneck" else None
            found = site_inputs(model, tokenizer, self.target_rows(target), spaces, device="cpu", placement=placement)
            return {"labels": found.labels, **{json.dumps(space): x for space, x in found.spaces.items()}}

        names = zlib.crc32(json.dumps(spaces).encode())
        arrays = self._kept(f"inputs-{target}-{names:08x}", compute)
        if arrays is None:
            return None
        known = {space: arrays[json.dumps(space)] for space in spaces if json.dumps(space) in arrays}
        value, seconds = timed(lambda: first_order_evidence(packed, SiteInputs(known, arrays["labels"])))
        if value is None:
            raise SystemExit(f"{target}: its rows say nothing of these sources")
        return value, seconds + float(arrays["seconds"])

    def of_tuned(self, target: str, steps: int, seed: int) -> Arrays | None:
        """``delta`` [d] and ``fisher`` [k] of the target's own tuned model."""
        tuned = self.tuned(target, steps, seed)
        if tuned is None:
            return None

        def compute() -> dict[str, np.ndarray]:
            rows, probes = self.target_rows(target), self.probes
            with self.model.wearing(tuned.signature):
                delta, delta_seconds = timed(lambda: self._activation() - probes)
                fisher, seconds = timed(lambda: self._fisher(rows, self._states(rows)))
            return {
                "delta": delta,
                "fisher": fisher,
                "delta_seconds": np.array(delta_seconds),
                "fisher_seconds": np.array(seconds),
            }

        return self._kept(f"tuned-{target}-{steps}-{seed}", compute)

    @cached_property
    def probes(self) -> np.ndarray:
        """[d] mean activation of the base on the probes."""
        return self._activation()

    def _activation(self) -> np.ndarray:
        return self.model.states(PROBES, precise=True).mean(axis=0)

    def _states(self, rows: Target) -> np.ndarray:
        return self.model.states(rows.texts, rows.pairs)

    def _fisher(self, rows: Target, states: np.ndarray) -> np.ndarray:
        labels = labels_of(rows)
        head = fit_head(states, labels)
        few = slice(0, FISHER_ROWS)
        pairs = None if rows.pairs is None else rows.pairs[few]
        return self.model.fisher(rows.texts[few], pairs, labels[few], head)

    def few_shot(self, source: Source, target: str) -> Arrays | None:
        """``value`` on one half of the target's rows after a few steps from the source on the other half.

        In the manner of few-shot fine-tuning in Poth et al. (EMNLP 2021): of FEW_STEPS steps instead of the 36 that transfer
        is measured with, and with a head that no measured run has.
        """

        def compute() -> dict[str, np.ndarray]:
            import torch

            rows = self.target_rows(target)
            parts = [
                encode_rows(torch, self._tokenizer, part, "cpu", labels_of(rows)[where])
                for part, where in ((subset(rows, where), where) for where in (slice(0, 100), slice(100, 200)))
            ]
            regression = rows.task == "regression"
            task = Task(target, self._bert.hidden, 1 if regression else len(rows.classes), regression, *parts)
            plan = Plan(steps=FEW_STEPS, batch_size=16, learning_rate=5e-4, warmup=0.2, seed=FEW_SEED)
            shape = source.shape
            start = self._bert.start([read_source(self.folder(source), shape)], [shape.alpha / shape.rank])
            (value,) = train_and_score(torch, start, task, plan, "cpu")
            return {"value": np.array(value)}

        return self._kept(f"few-shot/{source.name}/{target}", compute)

    @cached_property
    def _bert(self) -> StackedBert:
        return StackedBert(find_base(BASE), "cpu")

    @cached_property
    def _tokenizer(self) -> Any:
        return load_base(find_base(BASE))[1]

    def _kept(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> Arrays | None:
        file = self._work / f"{name}.npz"
        if not file.exists() and not self._compute:
            return None
        if not file.exists():
            arrays, seconds = timed(compute)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, seconds=np.array(seconds), **arrays)
            partial.rename(file)
        with np.load(file) as stored:
            return dict(stored)


def read_published(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Adapter:
    """What peft or the adapters library publishes, by hubrank's own readers."""
    if "peft_type" in config:
        return read_lora(config, tensors, BASE)
    (adapter,) = read_adapters(config, tensors, BASE)
    return adapter


def subset(rows: Target, where: slice) -> Target:
    """Some of a target's rows, with all its classes."""
    pairs = None if rows.pairs is None else rows.pairs[where]
    return replace(rows, texts=rows.texts[where], pairs=pairs, labels=rows.labels[where])


def labels_of(rows: Target) -> np.ndarray:
    """Classes as integers, or numbers standardised."""
    if rows.task != "regression":
        return np.asarray(rows.labels, dtype=np.int64)
    values = np.asarray(rows.labels, dtype=np.float32)
    return (values - values.mean()) / values.std()


def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """(what it gives, the CPU seconds it took)."""
    started = time.process_time()
    value = compute()
    return value, time.process_time() - started
