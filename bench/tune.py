"""What tuning a target costs, when its ranking stands, and what stopping there loses.

    python bench/tune.py [--target FILE]... [--data DIR --task NAME... --rows N] [--device cpu|cuda] [--steps N]
                         [--out bench/results/tune.json]

For each target the example zoo is searched twice with one seed: to the end of the plan, and with the rule that stops a run
(:mod:`hubrank.ranking.stability`). Targets are the examples, files, or rows of training files laid out as for train_zoo.py.

    rbo@5     rank-biased overlap of the first five places of both lists; the rest of them is the same by construction
    seconds   of tuning: from the loaded base to the signature, snapshots and their rankings included
    cpu       seconds that a processor worked on it, all threads together; for a search with the loading of the base. On a
              busy machine these compare, and the others do not

The alternatives in the same run tune the same base on the same rows with the same method, size, steps and rates, in batches
of the same size, for ``--steps`` steps each, tokenising included, and from random starts: ``transformers.Trainer`` on a peft
LoRA, and ``adapters.AdapterTrainer`` on a bottleneck against hubrank's own loop on one; as the trainers do if nobody asks
(float32), and in bfloat16 where the device has units for it, as hubrank's loop. Loop and trainer run for two steps before
anything is counted.

FLOPs are two for each weight of the layers and token forward, and as many backward for the activations; those of the frozen
weights' own gradients are never computed. Utilisation is of the fastest product of two square matrices in the precision of
the loop in the same run; on a CPU both in processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from train_zoo import as_target, read_rows

from hubrank import Zoo, sync
from hubrank.ranking.placement import usual_placement
from hubrank.ranking.rank import compare, measure
from hubrank.ranking.runs import Runs
from hubrank.ranking.search import SearchSettings
from hubrank.ranking.stability import AGREEMENT, LEAST_STEPS, PERSISTENCE, WINDOW, rbo
from hubrank.target.base import find_base, load_base
from hubrank.target.frameworks import bfloat16_pays, import_adapters, import_torch, import_transformers
from hubrank.target.methods import Placement, attach
from hubrank.target.objectives import SIZES
from hubrank.target.rows import read_target
from hubrank.target.task import Target
from hubrank.target.tuning import STEPS, TuningPlan, tune
from hubrank.zoo.packed_files import open_packed

BASE = "sentence-transformers/all-MiniLM-L6-v2"
EXAMPLES = ("banking", "contradiction", "intents", "monotonicity", "topics")


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
        clock = Clock(device)
        signature = runner.run(yardstick, 0, None, 1, True)
        cpu = clock.cost().cpu
        orders.append(compare(yardstick, signature).order().tolist())
        (run,) = runner.done
        out[name] = {"steps": run.steps, "seconds": round(run.seconds, 2), "cpu": round(cpu, 2), "stopped": run.stopped}
    return {
        **out,
        "rbo@5": round(rbo(orders[0][:5], orders[1][:5]), 3),
        "same_first": orders[0][0] == orders[1][0],
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a run: seconds on the clock, and seconds of processors at work."""

    seconds: float
    cpu: float

    def json(self) -> dict[str, float]:
        return {"seconds": round(self.seconds, 2), "cpu": round(self.cpu, 2)}


class Clock:
    """Measures what happens between its start and :meth:`cost`, which waits for the device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def cost(self) -> Cost:
        if self._device.startswith("cuda"):
            import_torch().cuda.synchronize()
        return Cost(time.perf_counter() - self._started, time.process_time() - self._cpu)


def own_loop(target: Target, placement: Placement, device: str, steps: int) -> Cost:
    """Hubrank's loop alone, without snapshots."""
    model, tokenizer = load_base(find_base(BASE))
    clock = Clock(device)
    tune(model, tokenizer, target, TuningPlan(placement, steps=steps), device=device)
    return clock.cost()


def trainer_loop(target: Target, placement: Placement, device: str, steps: int, *, bf16: bool) -> Cost:
    """The libraries' own trainer: same rows, method, steps and rates; padding to the longest of a batch."""
    torch, transformers = import_torch(), import_transformers()
    adapters, plan, folder = import_adapters(), TuningPlan(placement, steps=steps), find_base(BASE).folder
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
        clock = Clock(device)
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
            warmup_ratio=plan.warmup, lr_scheduler_type="linear", weight_decay=0.0, bf16=bf16, use_cpu=device == "cpu",
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, seed=0,
            label_names=["labels"], remove_unused_columns=False,
        )  # fmt: skip
        collator = transformers.DataCollatorWithPadding(tokenizer)
        kind(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()
        return clock.cost()


def compare_loops(target: Target, placement: Placement, device: str, steps: int) -> dict[str, Cost]:
    """Hubrank's loop, the trainer of the method's library in bfloat16 if that pays, and with its own defaults."""
    half = {"trainer_bf16": trainer_loop(target, placement, device, steps, bf16=True)} if bfloat16_pays(device) else {}
    return {
        "hubrank": own_loop(target, placement, device, steps),
        **half,
        "trainer_defaults": trainer_loop(target, placement, device, steps, bf16=False),
    }


def peak(device: str, size: int) -> float:
    """FLOP/s of the fastest of ten products of two square matrices, in the precision that targets are tuned in."""
    torch = import_torch()
    kind = torch.bfloat16 if bfloat16_pays(device) else torch.float32
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    costs = []
    for _ in range(10):
        clock = Clock(device)
        torch.matmul(left, right)
        cost = clock.cost()
        costs.append(cost.cpu if device == "cpu" else cost.seconds)
    return 2.0 * size**3 / min(costs)


def flops(target: Target, steps: int) -> float:
    """Of the layers' weights on real tokens, forward and backward."""
    model, tokenizer = load_base(find_base(BASE))
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in name)
    pairs = None if target.pairs is None else list(target.pairs)
    encoded = tokenizer(list(target.texts), pairs, truncation=True, max_length=SIZES[target.task].tokens)
    tokens = float(np.mean([len(row) for row in encoded["input_ids"]]))
    return 4.0 * weights * tokens * SIZES[target.task].batch * steps


def targets_of(options: argparse.Namespace) -> list[tuple[str, Target]]:
    """The files, and so many rows of each named task's training file; the examples where neither is given."""
    paths = options.target or ([] if options.task else [Path("examples") / f"{name}.jsonl" for name in EXAMPLES])
    found = [(path.name, read_target(path)) for path in paths]
    for task in options.task:
        rows = read_rows(options.data, task, "train")
        chosen = sorted(np.random.default_rng(0).permutation(len(rows))[: options.rows])
        found.append((f"{task}, {len(chosen)} rows", as_target(task, [rows[i] for i in chosen])))
    return found


def part(costs: dict[str, Cost], device: str, name: str) -> float:
    """How often as long as hubrank's loop another took."""
    both = (costs[name], costs["hubrank"])
    over, under = (cost.cpu if device == "cpu" else cost.seconds for cost in both)
    return round(over / under, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, action="append", default=[])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--task", action="append", default=[], help="of --data; needs no file")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the loops that are compared; searches have their own")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.task and options.data is None:
        parser.error("--task is of --data")
    device, steps, results = options.device, options.steps, {}
    with tempfile.TemporaryDirectory() as cache:
        sync(["examples/zoo"], cache_dir=cache)
        with Zoo(cache) as zoo:
            placements = {
                "lora": usual_placement(open_packed(zoo, BASE, "lora"), load_base(find_base(BASE))[0]),
                "bottleneck": Placement("bottleneck", size=24, variant="seq_bn"),
            }
            targets = targets_of(options)
            for placement in placements.values():  # so that nobody's first run pays for what libraries load late
                own_loop(targets[0][1], placement, device, 2)
                trainer_loop(targets[0][1], placement, device, 2, bf16=bfloat16_pays(device))
            fastest = peak(device, 2048 if device == "cpu" else 8192)
            for name, target in targets:
                loops = {method: compare_loops(target, placement, device, steps) for method, placement in placements.items()}
                print(name, json.dumps({m: {k: c.json() for k, c in costs.items()} for m, costs in loops.items()}), flush=True)
                own = loops["lora"]["hubrank"]
                rate = flops(target, steps) / (own.cpu if device == "cpu" else own.seconds)
                results[name] = {
                    "rows": len(target),
                    **search_twice(target, zoo, device),
                    "loops": {method: {which: c.json() for which, c in costs.items()} for method, costs in loops.items()},
                    **{
                        f"{what}{which}_over_hubrank": part(loops[method], device, which)
                        for what, method in (("", "lora"), ("adapter_", "bottleneck"))
                        for which in loops[method]
                        if which != "hubrank"
                    },
                    "flop_utilisation": round(rate / fastest, 3),
                }
                print(name, json.dumps(results[name]), flush=True)
    text = json.dumps(report(results, options, fastest), indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def report(results: dict[str, Any], options: argparse.Namespace, fastest: float) -> dict[str, Any]:
    """What is written."""
    values = list(results.values())
    ratios = [name for name in values[0] if name.endswith("_over_hubrank") or name == "flop_utilisation"]
    chosen = "".join(f" --task {task}" for task in options.task)
    return {
        "command": f"python bench/tune.py --steps {options.steps}{chosen and f' --data DIR{chosen} --rows {options.rows}'}",
        "rule": {"persistence": PERSISTENCE, "agreement": AGREEMENT, "window": WINDOW, "least_steps": LEAST_STEPS},
        "summary": {
            "steps_mean": round(statistics.mean(one["early"]["steps"] for one in values), 1),
            "cpu_early_mean": round(statistics.mean(one["early"]["cpu"] for one in values), 2),
            "cpu_full_mean": round(statistics.mean(one["full"]["cpu"] for one in values), 2),
            "rbo@5_mean": round(statistics.mean(one["rbo@5"] for one in values), 3),
            **{name: round(statistics.median(one[name] for one in values), 3) for name in ratios},
        },
        "targets": results,
        "machine": {
            "device": options.device,
            "processor": platform.machine(),
            "threads": import_torch().get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
            "precision": "bfloat16" if bfloat16_pays(options.device) else "float32",
            "peak_flops": round(fastest),
        },
    }


if __name__ == "__main__":
    main()
