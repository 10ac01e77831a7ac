"""Real rows of five tasks on a real base, a few steps each; skipped where either is not at hand."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from hubrank.errors import HubrankError
from hubrank.target.base import CARRIED, find_base, load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, tune
from tests.ranking.builders import one_thread
from tests.real_data import DATA

(MINILM,) = CARRIED
ROWS = 24
FILES = {
    "classification": "datasets/trec6",
    "pair": "datasets/rte",
    "regression": "datasets/sts_semeval",
    "qa": "qa/xquad_en",
    "tagging": "qa/ner_wnut17",
    "multiple-choice": "qa/mc_copa",
}


@pytest.fixture(scope="module")
def base():
    try:
        return find_base(MINILM, offline=True)
    except HubrankError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("task", FILES)
def test_the_loss_falls(base, task, tmp_path):
    source = DATA / FILES[task] / "train.jsonl.gz"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        rows = [next(lines) for _ in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(rows), "utf-8")
    target = read_target(tmp_path / "rows.jsonl")
    assert target.task == {"pair": "classification"}.get(task, task)
    model, tokenizer = load_base(base)
    modules = tuple(n for n, _ in model.named_modules() if n.endswith(("attention.self.query", "attention.self.value")))
    plan = TuningPlan(Placement("lora", modules), steps=8, batch_size=4, learning_rate=5e-3, max_length=96)
    with one_thread():
        tuned = tune(model, tokenizer, target, plan)
    assert np.isfinite(tuned.losses).all()
    assert np.mean(tuned.losses[-3:]) < np.mean(tuned.losses[:3]) * 1.05
    assert len(tuned.attached.adapter(base.name).deltas) == 12
