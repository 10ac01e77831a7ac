"""Where the target's LoRA starts: its A along what the first gradient reads, instead of at random.

A fresh LoRA has ``B = 0`` and a random A, and a short run hardly turns A: most of where a signature seems to read is then the
draw, and two seeds of one target tell different rankings. The directions that the first gradient of the whole module reads are
the target's own. LoRA-GA (Wang, Yu and Li, NeurIPS 2024) starts B by the gradient, too, and takes the start off the base's
weights; here B stays zero, so that nothing changes before the first step, and all of the update is learnt.

The gradient needs a head that says something: one is fitted to the frozen base's states, and thrown away again.

bench/rivals.py, 16 targets of 200 rows and two seeds, says what it is worth.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.target.batching import in_parts, sent
from hubrank.target.frameworks import import_torch, in_bfloat16
from hubrank.target.memory import is_out_of_memory, release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.batching import Batch
    from hubrank.target.methods import Attached
    from hubrank.target.objectives import Objective

__all__ = ["BATCHES", "align"]

BATCHES = 16
"""Batches of the task's own size that the gradient is of, at most: it costs about a step and a half a batch."""

_HEAD_STEPS, _HEAD_RATE = 60, 0.02
_MOST_NUMBERS = 1 << 27
"""Of all gradients together in full, or of the states that a head is fitted to; beyond, gradients are sketched and the head is
fitted to fewer rows."""
_SKETCH = 4
"""Rows of a sketch for every direction that is wanted of it."""
_ITERATIONS = 4
_NOTHING = 1e-6
"""Singular values below this part of the largest are rounding."""


def align(
    attached: Attached,
    objective: Objective,
    *,
    width: int,
    device: str,
    batch_size: int,
    seed: int = 0,
    until: float | None = None,
) -> tuple[str, ...]:
    """Turn the A of every LoRA, in place, to the leading right singular vectors of the first gradient; B is left as it is.

    Each new row of an A has the root mean square of its rows' lengths. An A that no gradient reaches stays as it was drawn.
    Does nothing to other methods. torch's random state is neither read nor changed.

    Args:
        width: of the last hidden states.
        seed: of the choice of rows, where there are more than ``BATCHES`` batches of them.
        until: on the clock of ``time.perf_counter``, when to make do with the batches done, of which there is at least one.

    Returns:
        What the user should know: that it was not done, where the gradient needs more memory than there is.
    """
    torch = import_torch()
    sites = _sites(torch, attached.model)
    if not sites:
        return ()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(objective.lengths))[: BATCHES * batch_size])
    chosen = chosen[np.argsort(objective.lengths[chosen], kind="stable")]
    training, size, run = attached.model.training, batch_size, _Run(torch, attached.model, objective, device, until)
    attached.model.eval()
    try:
        while True:
            try:
                gradients = run.gradients(in_parts(chosen, size), sites, width)
                break
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(torch, error):
                    raise
            release(torch, device)
            if size == 1:
                return ("memory ran short: the LoRA starts at random instead of along the first gradient",)
            size //= 2
    finally:
        attached.model.train(training)
        for parameter in attached.trained:
            parameter.grad = None
    with torch.no_grad():
        for site in sites:
            if site.name in gradients:  # a pooler's, say, whose output no loss looks at, has none
                site.turn(torch, gradients[site.name])
    return ()


@dataclass(frozen=True, slots=True, eq=False)
class _Site:
    """A module of peft's with a LoRA: its A is [rank, d_in]."""

    name: str
    module: Any
    down: Any
    outputs: int

    def turn(self, torch: Any, gradient: Any) -> None:
        if not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
            return
        rank = self.down.shape[0]
        # MPS leaves most of linear algebra to the CPU, or does not have it.
        sizes, directions = _leading(torch, gradient.cpu() if gradient.device.type == "mps" else gradient, rank)
        found = int((sizes > _NOTHING * sizes[0]).sum())
        # Rows beyond the gradient's own rank stay as they were drawn.
        each = self.down.norm() / rank**0.5
        self.down[:found] = directions[:found].to(self.down) * each


def _leading(torch: Any, gradient: Any, count: int) -> tuple[Any, Any]:
    """Singular values [k] and right singular vectors [k, d_in], at most ``count`` of them."""
    wanted = 2 * count + 8
    if min(gradient.shape) <= 2 * wanted:
        _, sizes, directions = torch.linalg.svd(gradient, full_matrices=False)
    else:
        # Halko, Martinsson and Tropp (SIAM Review 53(2), 2011), algorithm 4.4. torch's own draws from its random state.
        drawn = torch.randn(gradient.shape[1], wanted, generator=torch.Generator().manual_seed(0)).to(gradient.device)
        rows = torch.linalg.qr(gradient @ drawn).Q
        for _ in range(_ITERATIONS):
            rows = torch.linalg.qr(gradient @ torch.linalg.qr(gradient.T @ rows).Q).Q
        _, sizes, directions = torch.linalg.svd(rows.T @ gradient, full_matrices=False)
    return sizes[:count], directions[:count]


def _sites(torch: Any, model: Any) -> list[_Site]:
    found = []
    for name, module in model.named_modules():
        downs = getattr(module, "lora_A", None)
        if isinstance(downs, torch.nn.ModuleDict) and len(downs) == 1:
            (key, down), ups = next(iter(downs.items())), module.lora_B
            found.append(_Site(name, module, down.weight, int(ups[key].weight.shape[0])))
    return found


@dataclass(frozen=True, slots=True)
class _States:
    """Of what a model gives, all that a head is put on."""

    last_hidden_state: Any


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A model that reads a target."""

    torch: Any
    model: Any
    objective: Objective
    device: str
    until: float | None
    started: float = field(default_factory=time.perf_counter)

    def gradients(self, parts: Sequence[NDArray[np.intp]], sites: Sequence[_Site], width: int) -> dict[str, Any]:
        """By site the gradient of the module's whole weight, [d_out, d_in], or a sketch of it with fewer rows; float32."""
        torch = self.torch
        batches = [sent(torch, self.objective.collate(rows), self.device) for rows in parts]
        head = self._fitted(batches, width) if self.objective.outputs else None
        weight = sum(batch.weight for batch in batches)
        sums: dict[str, Any] = {}
        with _caught(sites, self._sketches(sites), sums):
            for batch in batches:
                (self.objective.loss(torch, self.forward(batch), head, batch) / weight).backward()
                if self._late(1.0):
                    break
        return sums

    def forward(self, batch: Batch) -> Any:
        """What the model gives for a batch."""
        torch, kind = self.torch, self.device.partition(":")[0]
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=in_bfloat16(self.model, self.device)):
            return self.model(**batch.model_inputs())

    def _late(self, part: float) -> bool:
        """Whether this part of the time is over."""
        return self.until is not None and time.perf_counter() >= self.started + part * (self.until - self.started)

    def _fitted(self, batches: Sequence[Batch], width: int) -> Any:
        """A linear head fitted to the states of the base as it is, from zero."""
        torch = self.torch
        head = torch.nn.utils.skip_init(torch.nn.Linear, width, self.objective.outputs, device=self.device)
        known: list[tuple[_States, Batch]] = []
        numbers = 0
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.zero_()
            for batch in batches:
                if known and self._late(0.4):
                    break
                states = self.forward(batch).last_hidden_state
                numbers += states.numel()
                if known and numbers > _MOST_NUMBERS:
                    break
                known.append((_States(states), batch))
        weight = sum(batch.weight for _, batch in known)
        optimizer = torch.optim.AdamW(head.parameters(), lr=_HEAD_RATE, weight_decay=0.0)
        for _ in range(_HEAD_STEPS):
            optimizer.zero_grad(set_to_none=True)
            for out, batch in known:
                (self.objective.loss(torch, out, head, batch) / weight).backward()
            optimizer.step()
        return head.requires_grad_(requires_grad=False)

    def _sketches(self, sites: Sequence[_Site]) -> dict[str, Any]:
        """Where all gradients in full would be too large: [rows, d_out], which each is multiplied by as it comes."""
        torch = self.torch
        if sum(site.outputs * site.down.shape[1] for site in sites) <= _MOST_NUMBERS:
            return {}
        generator = torch.Generator().manual_seed(0)
        return {
            site.name: torch.randn(rows, site.outputs, generator=generator).to(self.device)
            for site in sites
            if (rows := _SKETCH * site.down.shape[0]) < site.outputs
        }


@contextmanager
def _caught(sites: Sequence[_Site], sketches: dict[str, Any], sums: dict[str, Any]) -> Iterator[None]:
    """While the model runs, add what goes into each module times the gradient of what comes out of it."""

    def watch(site: _Site) -> Any:
        def keep(module: Any, inputs: tuple[Any, ...], out: Any) -> None:  # noqa: ARG001 -- torch's own order
            given = inputs[0].detach()

            def add(gradient: Any) -> None:
                left = gradient.detach().reshape(-1, gradient.shape[-1]).float()
                sketch = sketches.get(site.name)
                left = left.T if sketch is None else sketch @ left.T
                found = left @ given.reshape(-1, given.shape[-1]).float()
                sums[site.name] = sums[site.name] + found if site.name in sums else found

            out.register_hook(add)

        return site.module.register_forward_hook(keep)

    handles = [watch(site) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
