"""The packages' side of peers.py; runs in a virtual environment of its own (peers-requirements.txt), without hubrank.

    PYTHON bench/peers_side.py prepare|hf-dataset-selector|transformer-ranker|versions WORK

WORK/plan.json says what is to be ranked (peers.py writes it). Whatever is done lies in WORK and is not done again.

``prepare`` merges every source's LoRA into the base (what transformer-ranker takes) and trains its ESM (what
hf-dataset-selector takes) as that package does: ``ESMTrainer.train_with_embeddings`` with its defaults, a linear map, on pooled
embeddings of the source's own training rows by the base and by the merged model. Rows are padded to the longest of their batch
instead of to 128 tokens, which changes the time and not the embeddings.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}

PACKAGES = ("hf-dataset-selector", "transformer-ranker")
BESIDE = ("torch", "transformers", "datasets", "peft", "numpy", "scipy")
MAX_LENGTH, BATCH = 128, 32  # hf-dataset-selector cuts rows there


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def hf_dataset(rows: list[dict[str, Any]]) -> Any:
    """Columns text, text_pair where there are pairs, and label: texts for classes, floats for a regression."""
    from datasets import Dataset

    columns = [name for name in ("text", "text_pair", "label") if name in rows[0]]
    return Dataset.from_dict({name: [row[name] for row in rows] for name in columns})


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds of processor time and of wall time."""
    found: dict[str, float] = {}
    cpu, wall = time.process_time(), time.perf_counter()
    yield found
    found |= {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}


def write(file: Path, value: object) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.rename(file)


# What the packages need of a source.


def prepare(plan: dict[str, Any], work: Path) -> None:
    """Merged models and ESMs."""
    for source in plan["sources"]:
        merged = merged_folder(work, source["name"])
        if not (merged / "done").exists():
            merge(plan["base"], source["folder"], merged)
        if not esm_folder(work, plan, source["name"]).exists():
            train_esm(plan, source, merged, work)
        print(f"prepared {source['name']}", flush=True)


def merged_folder(work: Path, name: str) -> Path:
    """hf-dataset-selector pools tokens as MiniLM does where a model's name says that it is one of sentence-transformers."""
    return work / "merged" / "sentence-transformers" / name


def esm_folder(work: Path, plan: dict[str, Any], name: str) -> Path:
    return work / f"esms-{plan['esm_rows']}" / name


def merge(base: str, adapter: str, folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    model = PeftModel.from_pretrained(AutoModel.from_pretrained(base), adapter).merge_and_unload()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    (folder / "done").touch()


def train_esm(plan: dict[str, Any], source: dict[str, Any], merged: Path, work: Path) -> None:
    import torch
    from hfselect import EmbeddingDataset, ESMTrainer

    torch.manual_seed(0)
    rows = read_rows(Path(source["rows"]))[: plan["esm_rows"]]
    texts = [row["text"] + (f" [SEP] {row['text_pair']}" if "text_pair" in row else "") for row in rows]
    metadata = {"base_model_name": plan["base"], "task_id": source["name"], "num_examples": len(rows)}
    pairs = EmbeddingDataset(embed(plan["base"], texts), embed(str(merged), texts), metadata=metadata)
    esm = ESMTrainer().train_with_embeddings(pairs, verbose=0)
    folder = esm_folder(work, plan, source["name"])
    partial = folder.with_name(folder.name + ".partial")
    esm.save_pretrained(partial)
    partial.rename(folder)


def embed(model: str, texts: list[str]) -> Any:
    """[rows, hidden], pooled by the package's own function."""
    import numpy as np
    import torch
    from hfselect.model_utils import get_pooled_output
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.zeros((len(texts), network.config.hidden_size), np.float32)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.no_grad():
            out[rows] = get_pooled_output(network, batch["input_ids"], batch["attention_mask"]).numpy()
    return out


# What the packages say.


def rank_by_esms(plan: dict[str, Any], work: Path) -> None:
    """ESM-LogME of hf-dataset-selector: ``compute_task_ranking`` as its README calls it, with ESMs from this disk."""
    from hfselect import ESM, Dataset, compute_task_ranking

    names = [source["name"] for source in plan["sources"]]
    with timed() as loading:
        esms = [ESM.from_pretrained(str(esm_folder(work, plan, name))) for name in names]
    sizes = [file.stat().st_size for name in names for file in esm_folder(work, plan, name).rglob("*.safetensors")]
    write(work / "size-hf-dataset-selector.json", {"bytes": sum(sizes) / len(names), "load_seconds": loading["cpu_seconds"]})

    def ranked(target: dict[str, Any], chosen: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
        rows = read_rows(Path(target["rows"]))
        columns = ("text", "text_pair") if "text_pair" in rows[0] else "text"
        with timed() as seconds:
            dataset = Dataset(hf_dataset(rows), columns, "label", target["regression"])
            ranking = compute_task_ranking(dataset, plan["base"], esms=chosen)
        return {c.task_id: float(s) for c, s in zip(ranking.esm_configs, ranking.scores, strict=True)}, seconds

    for target in plan["targets"]:
        once(work / "scores" / "hf-dataset-selector" / str(plan["esm_rows"]) / f"{target['name']}.json", target, ranked, esms)
    for target in plan["targets"]:
        for count in plan["counts"]:
            if target["name"] in plan["timed"]:
                repeated = [esms[i % len(esms)] for i in range(count)]
                once(work / "times" / f"hf-dataset-selector-{target['name']}-{count}.json", target, ranked, repeated)


def rank_by_models(plan: dict[str, Any], work: Path) -> None:
    """LogME of transformer-ranker on the merged models, with its default mean over layers."""
    from transformer_ranker import TransformerRanker

    folders = {str(merged_folder(work, source["name"])): source["name"] for source in plan["sources"]}
    sizes = [(Path(folder) / "model.safetensors").stat().st_size for folder in folders]
    write(work / "size-transformer-ranker.json", {"bytes": sum(sizes) / len(sizes)})

    def ranked(target: dict[str, Any], chosen: list[str]) -> tuple[dict[str, float], dict[str, float]]:
        rows = read_rows(Path(target["rows"]))
        pair = {"text_pair_column": "text_pair"} if "text_pair" in rows[0] else {}
        with timed() as seconds:
            ranker = TransformerRanker(hf_dataset(rows), text_column="text", label_column="label", **pair)
            result = ranker.run(chosen, estimator="logme", device="cpu")
        return {folders[folder]: float(score) for folder, score in result.scores.items()}, seconds

    for target in plan["targets"]:
        once(work / "scores" / "transformer-ranker" / f"{target['name']}.json", target, ranked, list(folders))


def once(file: Path, target: dict[str, Any], ranked: Any, chosen: list[Any]) -> None:
    """Rank unless that was done."""
    if file.exists():
        return
    scores, seconds = ranked(target, chosen)
    write(file, {"target": target["name"], "sources": len(chosen), "scores": scores, **seconds})
    print(f"{file.parent.name} {file.stem}: {seconds['cpu_seconds']:.1f} s of processor time", flush=True)


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "versions":
        write(folder / "versions.json", {name: version(name) for name in (*PACKAGES, *BESIDE)})
        return
    import torch

    torch.set_num_threads(1)
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    {"prepare": prepare, "hf-dataset-selector": rank_by_esms, "transformer-ranker": rank_by_models}[what](plan, folder)


if __name__ == "__main__":
    main()
