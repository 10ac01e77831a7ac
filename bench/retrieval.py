"""Does the ranking know a task when it sees it again, tuned from another random init?

    python bench/retrieval.py --data DIR [--rows N --steps N --batch N --aligned] [--work DIR] [--out bench/results/retrieval.json]

For every task of the example zoo a query is tuned with a seed that no adapter of the zoo has, and the zoo is ranked for it
by each representation. DIR is laid out as for train_zoo.py, which also names the public originals.

    MRR          mean over queries of 1 / rank of the best-placed adapter of the same task
    family NDCG  the adapters of the same task left out; gain 1 for the other tasks of its family, 0 for the rest (Jarvelin
                 and Kekalainen 2002); queries whose family has no other task are left out
    chance       the same figures for 2,000 random orders

``--aligned`` starts the queries along their first gradients, as search does; without it they start at random, as in the paper.
``flattened A and B`` is the paper's released code, always on queries that started at random: both factors of every site side by
side, cosine. It is only defined for adapters of the query's own shape, so it ranks only those; ``same shapes`` rows give the
others on that same subset.
The packed ranking, which search uses, is compared with the exact one by Spearman's coefficient.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from train_zoo import BASE, SOURCES, as_target, mean_ranks, read_rows

from hubrank import Zoo, sync
from hubrank.checkpoints.peft_lora import read_lora
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.ranking.estimators.three_views import three_views
from hubrank.ranking.placement import usual_modules, usual_rank
from hubrank.signatures.basis import project
from hubrank.signatures.canonical import sign_adapter
from hubrank.signatures.views import WeightedView, similarity
from hubrank.target.base import find_base, load_base
from hubrank.target.methods import Placement
from hubrank.target.tuning import TuningPlan, tune
from hubrank.types import Adapter, Signature, Source
from hubrank.zoo.packed import pack
from hubrank.zoo.packed_files import open_packed

METHOD = "lora"
QUERY_SEED = 1000  # the zoo's seeds are below 100
SHUFFLES = 2000
VIEWS = {
    "compute C_1": WeightedView("compute", 1.0),
    "read R_0": WeightedView("read", 0.0),
    "read R_1": WeightedView("read", 1.0),
    "write W_0.5": WeightedView("write", 0.5),
    "write W_1": WeightedView("write", 1.0),
}
DEFAULT = "three views, exact"
PACKED = "three views, packed"


@dataclass(frozen=True, slots=True)
class Query:
    """A task tuned anew: its signature, and the adapter that started at random."""

    task: str
    adapter: Adapter
    signature: Signature


def query_of(task: str, options: argparse.Namespace, modules: tuple[str, ...], rank: int) -> Query:
    """A task tuned anew, or what was kept of it."""
    plain = tuned(task, options, modules, rank, aligned=False)
    return Query(task, plain, sign_adapter(tuned(task, options, modules, rank, aligned=True) if options.aligned else plain))


def tuned(task: str, options: argparse.Namespace, modules: tuple[str, ...], rank: int, *, aligned: bool) -> Adapter:
    """Tune a query, or read it back from the work folder."""
    from safetensors.numpy import save_file

    split = "train" if options.rows == 0 else "dev"
    rows = read_rows(options.data, task, split)[: options.rows or None]
    plan = TuningPlan(
        Placement("lora", modules, rank, 2.0 * rank),
        steps=options.steps,
        batch_size=options.batch,
        seed=QUERY_SEED,
        aligned=aligned,
    )
    start = "-aligned" if aligned else ""
    name = f"{task}-{split}{len(rows)}-{options.steps}x{options.batch}-r{rank}{start}.safetensors"
    file = options.work / name
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": plan.placement.alpha}
    if not file.exists():
        model, tokenizer = load_base(find_base(BASE))
        found = tune(model, tokenizer, as_target(task, rows), plan)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: np.ascontiguousarray(value) for key, value in found.tensors().items()}, file)
        print(f"tuned {name} in {found.seconds:.0f} s", flush=True)
    data = file.read_bytes()
    tensors = SafetensorsFile(lambda start, stop: data[start:stop], len(data))
    return read_lora(config, tensors.read(tensors.tensors), BASE)


def flatten(adapter: Adapter) -> dict[str, Any]:
    """A and B as published, scale taken out again: {"shape": ..., "vector": ...}."""
    parts = [part.ravel() for delta in adapter.deltas for part in (delta.down, delta.up)]
    shape = tuple((str(delta.site), *delta.down.shape, *delta.up.shape) for delta in adapter.deltas)
    vector = np.concatenate(parts)
    return {"shape": shape, "vector": vector / np.linalg.norm(vector)}


def read_source(source: Source) -> Adapter:
    """A zoo adapter, read from its files again for the flattened baseline."""
    folder = Path(str(source.location))
    data = (folder / "adapter_model.safetensors").read_bytes()
    file = SafetensorsFile(lambda start, stop: data[start:stop], len(data))
    return read_lora(json.loads((folder / "adapter_config.json").read_text()), file.read(file.tensors), source.base)


def reciprocal_rank(values: np.ndarray, tasks: list[str], task: str) -> float:
    """1 / rank of the first adapter of the task; NaN where there is none."""
    order = [tasks[i] for i in np.argsort(-values, kind="stable")]
    return 1.0 / (order.index(task) + 1) if task in order else float("nan")


def family_ndcg(values: np.ndarray, tasks: list[str], task: str) -> float:
    """NDCG with gain 1 for other tasks of the family; NaN where there is none."""
    others = [i for i, other in enumerate(tasks) if other != task]
    gains = np.array([SOURCES[tasks[i]][0] == SOURCES[task][0] for i in others], float)
    if not gains.any():
        return float("nan")
    discounts = 1 / np.log2(np.arange(len(others)) + 2)
    order = np.argsort(-values[others], kind="stable")
    return float((gains[order] * discounts).sum() / (np.sort(gains)[::-1] * discounts).sum())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation."""
    return float(np.corrcoef(mean_ranks(a), mean_ranks(b))[0, 1])


def evaluate(queries: list[Query], zoo: Zoo) -> dict[str, Any]:
    """Every figure, for all sources and for those of the query's own shape."""
    packed = open_packed(zoo, BASE, METHOD)
    sources = list(packed.sources)
    tasks = [str(source.task) for source in sources]
    signatures = [zoo.signature(source) for source in sources]
    flat = [flatten(read_source(source)) for source in sources]
    small = {p: pack(BASE, METHOD, 0, list(zip(sources, signatures, strict=True)), p=p) for p in (32, 64, 128, 256)}
    scores: dict[str, dict[str, list[float]]] = {}
    agreement: dict[str, list[float]] = {f"p={p}": [] for p in small}
    random = np.random.default_rng(0)

    def note(name: str, values: np.ndarray, subset: list[str], task: str) -> None:
        entry = scores.setdefault(name, {"mrr": [], "ndcg": []})
        entry["mrr"].append(reciprocal_rank(values, subset, task))
        entry["ndcg"].append(family_ndcg(values, subset, task))

    for query in queries:
        by_view = {name: np.array([similarity(query.signature, s, view) for s in signatures]) for name, view in VIEWS.items()}
        exact = three_views(compute=by_view["compute C_1"], read=by_view["read R_0"], write=by_view["write W_0.5"])
        packs = {}
        for p, packed_p in small.items():
            packs[p] = three_views(**packed_p.cosines(project(query.signature, packed_p.basis)))
            agreement[f"p={p}"].append(spearman(packs[p], exact))
        values = {**by_view, DEFAULT: exact, PACKED: packs[packed.basis.p]}
        mine = flatten(query.adapter)
        same = [i for i, other in enumerate(flat) if other["shape"] == mine["shape"]]
        subset = [tasks[i] for i in same]
        note("flattened A and B, same shapes", np.array([flat[i]["vector"] @ mine["vector"] for i in same]), subset, query.task)
        for name, value in values.items():
            note(name, value, tasks, query.task)
            note(f"{name}, same shapes", value[same], subset, query.task)
        for _ in range(SHUFFLES // len(queries)):
            note("chance", random.random(len(tasks)), tasks, query.task)
            note("chance, same shapes", random.random(len(same)), subset, query.task)
    rows = {
        name: {"MRR": round(float(np.nanmean(v["mrr"])), 4), "family_NDCG": round(float(np.nanmean(v["ndcg"])), 4)}
        for name, v in scores.items()
    }
    spread = {p: {"mean": round(float(np.mean(v)), 4), "lowest": round(float(np.min(v)), 4)} for p, v in agreement.items()}
    parts = ("u", "v", "scales", "weights")
    row_bytes = {f"p={p}": sum(getattr(one, part).nbytes for part in parts) // len(sources) for p, one in small.items()}
    return {
        "sources": len(sources),
        "sites": len(packed.sites),
        "representations": rows,
        "packed_against_exact_spearman": spread,
        "packed_bytes_per_source": row_bytes,
        "shipped_p": packed.basis.p,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders with {train,dev}.jsonl.gz")
    parser.add_argument("--zoo", type=Path, default=Path("examples/zoo"))
    parser.add_argument("--rows", type=int, default=0, help="rows per query from the dev split; 0: the whole train split")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--aligned", action="store_true", help="start the queries along their first gradients, as search does")
    parser.add_argument("--work", type=Path, default=Path("/tmp/hubrank-retrieval"), help="where tuned queries are kept")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    cache = options.work / "cache"
    sync([options.zoo], cache_dir=cache)
    with Zoo(cache) as zoo:
        packed = open_packed(zoo, BASE, METHOD)
        model, _ = load_base(find_base(BASE))
        modules = usual_modules(packed, (name for name, _ in model.named_modules()))
        queries = [
            query_of(task, options, modules, usual_rank(packed)) for task in sorted({str(s.task) for s in packed.sources})
        ]
        result = evaluate(queries, zoo)
    result = {
        "command": f"python bench/retrieval.py --data DIR --rows {options.rows} --steps {options.steps} --batch {options.batch}"
        + (" --aligned" if options.aligned else ""),
        "queries": len(queries),
        "query_rows": options.rows or "whole train split",
        "query_steps": options.steps,
        "query_batch": options.batch,
        **result,
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    width = max(map(len, result["representations"]))
    print(f"{'':<{width}}  MRR    family NDCG")
    for name, row in result["representations"].items():
        print(f"{name:<{width}}  {row['MRR']:.3f}  {row['family_NDCG']:.3f}")
    print("packed against exact, Spearman:", result["packed_against_exact_spearman"])
    print(f"{time.perf_counter() - started:.0f} s")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
