"""Tune a base model on the target task for a few steps, LoRA only: the signature of the task is in what moves.

Follows Zhou, Xu and McAuley, "Efficiently Tuned Parameters are Task Embeddings" (EMNLP 2022), which reads the task from
an early checkpoint. The head is a fresh linear layer on mean-pooled tokens and is thrown away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import BaseModelError
from hubrank.target.frameworks import import_peft, import_torch

if TYPE_CHECKING:
    from hubrank.target.task import Target

__all__ = ["Tuned", "TuningPlan", "batches", "encode", "mean_pool", "tune"]


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """How the target is tuned. The defaults are the recipe that DESIGN.md's tables were measured with.

    Attributes:
        modules: module names that get a LoRA, matched at the end of the module path as peft does.
        rank, alpha: of every LoRA; the update is scaled by alpha / rank.
        steps, batch_size, learning_rate, warmup: AdamW without weight decay; ``warmup`` is the part of the steps over
            which the rate rises, after which it falls linearly to zero.
        max_length: longer rows are cut to this many tokens.
        seed: of initialisation, dropout and the order of the rows.
    """

    modules: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    steps: int = 75
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.1
    max_length: int = 128
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model: the peft model, its head, the tokenizer, the mean loss of each tenth of the run, and the seconds."""

    model: Any
    head: Any
    tokenizer: Any
    losses: tuple[float, ...]
    seconds: float
    device: str

    def tensors(self) -> dict[str, np.ndarray]:
        """What peft would publish, float32, by key; the head is not among it."""
        state = import_peft().get_peft_model_state_dict(self.model)
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}

    def config(self) -> dict[str, object]:
        """The adapter_config.json that peft would publish beside it."""
        config: dict[str, object] = self.model.peft_config["default"].to_dict()
        return config


def tune(
    model: Any,
    tokenizer: Any,
    target: Target,
    plan: TuningPlan,
    *,
    device: str = "cpu",
    on_step: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Add LoRA layers to ``model`` (in place) and tune them and a fresh head on the target.

    Args:
        model, tokenizer: from :func:`hubrank.target.base.load_base`.
        on_step: called after each step with (steps done, steps in all).

    Raises:
        BaseModelError: the model has none of the modules to tune, or its loss stops being finite.
    """
    torch = import_torch()
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(plan.seed)
        model, head = _with_lora_and_head(model, target, plan, device)
        tokens, lengths = encode(tokenizer, target, plan.max_length)
        ids = torch.as_tensor(tokens[0], device=device)
        kinds = torch.as_tensor(tokens[1], device=device) if tokens[1] is not None else None
        labels = _labels(torch, target, device)
        sizes = torch.as_tensor(lengths, device=device)
        trained = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, weight_decay=0.0, fused=device != "mps")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, plan))
        objective = torch.nn.functional.mse_loss if target.task == "regression" else torch.nn.functional.cross_entropy
        losses = []
        model.train()
        for step, rows in enumerate(batches(lengths, plan), 1):
            width = int(lengths[rows].max())
            index = torch.as_tensor(rows, device=device)
            with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=device != "mps"):
                types = None if kinds is None else kinds[index, :width]
                pooled = mean_pool(torch, model, ids[index, :width], sizes[index], types)
            # The head in full precision: its gradient drives everything else, and it costs nothing.
            loss = objective(head(pooled.float()).squeeze(-1), labels[index])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            if on_step is not None:
                on_step(step, plan.steps)
        curve = torch.stack(losses).float().cpu().numpy()
        model.eval()
    if not np.isfinite(curve).all():
        first = int(np.argmin(np.isfinite(curve))) + 1
        raise BaseModelError(f"the loss stopped being finite at step {first} of {plan.steps}; try another --seed")
    means = tuple(float(part.mean()) for part in np.array_split(curve, min(10, len(curve))))
    return Tuned(model, head, tokenizer, means, time.perf_counter() - started, device)


def mean_pool(torch: Any, model: Any, ids: Any, sizes: Any, kinds: Any = None) -> Any:
    """Mean of the last hidden states over the real tokens: [rows, hidden] from ids [rows, width] and sizes [rows]."""
    mask = torch.arange(ids.shape[1], device=ids.device)[None, :] < sizes[:, None]
    extra = {} if kinds is None else {"token_type_ids": kinds}
    hidden = model(input_ids=ids, attention_mask=mask.long(), **extra).last_hidden_state
    weight = mask[:, :, None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def encode(tokenizer: Any, target: Target, max_length: int) -> tuple[tuple[np.ndarray, np.ndarray | None], np.ndarray]:
    """Tokenise all rows at once: ((ids [n, width], token types [n, width] or None), lengths [n])."""
    room = max(8, min(max_length, tokenizer.model_max_length))
    pairs = list(target.pairs) if target.pairs is not None else None
    encoded = tokenizer(
        list(target.texts), pairs, truncation=True, max_length=room, padding=True, padding_side="right", return_tensors="np"
    )
    kinds = encoded.get("token_type_ids") if pairs is not None else None
    return (encoded["input_ids"], kinds), encoded["attention_mask"].sum(1)


def batches(lengths: np.ndarray, plan: TuningPlan) -> Iterator[np.ndarray]:
    """``plan.steps`` arrays of row numbers, rows of like length together.

    Each pass shuffles the rows, sorts within pools of eight batches by length, and shuffles the batches: padding falls to
    a few per cent while the order stays random. The last batch of a pass may be short; a single row left over joins the
    batch before it, or the longest row of a small file would never be used.
    """
    random = np.random.default_rng(plan.seed)
    pool, done = 8 * plan.batch_size, 0
    while True:
        order = random.permutation(len(lengths))
        cut = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            cut += [rows[i : i + plan.batch_size] for i in range(0, len(rows), plan.batch_size)]
        if len(cut) > 1 and len(cut[-1]) == 1:
            cut[-2:] = [np.concatenate(cut[-2:])]
        for i in random.permutation(len(cut)):
            if done == plan.steps:
                return
            done += 1
            yield cut[i]


def _rate(step: int, plan: TuningPlan) -> float:
    rise = max(1, math.ceil(plan.warmup * plan.steps))
    return (step + 1) / rise if step < rise else max(0.0, (plan.steps - step) / max(1, plan.steps - rise))


def _labels(torch: Any, target: Target, device: str) -> Any:
    if target.task == "regression":
        values = np.asarray(target.labels, dtype=np.float64)
        # To [0, 1] first: values that differ by little or are tiny have no deviation that floats could hold.
        values = (values - values.min()) / (values.max() - values.min())
        return torch.as_tensor(((values - values.mean()) / values.std()).astype(np.float32), device=device)
    return torch.as_tensor(np.asarray(target.labels, dtype=np.int64), device=device)


def _with_lora_and_head(model: Any, target: Target, plan: TuningPlan, device: str) -> tuple[Any, Any]:
    torch, peft = import_torch(), import_peft()
    config = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION", r=plan.rank, lora_alpha=plan.alpha, lora_dropout=0.0, target_modules=list(plan.modules)
    )
    try:
        model = peft.get_peft_model(model, config)
    except ValueError as error:
        raise BaseModelError(f"the base model has none of the modules {', '.join(plan.modules)} that the zoo tunes") from error
    outputs = 1 if target.task == "regression" else len(target.classes)
    head = torch.nn.Linear(model.config.hidden_size, outputs)
    return model.to(device), head.to(device)
