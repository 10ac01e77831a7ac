"""What stopping early costs: the ranking where the rule stops against the one of all steps, by measured transfer.

    python bench/stopping.py --data DIR --transfer FILE.jsonl --work DIR [--seeds N] [--out bench/results/stopping.json]

DIR is laid out as for transfer/run.py, FILE holds rows that it measured; bench/transfer/README.md names the public originals.
Every target of the first LoRA matrix is tuned once with each seed, for all 75 steps, on the 200 rows that its transfer was
measured on, and ranked every 5 steps as a search does it, against the matrix's sources out of the example zoo. So one run
tells both rankings: that of the step at which the rule would have stopped it, and the last.

    steps       done when the rule stops; all of them where it does not
    seconds     of one processor, up to there; everything counts, ranking and signing too
    RBO@5       rank-biased overlap of the two lists, cut after five places
    regret@k    (best - best of the k ranked first) / best, in percent, mean over targets, on the mean of the measured seeds
    cost        regret where it stops less regret of the full run, in points, with the bootstrap's interval over targets
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))  # its scripts import each other by name

import plan as matrix
from summarise import Measured, matrices, read_rows, regret
from targets import draws
from train_zoo import BASE, as_target

from hubrank import Zoo, sync
from hubrank.ranking.first_order import first_order_evidence
from hubrank.ranking.measures import bootstrap
from hubrank.ranking.placement import usual_placement
from hubrank.ranking.rank import Yardstick, compare, measure
from hubrank.ranking.runs import EVERY
from hubrank.ranking.stability import Settling, rbo
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import BaseModel, find_base, load_base
from hubrank.target.methods import Attached
from hubrank.target.site_inputs import site_inputs, space_of
from hubrank.target.task import Target
from hubrank.target.tuning import STEPS, TuningPlan, tune
from hubrank.zoo.packed import pack

TOP = 5
SEED = 5_000  # apart from every source's


@dataclass(frozen=True, slots=True)
class Watched:
    """One run: names of the sources, best first, where the rule stops and at the end; processor seconds up to each."""

    target: str
    seed: int
    steps: int
    seconds: float
    full_seconds: float
    stopped: tuple[str, ...]
    full: tuple[str, ...]


def yardstick_of(cache: Path) -> Yardstick:
    """The matrix's sources out of the example zoo, named as its rows name them."""
    folder = Path(__file__).resolve().parents[1] / "examples" / "zoo"
    sync([str(folder)], cache_dir=cache)
    names = {source.zoo: source.name for source in matrix.FIRST}
    with Zoo(cache) as zoo:
        pairs = [(source, zoo.signature(source)) for source in zoo.sources() if source.name in names]
    if len(pairs) != len(names):
        raise SystemExit(f"examples/zoo has {len(pairs)} of the {len(names)} sources of the first matrix")
    return measure(pack(BASE, "lora", 0, pairs))


def watch(base: BaseModel, target: Target, name: str, yardstick: Yardstick, seed: int) -> Watched:
    """Tune all steps, and note where the rule would have stopped."""
    names = {source.zoo: source.name for source in matrix.FIRST}
    spaces = {space_of(site) for site in yardstick.packed.sites}
    inputs = site_inputs(*load_base(base), target, spaces, device="cpu")
    yardstick = replace(yardstick, evidence=first_order_evidence(yardstick.packed, inputs))
    settled, found = Settling(), {}
    started = time.process_time()

    def look(step: int, attached: Attached) -> bool:
        order = compare(yardstick, sign_adapter(attached.adapter(BASE))).order()
        stands = settled.add(step, order.tolist())
        now = (step, time.process_time() - started, tuple(names[yardstick.packed.sources[row].name] for row in order))
        if stands:
            found.setdefault("stopped", now)
        found["full"] = now
        return False

    model, tokenizer = load_base(base)
    tune(
        model, tokenizer, target, TuningPlan(usual_placement(yardstick.packed, model), steps=STEPS, seed=seed, every=EVERY, aligned=True),
        on_snapshot=look,
    )  # fmt: skip
    _, full_seconds, full = found["full"]
    steps, seconds, stopped = found.get("stopped", found["full"])
    return Watched(name, seed, steps, seconds, full_seconds, stopped, full)


def regret_of(order: Sequence[str], measured: Measured, k: int) -> float:
    """Regret of a list that may name sources which the target's truth leaves out."""
    places = {name: place for place, name in enumerate(order)}
    return regret(-np.array([places[name] for name in measured.sources], dtype=float), measured.values.mean(0), k)


def summary(watched: Sequence[Watched], truth: Sequence[Measured]) -> dict[str, object]:
    """Means over runs, and the cost over targets."""
    of_target = {measured.target: measured for measured in truth}
    out: dict[str, object] = {
        "targets": len(of_target),
        "runs": len(watched),
        "steps": float(np.mean([one.steps for one in watched])),
        "processor_seconds": float(np.mean([one.seconds for one in watched])),
        "processor_seconds_of_all_steps": float(np.mean([one.full_seconds for one in watched])),
        "rbo@5": float(np.mean([rbo(one.stopped[:TOP], one.full[:TOP]) for one in watched])),
        "same_first": float(np.mean([one.stopped[0] == one.full[0] for one in watched])),
    }
    for k in (1, 3):
        both = {
            name: np.array([
                np.mean([regret_of(getattr(one, name), of_target[target], k) for one in watched if one.target == target])
                for target in of_target
            ])
            for name in ("stopped", "full")
        }  # fmt: skip
        cost = bootstrap(both["stopped"] - both["full"])
        out[f"regret@{k}"] = {
            "stopped": float(both["stopped"].mean()),
            "full": float(both["full"].mean()),
            "cost": cost.mean,
            "interval": [cost.low, cost.high],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--transfer", type=Path, required=True, help="rows of the first LoRA matrix")
    parser.add_argument("--work", type=Path, required=True, help="where the zoo's cache and finished runs are kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    truth = matrices(read_rows([options.transfer]))["lora", "first", 200]
    yardstick, base = yardstick_of(options.work / "cache"), find_base(BASE)
    watched = []
    for name, draw in draws(options.data, 200, tuple(one.target for one in truth)).items():
        target = as_target(name, [dict(row) for row in draw.rows])
        for seed in range(SEED, SEED + options.seeds):
            kept = options.work / f"{name}-{seed}.json"
            if not kept.exists():
                kept.write_text(json.dumps(asdict(watch(base, target, name, yardstick, seed))))
            watched.append(Watched(**json.loads(kept.read_text())))
            print(f"{name}: {watched[-1].steps} of {STEPS} steps, {watched[-1].seconds:.1f} s", flush=True)
    result = {"command": "python bench/stopping.py --data DIR --transfer FILE.jsonl --work DIR", **summary(watched, truth)}
    print(json.dumps(result, indent=2))
    if options.out:
        runs = [{**asdict(one), "stopped": one.stopped[:TOP], "full": one.full[:TOP]} for one in watched]
        options.out.write_text(json.dumps({**result, "each": runs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
