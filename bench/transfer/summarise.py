"""What the measured transfer says by itself: its noise ceiling, chance, and the gains over no transfer.

    python bench/transfer/summarise.py ROWS.jsonl... [--out FILE.json]

    regret@k     (best - best of the first k) / best, in percent, mean over targets
    ceiling      the ranking is one seed's measured values, the truth the mean of the other seeds; mean over seeds
    chance       the expectation over all orders
    no transfer  (best - no transfer) / best, no transfer being the mean over adapter shapes and seeds
    alike        Spearman's coefficient of the sources' scores under two seeds, mean over the pairs: measured on one kind of
                 device, and on two

A matrix is a method, a set of sources and a number of rows. Only seeds that are complete for a target count, so a file that
is still growing can be read. ``without kin`` leaves out sources trained on the target's own task or corpus.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from hubrank.ranking.measures import spearman

REPORTED = (1, 3)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One target of a matrix.

    Attributes:
        sources: names, kin: whether each is of the target's own task or corpus.
        values: scores [seeds, sources]; every seed holds all sources.
        scratch: scores of the no-transfer rows of the shapes that the sources have, all seeds.
        devices: that each seed was measured on.
    """

    target: str
    metric: str
    sources: tuple[str, ...]
    kin: np.ndarray
    values: np.ndarray
    scratch: np.ndarray
    devices: tuple[str, ...] = ()

    def without_kin(self) -> Measured:
        keep = ~self.kin
        names = tuple(name for name, kept in zip(self.sources, keep, strict=True) if kept)
        return replace(self, sources=names, kin=self.kin[keep], values=self.values[:, keep])


def read_rows(files: Iterable[Path]) -> list[Row]:
    """All rows; a last line that is still being written is left out."""
    lines = [line for file in files for line in file.read_text("utf-8").split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def shape_of(row: Row) -> tuple[Any, ...]:
    return row["method"], row["sites"], row["rank"], row["alpha"]


def matrices(rows: list[Row]) -> dict[tuple[str, str, int], list[Measured]]:
    """Rows by (method, set, rows of the target), one Measured a target with at least one complete seed.

    How many sources a target has is learned from its fullest seed.
    """
    scratch: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    cells: dict[tuple[str, str, int], dict[str, dict[int, dict[str, Row]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for row in rows:
        if row["source"] is None:
            scratch[row["target"], row["rows"], *shape_of(row)].append(row["value"])
        else:
            cells[row["method"], row["set"], row["rows"]][row["target"]][row["seed"]][row["source"]] = row
    out: dict[tuple[str, str, int], list[Measured]] = {}
    for matrix, targets in cells.items():
        sizes = {target: max(map(len, seeds.values())) for target, seeds in targets.items()}
        most = max(sizes.values())
        # A target that lacks more than the few sources that saw its texts is one that the runner is still at.
        whole = [target for target in targets if sizes[target] > 0.8 * most]
        out[matrix] = [measured_of(target, targets[target], scratch) for target in whole]
    return out


def measured_of(target: str, seeds: dict[int, dict[str, Row]], scratch: dict[tuple[Any, ...], list[float]]) -> Measured:
    most = max(map(len, seeds.values()))
    complete = [seeds[seed] for seed in sorted(seeds) if len(seeds[seed]) == most]
    first = complete[0]
    values = np.array([[seed[name]["value"] for name in first] for seed in complete])
    any_row = next(iter(first.values()))
    shapes = {(target, any_row["rows"], *shape_of(row)) for row in first.values()}
    fresh = np.array([value for shape in sorted(shapes) for value in scratch[shape]])
    kin = np.array([bool(row["kin"]) for row in first.values()])
    devices = tuple(str(next(iter(seed.values())).get("device", "")) for seed in complete)
    return Measured(target, any_row["metric"], tuple(first), kin, values, fresh, devices)


def regret(ranking: np.ndarray, truth: np.ndarray, k: int) -> float:
    """(best - best of the k ranked first) / best, in percent."""
    top = np.argsort(-ranking, kind="stable")[:k]
    return float(100 * (truth.max() - truth[top].max()) / truth.max())


def chance(truth: np.ndarray, k: int) -> float:
    """The expected regret@k of a random order, in percent."""
    k = min(k, len(truth))
    ascending, total = np.sort(truth), comb(len(truth), k)
    # The i-th from below is the best of k with C(i, k - 1) of the C(n, k) choices.
    expected = sum(comb(i, k - 1) * value for i, value in enumerate(ascending)) / total
    return float(100 * (ascending[-1] - expected) / ascending[-1])


def ceiling(measured: Measured, k: int) -> float | None:
    """Regret@k of each seed's measured ranking on the mean of the others; None with one seed."""
    seeds = len(measured.values)
    if seeds < 2:
        return None
    scores = []
    scores = [regret(measured.values[i], np.delete(measured.values, i, 0).mean(0), k) for i in range(seeds)]
    return float(np.mean(scores))


def spread(measured: Measured) -> float | None:
    """Standard deviation between seeds of one start, mean over the sources, in points; None with one seed."""
    if len(measured.values) < 2:
        return None
    return float(100 * measured.values.std(0, ddof=1).mean())


def alike(measured: Measured, *, one_device: bool) -> float | None:
    """Spearman's coefficient of two seeds' scores, mean over the pairs of one device, or of two; None without such a pair."""
    pairs = [
        spearman(measured.values[i], measured.values[j])
        for i, j in combinations(range(len(measured.values)), 2)
        if (measured.devices[i] == measured.devices[j]) is one_device
    ]
    return float(np.mean(pairs)) if pairs else None


def of_target(measured: Measured) -> dict[str, Any]:
    """A target's line: its best source and what it gains."""
    truth = measured.values.mean(0)
    best = int(truth.argmax())
    fresh = float(measured.scratch.mean()) if len(measured.scratch) else None
    return {
        "target": measured.target,
        "metric": measured.metric,
        "sources": len(measured.sources),
        "seeds": len(measured.values),
        "no transfer": fresh,
        "mean source": float(truth.mean()),
        "best": float(truth[best]),
        "best source": measured.sources[best],
        "gain of the best": None if fresh is None else float(truth[best] - fresh),
        "sd between seeds, points": spread(measured),
        "alike, one device": alike(measured, one_device=True),
        "alike, two devices": alike(measured, one_device=False),
        **{f"chance@{k}": chance(truth, k) for k in REPORTED},
        **{f"ceiling@{k}": ceiling(measured, k) for k in REPORTED},
        "no transfer, regret": None if fresh is None else float(100 * (truth[best] - fresh) / truth[best]),
    }


def mean_of(lines: list[dict[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines if line[key] is not None]
    return float(np.mean(values)) if values else None


def summarise(rows: list[Row]) -> dict[str, Any]:
    """{matrix: {"all sources" | "without kin": {"mean": ..., "targets": [...]}}}."""
    out: dict[str, Any] = {}
    means = [f"{name}@{k}" for name in ("chance", "ceiling") for k in REPORTED]
    means += ["no transfer, regret", "gain of the best", "alike, one device", "alike, two devices"]
    for (method, group, size), targets in matrices(rows).items():
        choices = {"all sources": targets, "without kin": [target.without_kin() for target in targets]}
        parts = {}
        for choice, chosen in choices.items():
            lines = [of_target(target) for target in chosen]
            parts[choice] = {"mean": {key: mean_of(lines, key) for key in means}, "targets": lines}
        out[f"{method} {group}, {size} rows"] = parts
    return out


def show(summary: dict[str, Any]) -> None:
    for matrix, choices in summary.items():
        for choice, part in choices.items():
            print(f"\n## {matrix}, {choice}: {len(part['targets'])} targets\n")
            print(", ".join(f"{key} {number(value)}" for key, value in part["mean"].items()) + "\n")
            columns = [key for key in part["targets"][0] if "@" not in key]
            print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
            for line in part["targets"]:
                print("| " + " | ".join(number(line[key]) for key in columns) + " |")


def number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    summary = summarise(read_rows(options.rows))
    show(summary)
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
