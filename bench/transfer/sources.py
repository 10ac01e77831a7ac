"""Train the sources that the example zoo does not have; each folder appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bottleneck
import qa
from classify import FreshLoras, OneModel, Task, train_and_score
from plan import SITES, Source
from recipe import Plan
from stacked import StackedBert
from train_zoo import BASE, Recipe, as_target, card, measure, read_rows, write

from hubrank.target.base import BaseModel, load_base
from hubrank.target.methods import Placement
from hubrank.target.tuning import TuningPlan, tune


def source_plan(source: Source) -> Plan:
    """How a source is tuned: batches of 32 (qa: 16), the rate's rise over a tenth of the steps."""
    batch = 16 if source.shape.method == "qa" else 32
    return Plan(steps=source.steps, batch_size=batch, learning_rate=source.rate, seed=source.seed)


def train_lora(source: Source, base: BaseModel, data: Path, folder: Path) -> dict[str, object]:
    """As train_zoo.py does it, card included; a source that beats no baseline is kept, for zoos hold such too."""
    rows = [read_rows(data, source.task, split) for split in ("train", "test")]
    train = as_target(source.task, rows[0])
    test = as_target(source.task, rows[1], train.classes or None)
    shape = source.shape
    model, tokenizer = load_base(base)
    modules = tuple(name for name, _ in model.named_modules() if name.endswith(SITES[shape.sites]))
    plan = TuningPlan(
        Placement("lora", modules, shape.rank, shape.alpha),
        steps=source.steps,
        batch_size=32,
        learning_rate=source.rate,
        seed=source.seed,
    )
    tuned = tune(model, tokenizer, train, plan)
    metric, baseline, value = measure(tuned, train, test)
    recipe = Recipe(source.task, shape.rank, SITES[shape.sites], source.seed, source.steps, source.rate, shape.alpha)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write(tuned, folder, card(recipe, metric, baseline, value, (len(train), len(test))))
    return {"metric": metric, "baseline": round(baseline, 4), "value": round(value, 4)}


def train_bottleneck(source: Source, model: Any, task: Task, folder: Path, device: str) -> dict[str, object]:
    """``model`` is a BottleneckModel, ``task`` all training and test rows."""
    import torch

    started = model.start(source.shape, None, source.seed)
    (value,) = train_and_score(torch, OneModel(torch, started, device), task, source_plan(source), device)
    report = {"metric": "spearman" if task.regression else "accuracy", "value": round(value, 4)}

    def fill(partial: Path) -> None:
        bottleneck.save(started, partial, source.task)
        config = json.loads((partial / "adapter_config.json").read_text())
        (partial / "adapter_config.json").write_text(json.dumps({**config, "model_name": BASE}, indent=2))

    save_whole(folder, report, fill)
    return report


def train_qa(
    source: Source, models: tuple[FreshLoras, StackedBert], task: qa.Task, folder: Path, device: str
) -> dict[str, object]:
    """Train a LoRA under a span head and save it as peft does."""
    import torch
    from safetensors.torch import save_file

    fresh, bert = models
    started = bert.start([fresh.draw(source.shape, source.seed)], [source.shape.alpha / source.shape.rank])
    (value,) = qa.train_and_score(torch, started, task, source_plan(source), device)
    report = {"metric": "f1", "value": round(value, 4), "rows": len(task.train.rows)}

    def fill(partial: Path) -> None:
        (tensors,) = started.tensors()
        save_file(
            {name: tensor.half() for name, tensor in tensors.items()}, partial / "adapter_model.safetensors", {"format": "pt"}
        )
        config = fresh.config(source.shape).to_dict()
        config.update(base_model_name_or_path=BASE, inference_mode=True, target_modules=sorted(config["target_modules"]))
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2, default=str))

    save_whole(folder, report, fill)
    return report


def save_whole(folder: Path, report: dict[str, object], fill: Any) -> None:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    fill(partial)
    (partial / "measured.json").write_text(json.dumps(report) + "\n")
    partial.rename(folder)
