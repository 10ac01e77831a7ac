"""Cut the target examples from public test sets: rows that no adapter of the example zoo was trained on.

    python bench/make_targets.py --data DIR --out examples

DIR is laid out as for train_zoo.py, which also names the public originals. Only data sets whose licence plainly allows it are
copied; examples/README.md carries the attribution.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from train_zoo import RECIPES, read_rows


@dataclass(frozen=True, slots=True)
class Example:
    """One file: its name, the data set, how many rows, and whether the zoo has an adapter of the task itself."""

    file: str
    task: str
    rows: int
    in_zoo: bool


EXAMPLES = (
    Example("banking.jsonl", "banking77", 231, in_zoo=False),
    Example("contradiction.jsonl", "snli_cn", 200, in_zoo=False),
    Example("intents.jsonl", "clinc150", 300, in_zoo=True),
    Example("topics.jsonl", "clinc_domain", 200, in_zoo=True),
    Example("monotonicity.jsonl", "med_monotonicity", 200, in_zoo=True),
)


def balanced(rows: list[dict[str, object]], count: int, seed: int) -> list[dict[str, object]]:
    """``count`` rows, classes as even as the data allows, in a shuffled order."""
    random = np.random.default_rng(seed)
    by_label: dict[str, list[dict[str, object]]] = defaultdict(list)
    for i in random.permutation(len(rows)):
        by_label[str(rows[i]["label"])].append(rows[i])
    queues = [by_label[label] for label in sorted(by_label)]
    chosen: list[dict[str, object]] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return [chosen[i] for i in random.permutation(len(chosen[:count]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders with {train,test}.jsonl.gz")
    parser.add_argument("--out", type=Path, default=Path("examples"))
    options = parser.parse_args()
    trained = {recipe.task for recipe in RECIPES}
    seen = {row["text"] for task in sorted(trained) for row in read_rows(options.data, task, "train")}
    for example in EXAMPLES:
        if (example.task in trained) != example.in_zoo:
            raise SystemExit(f"{example.task}: the zoo {'has' if example.task in trained else 'lacks'} an adapter of it")
        rows = [row for row in read_rows(options.data, example.task, "test") if row["text"] not in seen]
        names = ("text", "text_pair", "label")
        lines = [
            json.dumps({name: row[name] for name in names if row.get(name) is not None}, ensure_ascii=False)
            for row in balanced(rows, example.rows, seed=7)
        ]
        (options.out / example.file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        labels = len({json.loads(line)["label"] for line in lines})
        print(f"{example.file}: {len(lines)} rows of {example.task}, {labels} classes, zoo has the task: {example.in_zoo}")


if __name__ == "__main__":
    main()
