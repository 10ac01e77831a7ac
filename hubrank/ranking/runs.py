"""Runs of tuning: one for each method and seed, from a fresh copy of the base, watched and cut short, or had before."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubrank.errors import AdapterError, BaseModelError
from hubrank.ranking.evidence_files import evidence_key, packed_facts, read_evidence, write_evidence
from hubrank.ranking.first_order import HALF_TRUSTED, Evidence, first_order_evidence
from hubrank.ranking.placement import usual_placement
from hubrank.ranking.rank import Yardstick, compare
from hubrank.ranking.stability import Settling
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.architecture import architecture_of, head_kind
from hubrank.target.base import BaseModel, load_base
from hubrank.target.features import WITH_LABELS
from hubrank.target.frameworks import import_peft, import_transformers
from hubrank.target.kept_files import key_of
from hubrank.target.methods import Placement
from hubrank.target.placed_files import placed_key, read_placed, write_placed
from hubrank.target.site_inputs import site_inputs, space_of
from hubrank.target.tuned_files import TunedRecord, base_identity, read_tuned, run_key, write_tuned
from hubrank.target.tuning import TuningPlan, tune
from hubrank.types import MethodRun, Signature, Source

if TYPE_CHECKING:
    from hubrank.ranking.search import Listener, SearchSettings
    from hubrank.target.methods import Attached
    from hubrank.target.task import Target
    from hubrank.zoo.packed import Packed

__all__ = ["EVERY", "SHOWN", "Runs", "Snapshot"]

EVERY = 5
"""Steps from snapshot to snapshot; ranking a very large zoo takes longer than a step, so there they are further apart."""

SHOWN = 5
_LARGE = 10_000
_READING = 0.2  # of the time that there is, for the rows' pass and for what they say of the sources, each


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ranking after some of a run's steps: the first sources, and how much it agrees with the one before."""

    method: str
    step: int
    total: int
    first: tuple[Source, ...]
    overlap: float | None


class Runs:
    """Tunes one target on one base.

    ``done`` lists the runs, ``signatures`` what moved in each, ``notes`` what the user should know of them.
    """

    def __init__(
        self,
        target: Target,
        base: BaseModel,
        cache: Path,
        settings: SearchSettings,
        *,
        device: str,
        dtype: str,
        listener: Listener,
    ) -> None:
        self._target, self._base, self._cache, self._settings = target, base, cache, settings
        self._device, self._dtype, self._listener = device, dtype, listener
        self._identity: str | None = None
        self._loaded: tuple[Any, Any] | None = None
        self.done: list[MethodRun] = []
        self.signatures: list[Signature] = []
        self.notes: list[str] = []

    def informed(self, yardstick: Yardstick, until: float | None = None) -> Yardstick:
        """The yardstick with what the target's rows say of its sources, if its estimator asks; to be had before tuning.

        Rows without a label each say nothing. Nor do those that the base cannot be run on: tuning, which comes next, tells why.

        Args:
            until: when the time for everything is up; a part of it is spent here, at most.

        Raises:
            BaseModelError: the base cannot be loaded.
        """
        if not yardstick.asks_rows or self._target.task not in WITH_LABELS:
            return yardstick
        evidence, why = self._evidence(yardstick.packed, until)
        if evidence is None:
            self.notes.append(f"{yardstick.packed.method}: ranked without what the rows say of the sources ({why})")
        return replace(yardstick, evidence=evidence)

    def _evidence(self, packed: Packed, until: float | None) -> tuple[Evidence | None, str]:
        key = evidence_key(self._target, f"{self._base_identity()} {self._dtype}", packed, device=self._device)
        known = read_evidence(self._cache, key, len(packed.sources)) if self._settings.reuse else None
        if known is not None:
            return known, ""
        self._listener.stage(f"reading {self._target.name} with {self._base.name}")
        bottleneck = packed.method == "bottleneck"  # whose library changes the model for good
        model, tokenizer = self._fresh(keep=True) if bottleneck else self._base_model()
        spaces = {space_of(site) for site in packed.sites}
        started, spent = time.perf_counter(), time.process_time()
        by = None if until is None else started + _READING * (until - started)
        try:
            placement = usual_placement(packed, model) if bottleneck else None
            inputs = site_inputs(model, tokenizer, self._target, spaces, device=self._device, placement=placement, until=by)
        except BaseModelError as error:
            return None, str(error)
        finally:
            model.to("cpu")  # where it waits for its copies to be tuned: on a GPU there may be no room for both
        if not inputs.spaces:
            return None, f"none of the modules that they change reads them in {self._base.name}"
        # Of what the pass left, as much again: large zoos are asked long.
        by = None if until is None else time.perf_counter() + _READING * (until - started)
        evidence = first_order_evidence(packed, inputs, until=by)
        if evidence is None:
            late = by is not None and time.perf_counter() >= by
            return None, "the time was too short" if late else "their labels do not differ"
        evidence = replace(evidence, seconds=time.process_time() - spent)
        if inputs.whole:
            write_evidence(self._cache, key, evidence)
        else:
            self.notes.append(f"{packed.method}: the time was up after {evidence.rows} rows had been asked about the sources")
        return evidence, ""

    def run(self, yardstick: Yardstick, seed: int, until: float | None, runs_left: int, last: bool) -> Signature:
        """The target's signature under one method and seed.

        Args:
            until: when the time for all runs is up, of which ``runs_left`` are still to share it.
            last: no other method follows, so that the base need not be kept.

        Raises:
            BaseModelError: the base cannot be loaded, cannot do the task, or cannot be tuned by the method.
            TargetError: nothing is left of the target once it is cut to what the base reads.
        """
        settings, method = self._settings, yardstick.packed.method
        place, overlap, cached = self._place(yardstick.packed), None, True
        known = read_placed(self._cache, *place)
        record = None if known is None else self._tuned_before(self._run_key(yardstick, self._plan(yardstick, known, seed)))
        if record is None:
            model, tokenizer = self._fresh(keep=not last or settings.repeats > 1)
            plan = self._plan(yardstick, usual_placement(yardstick.packed, model), seed)
            key = self._run_key(yardstick, plan)
            record = self._tuned_before(key)  # the zoo may be another, and the place the same
            if record is None:
                cached = False
                record, overlap = self._tune(yardstick, plan, model, tokenizer, _share(until, runs_left))
                # A run that only the clock stopped is no answer to a search with more time.
                if record.stopped != "budget":
                    record = write_tuned(self._cache, key, record)
            if record.stopped != "budget":
                write_placed(self._cache, *place, plan.placement, generation=yardstick.packed.generation)
        if cached:
            self._listener.stage(f"{method}: tuned before, {record.steps} steps")
        run = MethodRun(
            method=method,
            seed=seed,
            sources=len(yardstick.packed.sources),
            steps=record.steps,
            planned=settings.steps,
            stopped=record.stopped,
            cached=cached,
            seconds=record.seconds,
            overlap=overlap,
            energy=float("nan"),
        )
        self.done.append(run)
        self.signatures.append(record.signature)
        return record.signature

    def _tuned_before(self, key: str) -> TunedRecord | None:
        """A run that an earlier search did, if it may be used."""
        return read_tuned(self._cache, key) if self._settings.reuse else None

    def _place(self, packed: Packed) -> tuple[str, str]:
        """The file that says where this target was tuned, and what that follows from."""
        return (
            placed_key(self._target.digest(), self._base.name, packed.method),
            key_of({"base": self._base_identity(), "packed": packed_facts(packed)}),
        )

    def _plan(self, yardstick: Yardstick, placement: Placement, seed: int) -> TuningPlan:
        every = EVERY if len(yardstick.packed.sources) <= _LARGE else 2 * EVERY
        return TuningPlan(placement, steps=self._settings.steps, seed=seed, every=every, aligned=True)

    def _run_key(self, yardstick: Yardstick, plan: TuningPlan) -> str:
        identity = f"{self._base_identity()} {self._dtype}"
        order = yardstick.name + (f" with rows, half of {HALF_TRUSTED}" if yardstick.evidence is not None else "")
        return run_key(self._target, identity, plan, device=self._device, early=self._settings.early, order=order)

    def _tune(
        self, yardstick: Yardstick, plan: TuningPlan, model: Any, tokenizer: Any, until: float | None
    ) -> tuple[TunedRecord, float | None]:
        settled = Settling()
        method = plan.placement.method
        stopped = "steps"
        self._listener.stage(f"tuning {method} on {len(self._target)} rows of {self._target.name}")

        def look(step: int, attached: Attached) -> bool:
            nonlocal stopped
            order = compare(yardstick, self._signed(attached)).order()
            stands = settled.add(step, order.tolist())
            first = tuple(yardstick.packed.sources[row] for row in order[:SHOWN])
            self._listener.ranking(Snapshot(method, step, plan.steps, first, settled.overlap))
            if stands and self._settings.early and step < plan.steps:
                stopped = "stable"
                return True
            return False

        tuned = tune(
            model,
            tokenizer,
            self._target,
            plan,
            device=self._device,
            on_step=self._listener.step,
            on_snapshot=look,
            until=until,
        )
        for note in tuned.notes:
            sentence = f"{method}: {note}" if note not in self.notes else note
            if sentence not in self.notes:
                self.notes.append(sentence)
        if stopped == "steps" and tuned.steps < plan.steps:
            stopped = "budget"
            self.notes.append(f"{method}: the time was up after {tuned.steps} of {plan.steps} steps")
        return TunedRecord(self._signed(tuned.attached), tuned.steps, stopped, tuned.seconds), settled.overlap

    def _signed(self, attached: Attached) -> Signature:
        try:
            return sign_adapter(attached.adapter(self._base.name))
        except AdapterError as error:
            raise BaseModelError(f"tuning moved nothing that could be compared ({error}); try more --steps") from error

    def _base_identity(self) -> str:
        self._identity = self._identity or base_identity(self._base)
        return self._identity

    def _fresh(self, *, keep: bool) -> tuple[Any, Any]:
        """The base as it was loaded, to be changed: the libraries change a model's modules and classes for good."""
        model, tokenizer = self._base_model()
        if keep:
            return copy.deepcopy(model), tokenizer
        self._loaded = None
        return model, tokenizer

    def _base_model(self) -> tuple[Any, Any]:
        """The base as it was loaded, not to be changed."""
        import_peft()
        if self._loaded is None:
            config = import_transformers().AutoConfig.from_pretrained(
                self._base.folder, local_files_only=True, trust_remote_code=False
            )
            head = head_kind(self._target.task, architecture_of(config), self._base.name)
            self._loaded = load_base(self._base, head=head, dtype=self._dtype)
        return self._loaded


def _share(until: float | None, runs_left: int) -> float | None:
    """The end of one run of those that are left, if they share the time alike."""
    if until is None:
        return None
    now = time.perf_counter()
    return now + max(0.0, until - now) / runs_left
