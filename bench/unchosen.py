"""What the shipped ranking is worth on matrices it was not made on: held-out targets, targets of 1,000 rows, question answering.

    python bench/unchosen.py --data DIR --work DIR --held-out DIR --large DIR --qa DIR [--transfer DIR]
                             [--out bench/results/unchosen.json]

DIR of --data as for transfer/run.py; the others as transfer/targets.py leaves them with ``--held-out``, with ``--rows 1000`` and
with ``--method qa``. Truth are the matrices of bench/transfer that bench/choose.py, blend.py and the weights never looked at.

    first, second   both sets of LoRA sources on eleven held-out tasks of 200 rows
    1,000 rows      the first set on six targets, five of them tasks of the other matrices, with 180 steps instead of 36
    qa              eight LoRAs under a span head on eight targets, F1; spans are no labels, so that the rows have no say

After the held-out targets had been measured one thing was changed by them: rows of many classes count like others. The ranking as it
was before stands beside the shipped one. Every estimator is judged, with chance, no transfer and the noise ceiling, over all sources
and without kin. Regrets in percent, means over targets and tuned seeds with 95 % bootstrap intervals over targets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))  # its scripts import each other by name

import plan
from rival_arrays import Workshop
from rivals import ROWS_ALONE, as_json, compared, estimators, lines_of, read_rows, table

from hubrank.benchmark.judge import MEASURES, Cost, Judged, restricted
from hubrank.benchmark.rivals import Ranked
from hubrank.ranking.estimators import ESTIMATORS, default_estimator
from hubrank.ranking.estimators.four_views import WEIGHT, known_z_scores
from hubrank.ranking.measures import Interval
from hubrank.ranking.rank import measure

HERE = Path(__file__).resolve().parent
STEPS = 75


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix: its name in the results, how its rows are marked, its sources, and which option names its tuned targets."""

    name: str
    method: str
    group: str
    rows: int
    sources: Sequence[plan.Source]
    tuned: str


MATRICES = (
    Matrix("first", "lora", "first-held-out", 200, plan.FIRST, "held_out"),
    Matrix("second", "lora", "second-held-out", 200, plan.SECOND, "held_out"),
    Matrix("1,000 rows", "lora", "first", 1000, plan.FIRST, "large"),
    Matrix("qa", "qa", "qa", 200, plan.QA, "qa"),
)

AS_IT_WAS = "four-views, as it was"


def as_it_was(shop: Workshop, sources: Sequence[plan.Source], targets: Sequence[str], seeds: Sequence[int]) -> Ranked:
    """The shipped ranking before rows of more than four classes counted like others: their trust was n / (n + 16 a class)."""
    packed, values = shop.packed(sources), {}
    yardstick = measure(packed, estimator="three-views")
    for target in targets:
        asked = shop.evidence(packed, target)
        if asked is None:
            raise SystemExit(f"{target}: nothing is known of what its rows say")
        evidence = asked[0]
        trust = evidence.rows / (evidence.rows + 16 * max(4, evidence.outputs))
        rows = WEIGHT * trust * known_z_scores(evidence.values)
        tuned = [own for seed in seeds if (own := shop.tuned(target, STEPS, seed)) is not None]
        values[target] = [compared(yardstick, own.signature) + rows for own in tuned]
    return Ranked(AS_IT_WAS, values, Cost(tunes=True), "the ranking in which nothing was chosen on these targets")


def judged(matrix: Matrix, options: argparse.Namespace) -> dict[str, Any]:
    """All lines of one matrix."""
    shop = Workshop(
        options.data,
        options.work / f"{matrix.rows}-rows",
        zoo=HERE.parent / "examples" / "zoo",
        trained=HERE / "transfer" / "sources" / matrix.method,
        targets=getattr(options, matrix.tuned),
        rows=matrix.rows,
    )
    transfer = read_rows(options.transfer / f"rows-{matrix.method}.jsonl", matrix.group, matrix.rows, method=matrix.method)
    known = {source.name: source for source in matrix.sources}
    sources = [known[name] for name in transfer.sources]
    tuned = {t.name: sum(shop.tuned(t.name, STEPS, seed) is not None for seed in options.seeds) for t in transfer.targets}
    whole = [target for target in transfer.targets if tuned[target.name]]
    if len(whole) < len(transfer.targets):
        missing = ", ".join(name for name, seeds in tuned.items() if not seeds)
        raise SystemExit(f"{getattr(options, matrix.tuned)}: no tuned adapter of {missing}; see transfer/targets.py")
    names = [target.name for target in whole]
    ask = matrix.method != "qa"
    ranked = estimators(shop, sources, names, STEPS, options.seeds, ask=ask)
    if ask:
        ranked.append(as_it_was(shop, sources, names, options.seeds))
    result: dict[str, Any] = {
        "sources": len(sources),
        "targets": {t.name: {"transfer_seeds": len(t.complete), "tuned_seeds": tuned[t.name]} for t in whole},
        "shipped": default_estimator("lora"),
    }
    for title, kin in (("all sources", True), ("without kin", False)):
        kept = [restricted(target, np.ones(len(sources), dtype=bool), kin=kin) for target in whole]
        lines = lines_of(ranked, kept, {*ESTIMATORS, ROWS_ALONE, AS_IT_WAS})
        print(f"\n## {matrix.name}, {title}: {len(sources)} sources, {len(whole)} targets\n\n{table(lines)}", flush=True)
        result[title] = {line.name: told(line) for line in lines}
    return result


def told(line: Judged) -> dict[str, Any]:
    """[mean, low, high] of each measure, regrets and gains in percent, and the regrets of each target."""
    regrets = [name for name in MEASURES if name.startswith("regret")]
    return {
        **{name: scaled(name, line.figures[name]) for name in MEASURES},
        "by target": {
            target: [None if np.isnan(found[name]) else round(100 * found[name], 1) for name in regrets]
            for target, found in line.per_target.items()
        },
    }


def scaled(name: str, one: Interval) -> list[float] | None:
    """Regrets and gains in percent; None of what was not measured."""
    scale = 100 if name.startswith(("regret", "gain")) else 1
    return None if np.isnan(one.mean) else [round(scale * value, 3) for value in (one.mean, one.low, one.high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with datasets/")
    parser.add_argument("--held-out", type=Path, required=True, help="tuned targets: transfer/targets.py --held-out")
    parser.add_argument("--large", type=Path, required=True, help="tuned targets: transfer/targets.py --rows 1000")
    parser.add_argument("--qa", type=Path, required=True, help="tuned targets: transfer/targets.py --method qa")
    parser.add_argument("--transfer", type=Path, default=HERE / "transfer", help="folder of rows-METHOD.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="where arrays are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the tuned targets; those that are there")
    parser.add_argument("--out", type=Path, help="the JSON")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "command": "python bench/unchosen.py --data DIR --work DIR --held-out DIR --large DIR --qa DIR",
        **{matrix.name: judged(matrix, options) for matrix in MATRICES},
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(as_json(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
