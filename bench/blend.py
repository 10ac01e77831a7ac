"""How much LogME should count when ``search --rerank N`` runs the first N sources: regret by weight, on measured transfer.

    python bench/blend.py [--rivals bench/results/rivals.json] [--transfer bench/transfer/rows-lora.jsonl] [--out FILE.json]

The values of hubrank's default and of LogME for every target and source come from bench/rivals.py, the truth from the measured
transfer of the same matrix (mean of the seeds that are complete). The first N of the default's list are ordered anew by
``z(value) + w * z(LogME)`` over those N, the rest keep their places; w = 0 is the list as it was.

    regret@k    (best - best of the k ranked first) / best, in percent, mean over targets and tuned seeds
    nested      each target under the weight that serves the other targets best (least regret@1 + regret@3)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))

from summarise import Measured, matrices, read_rows, regret

from hubrank.ranking.blend import LOGME_WEIGHT, blended
from hubrank.ranking.estimators import default_estimator

BENCH = Path(__file__).resolve().parent
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
FIRST = (5, 10, 24)
DEFAULT, RERANKER = default_estimator("lora"), "LogME"


def reranked(values: np.ndarray, logmes: np.ndarray, first: int, weight: float) -> np.ndarray:
    """What orders the list: the first by the blend, the others behind them as they were."""
    order = np.argsort(-values, kind="stable")
    out = np.empty(len(values))
    out[order] = -np.arange(len(values), dtype=float) - 1e6
    top = order[:first]
    out[top] = blended(values[top].tolist(), logmes[top].tolist(), weight=weight)
    return out


def regrets(values: dict[str, Any], measured: Measured, first: int, weight: float) -> np.ndarray:
    """(regret@1, regret@3) of a target, mean over its tuned seeds."""
    ours, logme = values[DEFAULT][measured.target], values[RERANKER][measured.target]
    truth = measured.values.mean(0)
    logmes = np.array([np.mean(logme[name]) for name in measured.sources])
    seeds = np.array([np.atleast_1d(ours[name]) for name in measured.sources]).T
    found = [[regret(reranked(one, logmes, first, weight), truth, k) for k in (1, 3)] for one in seeds]
    return np.mean(found, axis=0)


def table(values: dict[str, Any], targets: list[Measured]) -> list[dict[str, Any]]:
    """A row for each N: the regrets by weight, and those of the nested choice."""
    rows = []
    for first in FIRST:
        by_weight = np.array([[regrets(values, one, first, weight) for one in targets] for weight in WEIGHTS])
        chosen = []
        for i in range(len(targets)):
            others = np.delete(by_weight, i, axis=1).sum(axis=2).mean(axis=1)
            chosen.append(by_weight[int(others.argmin()), i])
        means = by_weight.mean(axis=1).round(2)
        rows.append({
            "first": first,
            "regret@1 / @3 by weight": {f"{w:g}": means[i].tolist() for i, w in enumerate(WEIGHTS)},
            "nested": np.mean(chosen, axis=0).round(2).tolist(),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, default=BENCH / "results" / "rivals.json")
    parser.add_argument("--transfer", type=Path, default=BENCH / "transfer" / "rows-lora.jsonl")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    values = json.loads(options.rivals.read_text("utf-8"))["values"]
    targets = matrices(read_rows([options.transfer]))["lora", "first", 200]
    result = {
        "command": "python bench/blend.py",
        "shipped": LOGME_WEIGHT,
        "targets": len(targets),
        "all sources": table(values, targets),
        "without kin": table(values, [target.without_kin() for target in targets]),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
