"""Sources that the runner trains itself, end to end on the real base: two steps on a handful of rows."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hubrank.checkpoints.reader import read_adapters
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from tests.ranking.builders import one_thread

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory, bench):
    folder = tmp_path_factory.mktemp("data")
    words = ["good", "bad", "fine", "poor"]
    for split, count in (("train", 24), ("test", 8)):
        rows = [{"text": f"a {words[i % 4]} film number {i}", "label": ["yes", "no"][i % 2]} for i in range(count)]
        write(folder / "datasets" / "sst2" / f"{split}.jsonl.gz", rows)
    for task in bench.plan.QA_TASKS:
        rows = [
            {
                "id": f"{task}-{i}",
                "question": f"Which number has box {i}?",
                "context": f"Box {i} has the number {i + 7}.",
                "answers": {"text": [str(i + 7)], "answer_start": [len(f"Box {i} has the number ")]},
            }
            for i in range(bench.qa.RESERVED + 20)
        ]
        for split in ("train", "dev"):
            write(folder / "qa" / task / f"{split}.jsonl.gz", rows if split == "train" else rows[:8])
    return folder


@pytest.mark.parametrize(("method", "task"), [("bottleneck", "sst2"), ("qa", "xquad_en")])
def test_a_source_is_trained_saved_whole_and_read_like_a_published_adapter(bench, data, tmp_path, method, task):
    known = {"bottleneck": bench.plan.BOTTLENECK, "qa": bench.plan.QA}[method]
    source = replace(next(one for one in known if one.task == task), steps=2, seed=9_999)  # none that was ever kept
    shop = bench.workbench.Workbench(data, ZOO, tmp_path, "cpu")
    assert not shop.has(source)
    report = shop.train(source)
    assert 0 <= report["value"] <= 1
    assert shop.has(source)
    folder = tmp_path / "sources" / method / source.name
    assert json.loads((folder / "measured.json").read_text()) == report
    assert not list(folder.parent.glob("*.partial"))
    hub = FolderHub(folder)
    (listing,) = hub.discover(Query())
    (adapter,) = read_adapters(listing, hub.open(listing))
    assert adapter.method == {"bottleneck": "bottleneck", "qa": "lora"}[method]
    assert len(adapter.deltas) == {"bottleneck": 6, "qa": 12}[method]
