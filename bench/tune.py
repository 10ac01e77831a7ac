"""What tuning a target costs, when its ranking stands, and what stopping there loses.

    python bench/tune.py [--target FILE]... [--device cpu|cuda] [--out bench/results/tune.json]

For each target the example zoo is searched twice with one seed: to the end of the plan, and with the rule that stops a run
(:mod:`hubrank.ranking.stability`).

    rbo@5    rank-biased overlap of the first five places of both lists; the rest of them is the same by construction
    seconds  of tuning: from the loaded base to the signature, snapshots and their rankings included

The alternatives in the same run tune the same base on the same rows with the same method, size, batches, steps and rates:
``transformers.Trainer`` on a peft LoRA, and ``adapters.AdapterTrainer`` on a bottleneck against hubrank's own loop on one.
FLOPs are two for each weight of the layers and token forward, and as many backward for the activations; those of the frozen
weights' own gradients are never computed. Utilisation is against ``--peak`` (for instance 989e12 of an H100 in bfloat16).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hubrank import Zoo, sync
from hubrank.ranking.placement import usual_placement
from hubrank.ranking.rank import compare, measure
from hubrank.ranking.runs import Runs
from hubrank.ranking.search import SearchSettings
from hubrank.ranking.stability import AGREEMENT, LEAST_STEPS, PERSISTENCE, WINDOW, rbo
from hubrank.target.base import find_base, load_base
from hubrank.target.frameworks import import_adapters, import_torch, import_transformers
from hubrank.target.methods import Placement, attach
from hubrank.target.objectives import SIZES
from hubrank.target.rows import read_target
from hubrank.target.task import Target
from hubrank.target.tuning import TuningPlan, tune
from hubrank.zoo.packed_files import open_packed

BASE = "sentence-transformers/all-MiniLM-L6-v2"
TARGETS = ("banking", "contradiction", "intents", "monotonicity", "topics")


class Silent:
    """Hears nothing."""

    def stage(self, message: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def note(self, message: str) -> None: ...
    def ranking(self, snapshot: object) -> None: ...


def search_twice(target: Target, zoo: Zoo, device: str) -> dict[str, Any]:
    """With the rule and without it."""
    yardstick = measure(open_packed(zoo, BASE, "lora"))
    orders, out = [], {}
    for name, early in (("early", True), ("full", False)):
        settings = SearchSettings(early=early, reuse=False)
        runner = Runs(target, find_base(BASE), zoo.folder, settings, device=device, dtype="float32", listener=Silent())
        signature = runner.run(yardstick, 0, None, 1, True)
        orders.append(compare(yardstick, signature).order().tolist())
        (run,) = runner.done
        out[name] = {"steps": run.steps, "seconds": round(run.seconds, 2), "stopped": run.stopped}
    return {
        **out,
        "rbo@5": round(rbo(orders[0][:5], orders[1][:5]), 3),
        "same_first": orders[0][0] == orders[1][0],
    }


def own_loop(target: Target, placement: Placement, device: str) -> float:
    """Seconds of hubrank's loop alone, without snapshots."""
    model, tokenizer = load_base(find_base(BASE))
    return tune(model, tokenizer, target, TuningPlan(placement), device=device).seconds


def trainer_loop(target: Target, placement: Placement, device: str) -> float:
    """Seconds of the libraries' own trainer: same rows, method, batches, steps and rates; padding to the longest of a batch."""
    torch, transformers = import_torch(), import_transformers()
    adapters, plan, folder = import_adapters(), TuningPlan(placement), find_base(BASE).folder
    sizes, classes = SIZES[target.task], max(1, len(target.classes))
    _, tokenizer = load_base(find_base(BASE))
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if placement.method == "bottleneck":
            model = adapters.AutoAdapterModel.from_pretrained(folder)
            model.add_adapter("target", config=adapters.SeqBnConfig(reduction_factor=model.config.hidden_size / placement.size))
            model.add_classification_head("target", num_labels=classes)
            kind = adapters.AdapterTrainer
        else:
            model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)
            kind = transformers.Trainer
        torch.manual_seed(0)
        started = time.perf_counter()
        if placement.method == "bottleneck":
            model.train_adapter("target")
        else:
            model = attach(model, replace(placement, modules=tuple(f"bert.{name}" for name in placement.modules))).model
            model.base_model.model.classifier.requires_grad_(True)
        pairs = None if target.pairs is None else list(target.pairs)
        encoded = tokenizer(list(target.texts), pairs, truncation=True, max_length=sizes.tokens)
        rows = [{**{k: encoded[k][i] for k in encoded}, "labels": int(label)} for i, label in enumerate(target.labels)]
        arguments = transformers.TrainingArguments(
            output_dir=scratch, max_steps=plan.steps, per_device_train_batch_size=sizes.batch, learning_rate=plan.rate,
            warmup_ratio=plan.warmup, lr_scheduler_type="linear", weight_decay=0.0, bf16=True, use_cpu=device == "cpu",
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, seed=0,
            label_names=["labels"], remove_unused_columns=False,
        )  # fmt: skip
        collator = transformers.DataCollatorWithPadding(tokenizer)
        kind(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()
        return time.perf_counter() - started


def flops(target: Target, steps: int) -> float:
    """Of the layers' weights on real tokens, forward and backward."""
    model, tokenizer = load_base(find_base(BASE))
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in name)
    pairs = None if target.pairs is None else list(target.pairs)
    encoded = tokenizer(list(target.texts), pairs, truncation=True, max_length=SIZES[target.task].tokens)
    tokens = float(np.mean([len(row) for row in encoded["input_ids"]]))
    return 4.0 * weights * tokens * SIZES[target.task].batch * steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, action="append", default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", type=float, help="FLOP/s of the device, for the utilisation")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    targets = options.target or [Path("examples") / f"{name}.jsonl" for name in TARGETS]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        sync(["examples/zoo"], cache_dir=cache)
        with Zoo(cache) as zoo:
            lora = usual_placement(open_packed(zoo, BASE, "lora"), load_base(find_base(BASE))[0])
            bottleneck = Placement("bottleneck", size=24, variant="seq_bn")
            for path in targets:
                target = read_target(path)
                own, plain = own_loop(target, lora, options.device), trainer_loop(target, lora, options.device)
                own_bn, adapter = own_loop(target, bottleneck, options.device), trainer_loop(target, bottleneck, options.device)
                found = {
                    "rows": len(target),
                    **search_twice(target, zoo, options.device),
                    "lora_loop_s": round(own, 2),
                    "transformers_trainer_s": round(plain, 2),
                    "bottleneck_loop_s": round(own_bn, 2),
                    "adapter_trainer_s": round(adapter, 2),
                }
                if options.peak:
                    found["flop_utilisation"] = round(flops(target, TuningPlan(lora).steps) / own / options.peak, 4)
                results[path.name] = found
                print(path.name, json.dumps(found), flush=True)
    values = list(results.values())
    summary = {
        "steps_mean": round(statistics.mean(one["early"]["steps"] for one in values), 1),
        "seconds_mean": round(statistics.mean(one["early"]["seconds"] for one in values), 2),
        "seconds_full_mean": round(statistics.mean(one["full"]["seconds"] for one in values), 2),
        "rbo@5_mean": round(statistics.mean(one["rbo@5"] for one in values), 3),
        "trainer_over_loop": round(statistics.median(one["transformers_trainer_s"] / one["lora_loop_s"] for one in values), 2),
        "adapter_trainer_over_loop": round(
            statistics.median(one["adapter_trainer_s"] / one["bottleneck_loop_s"] for one in values), 2
        ),
    }
    torch = import_torch()
    result = {
        "command": "python bench/tune.py",
        "rule": {"persistence": PERSISTENCE, "agreement": AGREEMENT, "window": WINDOW, "least_steps": LEAST_STEPS},
        "summary": summary,
        "targets": results,
        "machine": {"device": options.device, "processor": platform.machine(), "threads": torch.get_num_threads()},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
