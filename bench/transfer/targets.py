"""Tune the targets of the transfer matrices as ``hubrank search`` does, and keep what a ranking is made from.

    python bench/transfer/targets.py --data DIR --out DIR [--method bottleneck|qa] [--targets NAME... | --held-out] [--rows 1000]
                                     [--seeds 3] [--steps 75 25 150] [--device cuda]

DIR as for run.py. Of each target, seed and number of steps: the LoRA's tensors, as peft would publish them, in
``TARGET-STEPS-SEED.safetensors``; with ``--method bottleneck`` the bottlenecks' as the adapters library would, of the shape that
the plan's bottleneck sources have, and its adapter_config.json in the file's metadata. Files are named alike, so that each
method, and each number of rows, needs a folder of its own. The rows are those that run.py measures the transfer to, the init is
no source's. What is there already is left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # train_zoo
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import overlap
import plan
import qa
from train_zoo import BASE, as_target, read_rows

from hubrank.target.base import find_base, load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import Target, read_target
from hubrank.target.tuning import Tuned, TuningPlan, tune

LARGE = 1000
INIT = 5_000  # apart from every source's seed
TARGETS = {"lora": plan.TARGETS, "bottleneck": plan.BOTTLENECK_TARGETS, "qa": plan.QA_TASKS}


def draws(data: Path, rows: int, targets: tuple[str, ...]) -> dict[str, overlap.Draw]:
    """The rows of each target, as run.py draws them."""
    folder = data / "datasets"
    seen = {task: overlap.seen_by(read_rows(folder, task, "train"), task) for task in plan.SOURCE_TASKS}
    found = {}
    for task in targets:
        pool = read_rows(folder, task, "dev" if task in plan.SOURCE_TASKS else "train")
        found[task] = overlap.draw(task, pool, read_rows(folder, task, "test"), seen, wanted=rows)
    return found


def qa_draws(data: Path, rows: int, targets: tuple[str, ...]) -> dict[str, overlap.Draw]:
    """The same of question answering."""
    parts = {task: qa.reserve(task, qa.read_qa(data / "qa", task, "train")) for task in plan.QA_TASKS}
    return {task: qa.drawn(data / "qa", parts, task, rows) for task in targets}


def spans(rows: tuple[overlap.Row, ...]) -> Target:
    """Rows of question answering as a user would give them."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({name: row[name] for name in ("question", "context", "answers")}) + "\n")
        file.flush()
        return read_target(file.name, task="qa")


def placement(method: str, model: Any) -> Placement:
    """Where and how large a search over the plan's sources of a method has the target's own."""
    if method == "bottleneck":
        return Placement(method, size=model.config.hidden_size // plan.PFEIFFER.rank, variant="seq_bn")
    return Placement("lora", tuple(name for name, _ in model.named_modules() if name.endswith(("query", "value"))))


def write(tuned: Tuned, file: Path, steps: int, method: str) -> None:
    """The tensors, and in the metadata what was done; a bottleneck cannot be read without its config."""
    from safetensors.numpy import save_file

    stated: dict[str, object] = {"steps": steps, "seconds": tuned.seconds}
    if method == "bottleneck":
        # The library names the folder that the base was loaded from.
        stated["adapter_config"] = tuned.config() | {"model_name": BASE}
    tensors = {name: np.ascontiguousarray(value) for name, value in tuned.tensors().items()}
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, metadata={"config": json.dumps(stated)})
    partial.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=tuple(TARGETS), default="lora")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--targets", nargs="+", help="only these; default: those of the method's first matrix, or of its rows")
    which.add_argument("--held-out", action="store_true", help="the held-out ones instead")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[75, 25, 150])
    parser.add_argument(
        "--random-start", action="store_true", help="A of the LoRAs at random, as the papers of most rivals have it"
    )
    options = parser.parse_args()
    if options.held_out and options.method == "qa":
        parser.error("--held-out: of question answering every target is")
    if options.random_start and options.method == "bottleneck":
        parser.error("--random-start: only LoRAs start otherwise than at random")
    options.out.mkdir(parents=True, exist_ok=True)
    usual = plan.LARGE_TARGETS if options.rows == LARGE and options.method == "lora" else TARGETS[options.method]
    wanted = plan.HELD_OUT if options.held_out else tuple(options.targets or usual)
    if options.method == "qa" and (unknown := set(wanted) - set(plan.QA_TASKS)):
        parser.error(f"--targets {' '.join(sorted(unknown))}: unknown; there is {', '.join(plan.QA_TASKS)}")
    drawn = (qa_draws if options.method == "qa" else draws)(options.data, options.rows, wanted)
    base = find_base(BASE)
    todo = [(steps, seed) for seed in range(options.seeds) for steps in options.steps]
    for steps, seed in sorted(todo, key=lambda pair: (pair[0] != options.steps[0] or pair[1] > 0, pair)):
        for task, draw in drawn.items():
            file = options.out / f"{task}-{steps}-{seed}.safetensors"
            if file.exists():
                continue
            target = spans(draw.rows) if options.method == "qa" else as_target(task, [dict(row) for row in draw.rows])
            model, tokenizer = load_base(base)
            where = placement(options.method, model)
            how = TuningPlan(where, steps=steps, seed=INIT + seed, aligned=not options.random_start)
            tuned = tune(model, tokenizer, target, how, device=options.device)
            write(tuned, file, steps, options.method)
            print(f"{file.name} {tuned.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
