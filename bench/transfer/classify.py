"""Text tasks: one model per adapter shape stays loaded; a run resets its adapter, tunes it and scores it.

The recipe is recipe.py's; the model is not rebuilt between runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from overlap import Draw
from plan import SITES, Shape, steps_for
from recipe import Plan, batches, encode, mean_pool
from train_zoo import as_target, mean_ranks

from hubrank.target.base import BaseModel, load_base
from hubrank.target.rows import Target

HEAD_SEED = 7_000  # apart from the adapter's seed, so that sources of all shapes meet the same head in the same seed
RATE, WARMUP_STEPS, BATCH = 5e-4, 20, 16


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokenised rows: ids and kinds [n, width], lengths [n], labels [n] (classes: -1 for one the target's rows lack)."""

    ids: Any
    kinds: Any
    lengths: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Task:
    """A target that is ready to run; ``outputs`` is 1 for regression."""

    name: str
    outputs: int
    regression: bool
    train: Encoded
    test: Encoded


def encode_rows(torch: Any, tokenizer: Any, target: Target, device: str, labels: np.ndarray) -> Encoded:
    (ids, kinds), lengths = encode(tokenizer, target, 128)
    types = None if kinds is None else torch.as_tensor(kinds, device=device)
    return Encoded(torch.as_tensor(ids, device=device), types, lengths, labels)


def prepare(torch: Any, tokenizer: Any, name: str, draw: Draw, device: str) -> Task:
    """Tokenise a target's rows once for all its runs."""
    train = as_target(name, [dict(row) for row in draw.rows])
    regression = train.task == "regression"
    classes = {label: i for i, label in enumerate(train.classes)}
    # A test row of a class that the target's rows lack counts as wrong, for every source alike.
    test_labels = np.array([row["label"] if regression else classes.get(str(row["label"]), -1) for row in draw.test])
    test = as_target(name, [dict(row) for row in draw.test], tuple(sorted({str(row["label"]) for row in draw.test})))
    train_labels = np.asarray(train.labels)
    if regression:
        train_labels = ((train_labels - train_labels.mean()) / train_labels.std()).astype(np.float32)
    return Task(
        name,
        1 if regression else len(train.classes),
        regression,
        encode_rows(torch, tokenizer, train, device, train_labels),
        encode_rows(torch, tokenizer, test, device, test_labels),
    )


def fit(torch: Any, parameters: list[Any], loss_of: Any, order: Any, plan: Plan) -> None:
    """AdamW with a linear rise over the warm-up and a linear fall to zero after it; ``loss_of(rows)`` is the loss."""
    rise = round(plan.warmup * plan.steps)
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.0, fused=True)
    for step, rows in enumerate(order):
        part = (step + 1) / rise if step < rise else (plan.steps - step) / (plan.steps - rise)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * part
        loss_of(rows).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def target_plan(rows: int, seed: int) -> Plan:
    """The recipe of DESIGN.md; modules and rank are the shape's."""
    steps = steps_for(rows)
    return Plan(steps=steps, batch_size=BATCH, learning_rate=RATE, warmup=WARMUP_STEPS / steps, seed=seed)


def train_and_score(torch: Any, model: Any, task: Task, plan: Plan, device: str) -> float:
    """Tune the adapter that is in ``model`` under a fresh head and score it: accuracy, or Spearman's coefficient."""
    torch.manual_seed(HEAD_SEED + plan.seed)
    head = torch.nn.Linear(model.config.hidden_size, task.outputs).to(device)
    parameters = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
    labels = torch.as_tensor(task.train.labels, device=device)
    objective = torch.nn.functional.mse_loss if task.regression else torch.nn.functional.cross_entropy

    def loss_of(rows: np.ndarray) -> Any:
        pooled = pooled_rows(torch, model, task.train, rows, device)
        return objective(head(pooled.float()).squeeze(-1) if task.regression else head(pooled.float()), labels[rows])

    model.train()
    fit(torch, parameters, loss_of, batches(task.train.lengths, plan), plan)
    model.eval()
    with torch.inference_mode():
        order = np.argsort(task.test.lengths, kind="stable")
        parts = [
            head(pooled_rows(torch, model, task.test, order[i : i + 64], device).float()) for i in range(0, len(order), 64)
        ]
        values = torch.cat(parts).cpu().numpy()
    truth = task.test.labels[order]
    if task.regression:
        return float(np.corrcoef(mean_ranks(values[:, 0]), mean_ranks(truth))[0, 1])
    return float(np.mean(values.argmax(1) == truth))


def pooled_rows(torch: Any, model: Any, rows: Encoded, index: np.ndarray, device: str) -> Any:
    """Mean-pooled tokens [len(index), hidden] in bfloat16 arithmetic."""
    width = int(rows.lengths[index].max())
    kinds = None if rows.kinds is None else rows.kinds[index, :width]
    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
        return mean_pool(torch, model, rows.ids[index, :width], torch.as_tensor(rows.lengths[index], device=device), kinds)


def frozen_in_bfloat16(model: Any) -> Any:
    """Cast the frozen linear layers once: autocast would cast them to the same numbers in every step."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not any(p.requires_grad for p in module.parameters()):
            module.to(torch.bfloat16)
    return model


class LoraModels:
    """The base model with a LoRA of each shape, built once."""

    def __init__(self, base: BaseModel, device: str) -> None:
        self._base, self._device = base, device
        self._models: dict[Shape, Any] = {}

    def start(self, shape: Shape, tensors: dict[str, Any] | None, seed: int) -> Any:
        """The model with a fresh LoRA drawn from ``seed``, or with a source's."""
        import peft
        import torch

        if shape not in self._models:
            model, _ = load_base(self._base)
            config = peft.LoraConfig(
                task_type="FEATURE_EXTRACTION", r=shape.rank, lora_alpha=shape.alpha, target_modules=list(SITES[shape.sites])
            )
            self._models[shape] = frozen_in_bfloat16(peft.get_peft_model(model, config)).to(self._device)
        model = self._models[shape]
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.reset_lora_parameters("default", init_lora_weights=True)
        if tensors is not None:
            found = peft.set_peft_model_state_dict(model, tensors)
            lost = [name for name in found.missing_keys if "lora_" in name]
            if lost or found.unexpected_keys:
                raise ValueError(f"the source does not fit {shape}: {(lost or found.unexpected_keys)[0]}")
        return model


def read_source(folder: Path, shape: Shape) -> dict[str, Any]:
    """A LoRA's tensors in float32; ValueError if its config is not the plan's shape."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    if (config["r"], config["lora_alpha"]) != (shape.rank, shape.alpha) or not matches(config["target_modules"], shape):
        raise ValueError(f"{folder}: its config is not {shape}")
    return {name: tensor.float() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}


def matches(modules: list[str], shape: Shape) -> bool:
    return set(modules) == set(SITES[shape.sites])
