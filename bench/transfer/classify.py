"""Text tasks: starts are tuned under a linear head on mean-pooled tokens and scored.

The recipe is recipe.py's. Runs that share everything but their start are tuned side by side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from overlap import Draw
from plan import SITES, Shape, steps_for
from recipe import Plan, batches, encode
from train_zoo import as_target, mean_ranks

from hubrank.target.base import BaseModel, load_base
from hubrank.target.frameworks import bfloat16_pays
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
    """A target that is ready to run; ``outputs`` is 1 for regression, ``hidden`` the base's width."""

    name: str
    hidden: int
    outputs: int
    regression: bool
    train: Encoded
    test: Encoded


def encode_rows(torch: Any, tokenizer: Any, target: Target, device: str, labels: np.ndarray) -> Encoded:
    (ids, kinds), lengths = encode(tokenizer, target, 128)
    types = None if kinds is None else torch.as_tensor(kinds, device=device)
    return Encoded(torch.as_tensor(ids, device=device), types, lengths, labels)


def prepare(torch: Any, tokenizer: Any, name: str, draw: Draw, *, hidden: int, device: str) -> Task:
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
        hidden,
        1 if regression else len(train.classes),
        regression,
        encode_rows(torch, tokenizer, train, device, train_labels),
        encode_rows(torch, tokenizer, test, device, test_labels),
    )


class Starts(Protocol):
    """One or several adapters on the frozen base, tuned at once and apart."""

    count: int

    def parameters(self) -> list[Any]:
        """What is tuned; with more than one start, of shape [count, ...] each."""

    def hidden(self, ids: Any, sizes: Any, kinds: Any, *, training: bool) -> Any:
        """Last hidden states [count, rows, width, hidden] of ids [rows, width], in float32."""


class Head:
    """The same fresh linear layer for every start: weight [count, outputs, hidden], bias [count, outputs]."""

    def __init__(self, torch: Any, count: int, shape: tuple[int, int], seed: int, device: str) -> None:
        torch.manual_seed(HEAD_SEED + seed)
        outputs, hidden = shape
        layer = torch.nn.Linear(hidden, outputs)
        self._torch = torch
        self.weight = layer.weight.detach().repeat(count, 1, 1).to(device).requires_grad_()
        self.bias = layer.bias.detach().repeat(count, 1).to(device).requires_grad_()

    def __call__(self, features: Any) -> Any:
        """[count, ..., outputs] of features [count, ..., hidden]."""
        shape = (len(self.bias), *(1 for _ in features.shape[1:-1]), -1)
        flat = self._torch.bmm(features.flatten(1, -2), self.weight.transpose(1, 2))
        return flat.view(*features.shape[:-1], -1) + self.bias.view(shape)


def fit(torch: Any, starts: Starts, head: Head, loss_of: Any, lengths: np.ndarray, *, plan: Plan) -> None:
    """AdamW with a linear rise over the warm-up and a linear fall to zero after it; ``loss_of(rows)`` is [count] losses.

    The starts share a batch and nothing else: each has its own loss, and its gradient is clipped by its own norm.
    """
    parameters = [*starts.parameters(), head.weight, head.bias]
    rise = round(plan.warmup * plan.steps)
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.0, fused=True)
    for step, rows in enumerate(batches(lengths, plan)):
        part = (step + 1) / rise if step < rise else (plan.steps - step) / (plan.steps - rise)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * part
        loss_of(rows).sum().backward()
        clip(torch, [parameter.grad for parameter in parameters], starts.count)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def clip(torch: Any, gradients: list[Any], count: int) -> None:
    """Scale each start's gradient to a norm of at most 1, as torch.nn.utils.clip_grad_norm_ does for one."""
    if count == 1:
        squares = [gradient.square().sum()[None] for gradient in gradients]
    else:
        squares = [gradient.flatten(1).square().sum(1) for gradient in gradients]
    factors = (1 / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factors if count == 1 else factors.view(-1, *(1 for _ in gradient.shape[1:])))


def target_plan(rows: int, seed: int) -> Plan:
    """The recipe of DESIGN.md; modules and rank are the shape's."""
    steps = steps_for(rows)
    return Plan(steps=steps, batch_size=BATCH, learning_rate=RATE, warmup=WARMUP_STEPS / steps, seed=seed)


def train_and_score(torch: Any, starts: Starts, task: Task, plan: Plan, device: str) -> list[float]:
    """Tune every start under a fresh head of its own and score it: accuracies, or Spearman's coefficients, [count]."""
    head = Head(torch, starts.count, (task.outputs, task.hidden), plan.seed, device)
    labels = torch.as_tensor(task.train.labels, device=device)

    def loss_of(rows: np.ndarray) -> Any:
        found, wanted = head(pooled_rows(torch, starts, task.train, rows, training=True)), labels[rows]
        if task.regression:
            return (found[..., 0] - wanted).square().mean(1)
        apart = torch.nn.functional.cross_entropy(found.flatten(0, 1), wanted.repeat(starts.count), reduction="none")
        return apart.view(starts.count, -1).mean(1)

    fit(torch, starts, head, loss_of, task.train.lengths, plan=plan)
    with torch.inference_mode():
        order = np.argsort(task.test.lengths, kind="stable")
        parts = [
            head(pooled_rows(torch, starts, task.test, order[i : i + 64], training=False)) for i in range(0, len(order), 64)
        ]
        values = torch.cat(parts, dim=1).cpu().numpy()
    truth = task.test.labels[order]
    if task.regression:
        return [float(np.corrcoef(mean_ranks(found[:, 0]), mean_ranks(truth))[0, 1]) for found in values]
    return [float(np.mean(found.argmax(1) == truth)) for found in values]


def pooled_rows(torch: Any, starts: Starts, rows: Encoded, index: np.ndarray, *, training: bool) -> Any:
    """Mean-pooled tokens [count, len(index), hidden] in float32."""
    width = int(rows.lengths[index].max())
    kinds = None if rows.kinds is None else rows.kinds[index, :width]
    sizes = torch.as_tensor(rows.lengths[index], device=rows.ids.device)
    hidden = starts.hidden(rows.ids[index, :width], sizes, kinds, training=training)
    mask = (torch.arange(width, device=sizes.device)[None, :] < sizes[:, None])[..., None].to(hidden.dtype)
    return (hidden * mask).sum(2) / mask.sum(1)


class OneModel:
    """A model of its own as the only start, in bfloat16 arithmetic where the device has it."""

    count = 1

    def __init__(self, torch: Any, model: Any, device: str) -> None:
        self._torch, self._kind, self.model = torch, device.partition(":")[0], model
        self._half = bfloat16_pays(device)

    def parameters(self) -> list[Any]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def hidden(self, ids: Any, sizes: Any, kinds: Any, *, training: bool) -> Any:
        self.model.train(training)
        mask = self._torch.arange(ids.shape[1], device=ids.device)[None, :] < sizes[:, None]
        extra = {} if kinds is None else {"token_type_ids": kinds}
        with self._torch.autocast(self._kind, dtype=self._torch.bfloat16, enabled=self._half):
            found = self.model(input_ids=ids, attention_mask=mask.long(), **extra).last_hidden_state
        return found.float()[None]


def cast_once(model: Any, device: str) -> Any:
    """Cast the frozen linear layers as autocast would, to the same numbers in every step."""
    import torch

    if not bfloat16_pays(device):
        return model
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not any(p.requires_grad for p in module.parameters()):
            module.to(torch.bfloat16)
    return model


class FreshLoras:
    """LoRAs as peft draws them, one model a shape."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._models: dict[Shape, Any] = {}

    def draw(self, shape: Shape, seed: int) -> dict[str, Any]:
        """A fresh LoRA's tensors by peft's names."""
        import peft
        import torch

        if shape not in self._models:
            model, _ = load_base(self._base)
            self._models[shape] = peft.get_peft_model(model, self.config(shape))
        model = self._models[shape]
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.reset_lora_parameters("default", init_lora_weights=True)
        return {name: tensor.clone() for name, tensor in peft.get_peft_model_state_dict(model).items()}

    def config(self, shape: Shape) -> Any:
        """What peft writes beside a LoRA of that shape."""
        import peft

        return peft.LoraConfig(
            task_type="FEATURE_EXTRACTION", r=shape.rank, lora_alpha=shape.alpha, target_modules=list(SITES[shape.sites])
        )


def read_source(folder: Path, shape: Shape) -> dict[str, Any]:
    """A LoRA's tensors in float32; ValueError if its config is not the plan's shape."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    if (config["r"], config["lora_alpha"]) != (shape.rank, shape.alpha) or not matches(config["target_modules"], shape):
        raise ValueError(f"{folder}: its config is not {shape}")
    return {name: tensor.float() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}


def matches(modules: list[str], shape: Shape) -> bool:
    """Whether a config's modules, by their whole names or by their endings, are those of the shape's sites."""
    endings = SITES[shape.sites]
    met = {next((end for end in endings if f".{name}".endswith(f".{end}")), None) for name in modules}
    return met == set(endings)
