"""What the base model's modules read of a target's rows: enough to tell, to first order, what any source makes of them.

A source adds ``U diag(S) V^T x`` to what a module gives for its input x. With the inputs of the untouched base, from one pass
of the rows through it, that sum is known for every source of a zoo without running any (:mod:`hubrank.ranking.first_order`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hubrank.checkpoints.architectures import site_of
from hubrank.target.features import batches_of, labels_of
from hubrank.target.frameworks import import_torch
from hubrank.target.methods import Placement, attach
from hubrank.target.objectives import objective_for
from hubrank.target.objectives.tokens import IGNORED
from hubrank.target.sampling import chosen_rows, subset
from hubrank.target.tuning import TuningPlan, reader_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.batching import Batch
    from hubrank.target.task import Target
    from hubrank.types import FloatArray, Site

__all__ = ["MOST_ROWS", "SiteInputs", "Space", "site_inputs", "space_of"]

MOST_ROWS = 400
"""Of a target, or words of one that is to be tagged: the pass must stay cheaper than a few steps of tuning."""

Space: TypeAlias = tuple[str, int, str]
"""(stack, layer, name of the hidden space), as modules that read the same input share it: query, key and value."""

_BOTTLENECK = re.compile(r"(.+\.adapters)\.[^.]+\.adapter_down")  # its slot, by which its site is named
_SPARE = 1.5  # so many times the words that are wanted are kept of a tagging, since batches do not know of each other


@dataclass(frozen=True, slots=True, eq=False)
class SiteInputs:
    """The inputs of the base's modules, one a row of the target: the mean over the row's tokens; of tagging, a word's first.

    Attributes:
        spaces: [n, d_in] float32 by space.
        labels: [n] class numbers or values, or [n, classes] of zeros and ones.
        whole: whether all rows that were chosen are there; else the time was up.
    """

    spaces: Mapping[Space, FloatArray]
    labels: NDArray[Any]
    whole: bool = True


def space_of(site: Site) -> Space:
    """Where a site reads."""
    return site.stack, site.layer, site.reads


def site_inputs(
    model: Any,
    tokenizer: Any,
    target: Target,
    spaces: Collection[Space],
    *,
    device: str,
    placement: Placement | None = None,
    until: float | None = None,
) -> SiteInputs:
    """Run a target's rows through the base once, without learning anything, and keep what its modules read.

    For a task of :data:`hubrank.target.features.WITH_LABELS`; at most :data:`MOST_ROWS` rows are used. A space that the model
    lacks, or whose numbers are not finite, is left out.

    Args:
        model, tokenizer: from :func:`hubrank.target.base.load_base`; the model is put on ``device`` and into evaluation.
        spaces: those wanted.
        placement: of bottleneck adapters, whose library decides where they read; fresh ones that do nothing are put on the
            model, for good. None for adapters of the base's own modules.
        until: on the clock of ``time.perf_counter``, when to make do with the batches done, of which there is at least one.

    Raises:
        BaseModelError: the model cannot read the target, cannot take the placement, or does not fit the device.
    """
    torch = import_torch()
    target = subset(target, chosen_rows(len(target), MOST_ROWS, 0))
    reader = reader_of(model, tokenizer, target, TuningPlan(Placement("lora")))
    objective = objective_for(target, reader)
    if placement is not None:
        model = _with_idle(torch, model, placement)
    ready = model.to(device).eval()
    parts: dict[Space, list[FloatArray]] = {space: [] for space in spaces}
    labels: list[NDArray[Any]] = []
    done = 0
    picker = _Picker(torch, target)
    with _caught(ready, spaces, picker) as caught:
        for rows, batch, _ in batches_of(torch, ready, objective, device, before=picker.take, shuffled=True):
            for space, pooled in caught.items():
                parts[space].append(pooled.cpu().numpy())
            labels.append(labels_of(target, batch, rows)[picker.kept])
            done += len(rows)
            if until is not None and time.perf_counter() >= until and any(map(len, labels)):
                break
    count = sum(len(part) for part in labels)
    kept = chosen_rows(count, MOST_ROWS, 0)
    whole = {space: np.concatenate(found)[kept] for space, found in parts.items() if sum(map(len, found)) == count}
    return SiteInputs(
        {space: found for space, found in whole.items() if np.isfinite(found).all()},
        np.concatenate(labels)[kept],
        done == len(target),
    )


def _with_idle(torch: Any, model: Any, placement: Placement) -> Any:
    """The model with fresh bottlenecks on it that give nothing, so that all read what they would read in the base."""
    with torch.random.fork_rng(devices=[]):
        attached = attach(model, placement).model
    with torch.no_grad():
        for name, parameter in attached.named_parameters():
            if ".adapter_up." in name:
                parameter.zero_()
    return attached


class _Picker:
    """Which tokens of the batch at hand count, and for how much.

    ``kept`` numbers the labels of the batch whose inputs are kept: all rows, or some of the words.
    """

    def __init__(self, torch: Any, target: Target) -> None:
        self._torch, self._tagging = torch, target.task == "tagging"
        words = sum(len(tags) for tags in target.tags) if self._tagging else 0
        self._share = min(1.0, _SPARE * MOST_ROWS / max(1, words))
        self._random = np.random.default_rng(0)
        self._words: Any = None
        self._weights: Any = None
        self.kept: Any = slice(None)
        self.caught: dict[Space, Any] = {}

    def take(self, batch: Batch) -> None:
        """Called before the model sees a batch, or a part of one that did not fit."""
        self.caught.clear()
        mask = batch["attention_mask"]
        if self._tagging:
            places = (batch["labels"] != IGNORED).nonzero()
            self.kept = np.flatnonzero(self._random.random(len(places)) < self._share)
            self._words = places[self._torch.as_tensor(self.kept, device=places.device)]
        weights = mask.float()
        self._weights = weights / weights.sum(1, keepdim=True)

    def catch(self, space: Space, inputs: Any) -> None:
        """Pool what a module reads if it is the batch: DeBERTa's read relative positions, too, an expert only some tokens."""
        rows, width = self._weights.shape
        if inputs.ndim == 2 and inputs.shape[0] == rows * width:
            inputs = inputs.view(rows, width, -1)
        if inputs.ndim != 3 or inputs.shape[:2] != (rows, width) or not inputs.is_floating_point():
            return
        if self._tagging:
            self.caught[space] = inputs[self._words[:, 0], self._words[:, 1]].float()
        else:
            # A sum and no product of matrices: autocast would round that to bfloat16.
            self.caught[space] = (inputs.float() * self._weights[..., None]).sum(1)


@contextmanager
def _caught(model: Any, wanted: Collection[Space], picker: _Picker) -> Iterator[dict[Space, Any]]:
    """What modules read while the model runs, pooled, by space.

    Layers that share their modules (ALBERT's) read several times; the last time counts.
    """

    def keeper(space: Space) -> Any:
        def keep(_: Any, inputs: tuple[Any, ...]) -> None:
            if inputs:
                picker.catch(space, inputs[0])

        return keep

    chosen: dict[Space, Any] = {}
    for name, module in model.named_modules():
        bottleneck = _BOTTLENECK.fullmatch(name)
        if bottleneck is None and getattr(getattr(module, "weight", None), "ndim", 0) != 2:
            continue
        space = space_of(site_of(bottleneck[1] if bottleneck else name))
        if space in wanted:
            chosen.setdefault(space, module)
    handles = [module.register_forward_pre_hook(keeper(space)) for space, module in chosen.items()]
    try:
        yield picker.caught
    finally:
        for handle in handles:
            handle.remove()
