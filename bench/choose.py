"""Would another default have been better, chosen on other targets; and does the default hold on a second set of sources?

    python bench/choose.py --data DIR --targets DIR [--transfer FILE.jsonl] [--work DIR] [--out bench/results/choose.json]

DIR of --data and --targets as for rivals.py. Truth is the measured transfer of the LoRA matrices of bench/transfer.

    candidates  sums of z-scored cosines: which views; which part of a source's usual cosine is taken off before (its median
                with the other sources: 0 nothing, 1 all of it, so that a source that is like everything gains nothing by it);
                and how much the evidence of the target's rows weighs beside them (of very many: 200 weigh three quarters of it)
    nested      each target under the candidate that serves the other targets best: the least sum of regret@1 and @3, over all
                sources and without kin
    averaged    the default on the mean of a target's tuned seeds, as ``search --repeats`` ranks
    second set  the same tasks, trained from other seeds, at other ranks and sites. regret@k of the default there less that on
                the first set, paired over targets; 95 % bootstrap intervals

Regrets in percent, means over targets and tuned seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))  # its scripts import each other by name

import plan
from rival_arrays import Workshop

from hubrank.benchmark.judge import restricted
from hubrank.benchmark.transfer import MeasuredTarget, Transfer, read_transfer
from hubrank.ranking.background import compare_sources
from hubrank.ranking.estimators.four_views import WEIGHT, known_z_scores
from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.first_order import Evidence
from hubrank.ranking.measures import bootstrap, regret
from hubrank.ranking.standardise import usual_cosines
from hubrank.signatures.basis import project

HERE = Path(__file__).resolve().parent
VIEWS = (("compute", "read", "write"), ("compute",), ("compute", "read"), ("compute", "write"))
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (1.0, 2.0, 3.0, 4.0, 6.0)
SHIPPED = (VIEWS[0], 0.0, WEIGHT)
TRIED = (1, 3)
MEASURES = tuple(f"regret@{k}" for k in TRIED)
Candidate = tuple[Sequence[str], float, float]
SETS = {"first": plan.FIRST, "second": plan.SECOND}


@dataclass(frozen=True, slots=True)
class Cosines:
    """A set's sources: cosines of each target's tuned adapters with them, by target, seed and view; what is usual for each; what
    each target's rows say of them."""

    targets: Mapping[str, Sequence[Mapping[str, np.ndarray]]]
    usual: Mapping[str, np.ndarray]
    evidence: Mapping[str, Evidence]

    def values(self, target: str, candidate: Candidate, *, averaged: bool = False) -> list[np.ndarray]:
        """A candidate's values, one array a tuned seed, or their mean."""
        views, part, weight = candidate
        evidence = self.evidence[target]
        rows = weight * evidence.trust * known_z_scores(evidence.values)
        found = [sum(z_scores(one[v] - part * self.usual[v]) for v in views) + rows for one in self.targets[target]]
        return [np.mean(found, axis=0)] if averaged else found


def cosines_of(shop: Workshop, transfer: Transfer, group: str, steps: int, seeds: Sequence[int]) -> Cosines:
    """Every target's, from the packed zoo that a search would read."""
    known = {source.name: source for source in SETS[group]}
    packed = shop.packed([known[name] for name in transfer.sources])
    found = {
        target.name: [
            packed.cosines(project(own.signature, packed.basis))
            for seed in seeds
            if (own := shop.tuned(target.name, steps, seed)) is not None
        ]
        for target in transfer.targets
    }
    usual = {view: usual_cosines(rows) for view, rows in compare_sources(packed).cosines.items()}
    asked = {target.name: shop.evidence(packed, target.name) for target in transfer.targets}
    return Cosines(found, usual, {name: one[0] for name, one in asked.items() if one is not None})


def regrets(cosines: Cosines, targets: Sequence[MeasuredTarget], candidate: Candidate, *, averaged: bool = False) -> np.ndarray:
    """[targets, 4] of a candidate, as :func:`regrets_of` has them."""
    return regrets_of({t.name: cosines.values(t.name, candidate, averaged=averaged) for t in targets}, targets)


def regrets_of(values: Mapping[str, Sequence[np.ndarray]], targets: Sequence[MeasuredTarget]) -> np.ndarray:
    """[targets, 4] regret@1 and @3 over all sources, and without kin, of values [n] by target, one array a tuned seed."""
    found = []
    for kin in (True, False):
        kept = [restricted(target, np.ones(len(target.there), dtype=bool), kin=kin) for target in targets]
        found.append([[np.mean([regret(one, t.truth, k) for one in values[t.name]]) for k in TRIED] for t in kept])
    return np.concatenate(found, axis=1) * 100


def nested(by_candidate: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """[targets, 4] regrets of [candidates, targets, 4] under the choice that each other target makes, and the choices."""
    chosen = [int(np.delete(by_candidate, i, axis=1).mean(axis=1).sum(axis=1).argmin()) for i in range(by_candidate.shape[1])]
    return np.array([by_candidate[one, i] for i, one in enumerate(chosen)]), chosen


def named(views: Sequence[str], part: float, weight: float) -> str:
    """A candidate in words."""
    rows = f" + {weight:g} rows" if weight else ""
    return " + ".join(views) + rows + (f", less {part:g} of what is usual" if part else "")


def figures(regret: np.ndarray) -> dict[str, float]:
    """Means over targets."""
    return {
        f"{measure}{where}": round(float(value), 2)
        for (where, measure), value in zip(
            [(where, measure) for where in ("", " without kin") for measure in MEASURES], regret.mean(axis=0), strict=True
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with datasets/")
    parser.add_argument("--targets", type=Path, required=True, help="folder of TARGET-STEPS-SEED.safetensors")
    parser.add_argument("--transfer", type=Path, default=HERE / "transfer" / "rows-lora.jsonl")
    parser.add_argument("--work", type=Path, default=Path("/tmp/hubrank-choose"))
    parser.add_argument("--zoo", type=Path, default=HERE.parent / "examples" / "zoo")
    parser.add_argument("--trained", type=Path, default=HERE / "transfer" / "sources" / "lora")
    parser.add_argument("--steps", type=int, default=75)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the tuned targets; those that are there")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shop = Workshop(options.data, options.work, zoo=options.zoo, trained=options.trained, targets=options.targets, compute=True)
    candidates = [(views, part, 0.0) for views in VIEWS for part in PARTS]
    candidates += [(views, 0.0, weight) for views in VIEWS for weight in WEIGHTS]
    result: dict[str, Any] = {"command": "python bench/choose.py --data DIR --targets DIR", "candidates": len(candidates)}
    of_set = {}
    for group in SETS:
        transfer = read_transfer(options.transfer, where={"method": "lora", "set": group, "rows": "200"})
        cosines = cosines_of(shop, transfer, group, options.steps, options.seeds)
        by_candidate = np.array([regrets(cosines, transfer.targets, candidate) for candidate in candidates])
        chosen, choices = nested(by_candidate)
        by_weight = [i for i, (views, part, _) in enumerate(candidates) if (views, part) == SHIPPED[:2]]
        best = int(by_candidate.mean(axis=(1, 2)).argmin())
        counts = {named(*candidates[i]): choices.count(i) for i in dict.fromkeys(choices)}
        result[group] = {
            "targets": len(transfer.targets),
            "sources": len(transfer.sources),
            "transfer_seeds": max(len(target.complete) for target in transfer.targets),
            "shipped": figures(by_candidate[candidates.index(SHIPPED)]),
            "averaged": figures(regrets(cosines, transfer.targets, SHIPPED, averaged=True)),
            "nested": figures(chosen),
            "nested_choices": counts,
            "nested, the weight of the rows alone": figures(nested(by_candidate[by_weight])[0]),
            "best in sample": {"candidate": named(*candidates[best]), **figures(by_candidate[best])},
            "by_candidate": {named(*one): figures(by_candidate[i]) for i, one in enumerate(candidates)},
        }
        of_set[group] = dict(zip((t.name for t in transfer.targets), by_candidate[candidates.index(SHIPPED)], strict=True))
    names = sorted(of_set["first"].keys() & of_set["second"].keys())
    pairs = np.array([of_set["second"][name] - of_set["first"][name] for name in names])
    result["second set"] = {
        "targets": len(names),
        "first": figures(np.array([of_set["first"][name] for name in names])),
        "second": figures(np.array([of_set["second"][name] for name in names])),
        "second minus first": {
            key: [round(float(one), 2) for one in (interval.mean, interval.low, interval.high)]
            for key, interval in zip(figures(pairs), (bootstrap(column) for column in pairs.T), strict=True)
        },
    }
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
