"""Tune a base model on the target task for a few steps: the signature of the task is in what moves.

Follows Zhou, Xu and McAuley, "Efficiently Tuned Parameters are Task Embeddings" (EMNLP 2022), which reads the task from
an early checkpoint. The rate follows the full plan whatever stops the run before its end, so that a run stopped early is
the beginning of the whole one, number for number. ``torch.compile`` is left out: on a run of a hundred steps it takes longer
than it saves.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import BaseModelError
from hubrank.target.aligning import align
from hubrank.target.architecture import architecture_of, head_kind, longest_input
from hubrank.target.batching import batch_order, in_parts, loaded, sent
from hubrank.target.frameworks import import_torch, in_bfloat16
from hubrank.target.memory import is_out_of_memory, release
from hubrank.target.methods import LEARNING_RATES, Attached, Placement, attach
from hubrank.target.objectives import SIZES, Objective, Reader, objective_for
from hubrank.target.sampling import chosen_rows, subset

if TYPE_CHECKING:
    from hubrank.target.batching import Batch
    from hubrank.target.task import Target

__all__ = ["STEPS", "Tuned", "TuningPlan", "predict", "reader_of", "tune"]

STEPS = 75
_ALIGNING = 0.25  # of the time that a run has, at most


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """How the target is tuned. The defaults are the recipe that docs/method.md was measured with.

    Attributes:
        placement: by which method, where, and how large.
        steps, batch_size, learning_rate, warmup: AdamW without weight decay; ``warmup`` is the part of the steps over
            which the rate rises, after which it falls linearly to zero. Size and rate are the task's and the method's own
            where they are None.
        max_length: longer rows are cut to this many tokens; None for the task's own.
        seed: of initialisation, dropout and the order of the rows.
        every: steps from snapshot to snapshot; 0 for none.
        aligned: a LoRA starts along the first gradient (:mod:`hubrank.target.aligning`), not at random.
    """

    placement: Placement
    steps: int = STEPS
    batch_size: int | None = None
    learning_rate: float | None = None
    warmup: float = 0.1
    max_length: int | None = None
    seed: int = 0
    every: int = 0
    aligned: bool = False

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.learning_rate if self.learning_rate is not None else LEARNING_RATES[self.placement.method]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model.

    Attributes:
        attached: the model with what was tuned on it; ``head`` on top, None where the model has its own.
        tokenizer, reader: what it reads by.
        losses: mean of each tenth of the run.
        steps, seconds, device: what was done, how long it took, and where.
        notes: what the user should know, one sentence each.
    """

    attached: Attached
    head: Any
    reader: Reader
    losses: tuple[float, ...]
    steps: int
    seconds: float
    device: str
    notes: tuple[str, ...] = ()

    def tensors(self) -> dict[str, np.ndarray]:
        """What the method's library would publish, float32, by key; the head is not among it."""
        return self.attached.tensors()

    def config(self) -> dict[str, object]:
        """The adapter_config.json that it would publish beside it."""
        return self.attached.config()


def tune(
    model: Any,
    tokenizer: Any,
    target: Target,
    plan: TuningPlan,
    *,
    device: str = "cpu",
    on_step: Callable[[int, int], None] | None = None,
    on_snapshot: Callable[[int, Attached], bool] | None = None,
    until: float | None = None,
    start: Callable[[Attached], None] | None = None,
) -> Tuned:
    """Put a method on ``model`` (in place) and tune it and a fresh head on the target.

    Args:
        model, tokenizer: from :func:`hubrank.target.base.load_base`, with the head that the task needs.
        start: puts other numbers where the method's fresh ones are; head, dropout and order of rows stay those of the seed. Not
            for a plan that is ``aligned``.
        on_step: called after each step with (steps done, steps in all).
        on_snapshot: called every ``plan.every`` steps with the steps done and what has been tuned so far; True ends the run.
        until: on the clock of ``time.perf_counter``, when to end the run after the step at hand.

    Raises:
        BaseModelError: the model has nothing to tune, cannot do the task, does not fit the device, or its loss stops being
            finite.
        TargetError: nothing is left of the target once it is cut to what the model reads.
    """
    torch = import_torch()
    started = time.perf_counter()
    generators = torch.random.fork_rng(devices=[device] if device.startswith("cuda") else [])
    with generators, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what the libraries say to each other
        torch.manual_seed(plan.seed)
        architecture = architecture_of(model.config)
        attached = attach(model, plan.placement, head=head_kind(target.task, architecture, type(model).__name__))
        if start is not None:
            start(attached)
        reader = reader_of(model, tokenizer, target, plan)
        size = plan.batch_size or SIZES[target.task].batch
        rows = chosen_rows(len(target), plan.steps * size, plan.seed)
        objective = objective_for(subset(target, rows) if len(rows) < len(target) else target, reader)
        head = torch.nn.Linear(_width(model.config), objective.outputs).to(device) if objective.outputs else None
        loop = _Loop(torch, attached, head, objective, plan, device=device)
        if plan.aligned:
            now, width = time.perf_counter(), _width(model.config)
            by = None if until is None else now + _ALIGNING * (until - now)
            loop.notes += align(attached, objective, width=width, device=device, batch_size=size, seed=plan.seed, until=by)
        order = batch_order(objective.lengths, steps=plan.steps, batch_size=size, seed=plan.seed)
        for step, (chosen, batch) in enumerate(loaded(torch, order, objective.collate, device), 1):
            loop.step(chosen, batch)
            if on_step is not None:
                on_step(step, plan.steps)
            if plan.every and on_snapshot is not None and (step % plan.every == 0 or step == plan.steps):
                loop.check()
                if on_snapshot(step, attached):
                    break
            if until is not None and time.perf_counter() >= until:
                break
        curve = loop.check()
        attached.model.eval()
    means = tuple(float(part.mean()) for part in np.array_split(curve, min(10, len(curve))))
    seconds = time.perf_counter() - started
    return Tuned(attached, head, reader, means, len(curve), seconds, device, (*objective.notes, *loop.notes))


class _Loop:
    """The optimiser and its state; one step at a time, in as many parts as memory asks for."""

    def __init__(
        self, torch: Any, attached: Attached, head: Any, objective: Objective, plan: TuningPlan, *, device: str
    ) -> None:
        self._torch = torch
        self._model = attached.model.to(device)
        kind = device.partition(":")[0]
        self._half = in_bfloat16(self._model, device)
        self._chances: Any = nullcontext()
        if self._half or kind == "cpu":
            from hubrank.target.step_costs import CheapChances, cast_frozen

            if self._half:
                cast_frozen(self._model)
            if kind == "cpu":
                self._chances = CheapChances(plan.seed)
        self._head = head
        self._objective = objective
        self._plan = plan
        self._device = device
        self._trained = [*attached.trained, *(head.parameters() if head is not None else ())]
        self._optimizer = torch.optim.AdamW(self._trained, lr=plan.rate, weight_decay=0.0, fused=kind in ("cuda", "cpu"))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: _rate(step, plan))
        self._losses: list[Any] = []
        self._part: int | None = None
        self._checkpointing = False
        self.notes: list[str] = []
        self._model.train()

    def step(self, rows: np.ndarray, batch: Batch) -> None:
        """One update; where memory runs short the batch is halved, its gradients summed, and nothing else changes."""
        torch = self._torch
        while True:
            try:
                loss = self._gradients(rows, batch)
                break
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(torch, error):
                    raise
            self._optimizer.zero_grad(set_to_none=True)
            release(torch, self._device)
            self._make_room(len(rows))
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._losses.append(loss)

    def check(self) -> np.ndarray:
        """The losses so far, brought to the host, which waits for the device here and nowhere else.

        Raises:
            BaseModelError: one is not finite.
        """
        curve: np.ndarray = self._torch.stack(self._losses).float().cpu().numpy()
        if not np.isfinite(curve).all():
            first = int(np.argmin(np.isfinite(curve))) + 1
            raise BaseModelError(f"the loss stopped being finite at step {first} of {self._plan.steps}; try another --seed")
        return curve

    def _gradients(self, rows: np.ndarray, batch: Batch) -> Any:
        """Mean loss of a batch, its gradients summed up."""
        if self._part is None or self._part >= len(rows):
            parts: Sequence[Batch] = [batch]
        else:
            cut = in_parts(rows, self._part)
            parts = [sent(self._torch, self._objective.collate(part), self._device) for part in cut]
        total = None
        for part in parts:
            loss = self._forward(part) / batch.weight
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        return total

    def _forward(self, batch: Batch) -> Any:
        kind = self._device.partition(":")[0]
        # Activations that are computed twice must meet the same chances, and only torch's own are kept for the second time.
        chances = nullcontext() if self._checkpointing else self._chances
        with chances, self._torch.autocast(kind, dtype=self._torch.bfloat16, enabled=self._half):
            out = self._model(**batch.model_inputs())
        # The head in full precision: its gradient drives everything else, and it costs nothing.
        return self._objective.loss(self._torch, out, self._head, batch)

    def _make_room(self, rows: int) -> None:
        part = min(self._part or rows, rows)
        if part > 1:
            self._part = part // 2
            self.notes.append(f"memory ran short: batches are worked off {self._part} rows at a time")
        elif not self._checkpointing and hasattr(self._model, "gradient_checkpointing_enable"):
            self._checkpointing = True
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self.notes.append("memory ran short: activations are computed twice instead of kept")
        else:
            raise BaseModelError(
                f"one row at a time does not fit the memory of {self._device}; choose a smaller --base, or --device cpu"
            )


def predict(tuned: Tuned, target: Target, *, batch_size: int = 64) -> np.ndarray:
    """Outputs of the head for every row of a target whose answers are one a text, float32 [rows, outputs].

    In the order of the rows; the labels of the target are not looked at.
    """
    torch = import_torch()
    objective, half = objective_for(target, tuned.reader), in_bfloat16(tuned.attached.model, tuned.device)
    outputs: list[np.ndarray] = [np.empty(0)] * len(target)
    catch = _Catch(tuned.head)
    with torch.inference_mode():
        for rows in in_parts(np.argsort(objective.lengths, kind="stable"), batch_size):
            batch = sent(torch, objective.collate(rows), tuned.device)
            with torch.autocast(tuned.device.partition(":")[0], dtype=torch.bfloat16, enabled=half):
                out = tuned.attached.model(**batch.model_inputs())
            objective.loss(torch, out, catch, batch)
            for row, value in zip(rows, catch.values.cpu().numpy(), strict=True):
                outputs[row] = value
    return np.stack(outputs)


class _Catch:
    """A head that keeps what it gave."""

    def __init__(self, head: Any) -> None:
        self._head = head
        self.values: Any = None

    def __call__(self, states: Any) -> Any:
        self.values = self._head(states)
        return self.values


def _rate(step: int, plan: TuningPlan) -> float:
    rise = max(1, math.ceil(plan.warmup * plan.steps))
    return (step + 1) / rise if step < rise else max(0.0, (plan.steps - step) / max(1, plan.steps - rise))


def reader_of(model: Any, tokenizer: Any, target: Target, plan: TuningPlan) -> Reader:
    """How a base model reads a target under a plan."""
    config = model.config
    virtual = plan.placement.size if plan.placement.method == "prompt" else 0
    room = min(plan.max_length or SIZES[target.task].tokens, longest_input(config, tokenizer) - virtual)
    starts = (getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"))
    start = next((token for token in starts if token is not None), 0)
    architecture = architecture_of(config)
    # peft reads a prompt's texts as embeddings and drops their token types.
    kinds = not virtual and architecture == "encoder" and getattr(config, "type_vocab_size", 0) > 1
    return Reader(tokenizer, architecture, max(8, room), int(start), kinds)


def _width(config: Any) -> int:
    """Of the last hidden states."""
    return int(config.hidden_size)
