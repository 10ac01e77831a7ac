"""Measure transfer: every source's adapter as the start of every target's tuning, beside a fresh adapter's.

    python bench/transfer/run.py --data DIR --work DIR [--device cuda] [--plan]

DIR of --data holds datasets/TASK/{train,dev,test}.jsonl.gz and qa/TASK/{train,dev}.jsonl.gz; README.md names the public
originals. Rows go to rows-*.jsonl in the work folder, one a run; stop it whenever you like and start it again with the same
line. Several may run at once on one work folder. --plan says what is left and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # train_zoo

from ledger import Ledger
from plan import Run, Source, all_runs, kinship, steps_for
from workbench import Workbench

from hubrank.target.frameworks import bfloat16_pays


def row_of(run: Run, bench: Workbench, value: float, seconds: float) -> dict[str, object]:
    """What is kept of a run."""
    source, target = run.source, bench.target(run.method, run.target, run.rows)
    return {
        "method": run.method,
        "set": run.group,
        "source": source.name if source else None,
        "source_task": source.task if source else None,
        "kin": kinship(source.task, run.target) if source else "",
        "sites": run.shape.sites,
        "rank": run.shape.rank,
        "alpha": run.shape.alpha,
        "target": run.target,
        "rows": run.rows,
        "test_rows": target.test_rows,
        "seed": run.seed,
        "steps": steps_for(run.rows),
        "metric": target.metric,
        "value": round(value, 6),
        "seconds": round(seconds, 2),
        "device": bench.device,
        "precision": "bfloat16" if bfloat16_pays(bench.device) else "float32",
    }


STACK = {"cpu": 4, "cuda": 24}
"""Runs that differ only in their start are done so many at a time, by the kind of device: what keeps it busy."""


def work(runs: list[Run], ledger: Ledger, bench: Workbench, log: Path) -> bool:
    """One pass over the plan; whether anything is left that another worker has or that waits for its source."""
    waiting = False
    size = STACK.get(bench.device.partition(":")[0], STACK["cpu"])
    for stack in stacks([run for run in runs if run.key not in ledger.done], size):
        ready = []
        for run in stack:
            if run.key in ledger.done or not bench.allowed(run):
                continue
            if run.source is not None and not bench.has(run.source) and not train(run.source, ledger, bench, log):
                waiting = True
            elif ledger.claim(run.key):
                ready.append(run)
            else:
                waiting = waiting or run.key not in ledger.done
        if not ready:
            continue
        started = time.perf_counter()
        values = bench.measure(ready)
        seconds = (time.perf_counter() - started) / len(ready)
        for run, value in zip(ready, values, strict=True):
            ledger.write(run.method, run.key, row_of(run, bench, value, seconds))
            note(log, f"{run.key} {value:.4f} {seconds:.1f} s, {sum(r.key in ledger.done for r in runs)}/{len(runs)}")
    return waiting


def stacks(runs: list[Run], most: int) -> list[list[Run]]:
    """Runs that can be done side by side, in the plan's order: one target, seed and site pattern; bottlenecks one by one."""
    open_stacks: dict[tuple[object, ...], list[Run]] = {}
    out = []
    for run in runs:
        kind = (run.method, run.group, run.target, run.rows, run.seed, run.shape.sites)
        size = 1 if run.method == "bottleneck" else most
        stack = open_stacks.get(kind)
        if stack is None or len(stack) == size:
            stack = open_stacks[kind] = []
            out.append(stack)
        stack.append(run)
    return out


def train(source: Source, ledger: Ledger, bench: Workbench, log: Path) -> bool:
    """Train a source that is not there; False if another worker is at it."""
    key = f"train {source.name}"
    if not ledger.claim(key):
        return False
    if not bench.has(source):
        started = time.perf_counter()
        report = bench.train(source)
        note(log, f"{key}: {json.dumps(report)}, {time.perf_counter() - started:.0f} s")
    ledger.release(key)
    return True


def note(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%m-%d %H:%M:%S')} {line}\n")


def describe(runs: list[Run], ledger: Ledger, bench: Workbench) -> None:
    """Print what is done and what is left, and which sources are left out of which targets."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        counts[run.method, run.group, run.rows, run.seed, run.key in ledger.done] += bench.allowed(run)
    for method, group, rows, seed in dict.fromkeys(key[:4] for key in counts):
        done, left = (counts[method, group, rows, seed, state] for state in (True, False))
        print(f"{method} {group}, {rows} rows, seed {seed}: {done} done, {left} left")
    for target in dict.fromkeys((run.method, run.target, run.rows) for run in runs):
        for task, share in bench.target(*target).left_out.items():
            print(f"{target[0]} {target[1]}: {task} is left out, it saw {100 * share:.0f} % of the rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with datasets/ and qa/")
    parser.add_argument("--work", type=Path, required=True, help="where rows, the log and trained sources go")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).resolve().parents[2] / "examples" / "zoo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--method", action="append", choices=("lora", "bottleneck", "qa"), help="only these; may be repeated")
    parser.add_argument("--plan", action="store_true", help="say what is left, run nothing")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(options.work)
    bench = Workbench(options.data, options.zoo, options.work, options.device)
    runs = [run for run in all_runs() if not options.method or run.method in options.method]
    if options.plan:
        describe(runs, ledger, bench)
        return
    log = options.work / "log.txt"
    note(log, f"worker starts on {options.device}")
    while work(runs, ledger, bench, log):
        time.sleep(10)
    note(log, "worker is done: nothing is left")


if __name__ == "__main__":
    main()
