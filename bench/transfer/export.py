"""Lay a matrix of measured transfer out as ``hubrank bench`` takes it from anybody: rows, adapters, targets, sources' rows.

    python bench/transfer/export.py --data DIR --transfer ROWS.jsonl --out DIR [--set second --trained DIR]
    hubrank bench --zoo DIR/zoo --transfer DIR/transfer.jsonl --targets DIR/targets [--rivals --source-rows DIR/sources]

DIR of --data as for run.py. The rows of the LoRA matrix with 200 rows a target get ``source_rows`` and ``source_family``; a last
line that is still being written is left out, and so is a target that the runner is still at. An adapter is copied under the
name that the rows give it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # train_zoo

import plan
from overlap import draw, seen_by
from summarise import read_rows as read_measured
from train_zoo import SOURCES, read_rows

WHOLE = 0.8
SOURCE_ROWS = 1000  # more than the base's dimensions, for the maps of ESM-LogME


def chosen(rows: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    """A matrix's rows and the no-transfer rows of its targets, without targets that have few of their sources yet."""
    mine = [row for row in rows if row["method"] == "lora" and row["rows"] == 200]
    sources: dict[str, set[str]] = defaultdict(set)
    for row in mine:
        if row["source"] is not None and row["set"] == group:
            sources[row["target"]].add(row["source"])
    most = max(map(len, sources.values()), default=0)
    whole = {target for target, names in sources.items() if len(names) >= WHOLE * most}
    return [row for row in mine if row["target"] in whole and (row["source"] is None or row["set"] == group)]


def described(row: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """A row that says of its source what rankings by data size and by kind of task need."""
    task = row["source_task"]
    return row if task is None else row | {"source_rows": counts[task], "source_family": SOURCES[task][0]}


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--transfer", type=Path, default=Path(__file__).with_name("rows-lora.jsonl"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", choices=("first", "second"), default="first")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).resolve().parents[2] / "examples" / "zoo")
    parser.add_argument("--trained", type=Path, default=Path("sources/lora"), help="sources that run.py trained")
    options = parser.parse_args()
    data = options.data / "datasets"
    rows = chosen(read_measured([options.transfer]), options.set)
    train = {task: read_rows(data, task, "train") for task in plan.SOURCE_TASKS}
    write_lines(options.out / "transfer.jsonl", [described(row, {t: len(found) for t, found in train.items()}) for row in rows])
    seen = {task: seen_by(found, task) for task, found in train.items()}
    targets = sorted({row["target"] for row in rows})
    for name in targets:
        pool = read_rows(data, name, "dev" if name in plan.SOURCE_TASKS else "train")
        drawn = draw(name, pool, read_rows(data, name, "test"), seen, wanted=200)
        write_lines(options.out / "targets" / f"{name}.jsonl", [dict(row) for row in drawn.rows])
    names = {row["source"] for row in rows}
    for source in plan.FIRST if options.set == "first" else plan.SECOND:
        if source.name not in names:
            continue
        folder = options.zoo / source.zoo if source.zoo else options.trained / source.name
        shutil.copytree(folder, options.out / "zoo" / "transfer" / source.name, dirs_exist_ok=True)
        found = train[source.task]
        order = np.random.default_rng(zlib.crc32(source.task.encode())).permutation(len(found))[:SOURCE_ROWS]
        write_lines(options.out / "sources" / f"{source.name}.jsonl", [found[i] for i in order])
    print(f"{len(rows)} rows, {len(targets)} targets, {len(names) - (None in names)} sources: {options.out}")


if __name__ == "__main__":
    main()
