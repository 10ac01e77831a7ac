"""hubrank side by side with the packages that a user could take instead, on the same base, sources and targets.

    python3.11 -m venv PEERS && PEERS/bin/pip install -r bench/peers-requirements.txt
    python bench/peers.py --data DIR --transfer ROWS.jsonl... --work DIR --peers PEERS/bin/python [--targets DIR]
                          [--esm-rows N] [--timed TARGET]... [--out bench/results/peers.json]

Base: all-MiniLM-L6-v2. Sources: the 24 of lora ``first`` (bench/transfer/plan.py), all from examples/zoo. Targets: those of
bench/transfer with 200 rows, as far as ROWS has measured them, in the same draw of rows. DIR of ``--data`` as for
bench/transfer/run.py. What was done once lies in the work folder and is not done again, so that a rerun with more measured rows
costs seconds.

    hubrank               the target tuned 75 steps as ``hubrank search`` does, its rows asked about the sources in one pass
                          through the base, then the shipped estimator
    hf-dataset-selector   ESM-LogME (Schulte et al., EMNLP 2024): an embedding space map a source, trained with its defaults
                          on up to ``--esm-rows`` of the source's training rows, and LogME on the mapped embeddings
    transformer-ranker    LogME (You et al., ICML 2021) on the mean over layers of every source's merged model (Garbas et al.)

NDCG and regret@k by hubrank.ranking.measures, means over targets; chance beside them. Seconds are of processor time on one
thread, of the targets in ``--timed``, with 30 and with 1,000 sources: for hubrank and hf-dataset-selector the 24 repeated to that
many; for transformer-ranker, which runs one model after another, its time for the 24 times n / 24. hubrank's time is of tuning,
the rows' pass and ranking, and says each; it does not depend on the machine's other work as wall time would.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from train_zoo import BASE, as_target, read_rows
from transfer import overlap, plan, summarise

from hubrank import Zoo, sync
from hubrank._version import VERSION
from hubrank.checkpoints.peft_lora import read_lora
from hubrank.ranking import measures
from hubrank.ranking.first_order import first_order_evidence
from hubrank.ranking.rank import compare, measure
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import find_base, load_base
from hubrank.target.methods import Placement
from hubrank.target.site_inputs import SiteInputs, site_inputs, space_of
from hubrank.target.tuning import TuningPlan, tune
from hubrank.zoo.codec import encode_source
from hubrank.zoo.packed import Packed, pack

HERE = Path(__file__).parent
ROWS, STEPS, SEED = 200, 75, 5_000  # the first seed of bench/transfer/targets.py
TUNED = 2  # seeds that a target is tuned from
COUNTS = (30, 1000)
PACKAGES = ("hf-dataset-selector", "transformer-ranker")
KS = (1, 3)


@dataclass(frozen=True, slots=True)
class Truth:
    """What was measured on one target: sources, their scores, and which are of its own task or corpus."""

    target: str
    seeds: int
    values: Mapping[str, float]
    kin: frozenset[str]


def truths(rows: list[dict[str, Any]]) -> list[Truth]:
    """The targets of lora ``first`` with at least one complete seed; scores are means over the seeds."""
    found = summarise.matrices(rows).get(("lora", "first", ROWS), [])
    return [
        Truth(
            one.target,
            len(one.values),
            dict(zip(one.sources, one.values.mean(0).tolist(), strict=True)),
            frozenset(name for name, kin in zip(one.sources, one.kin, strict=True) if kin),
        )
        for one in found
    ]


Scores = Mapping[str, Sequence[Mapping[str, float]]]


def judged(scores: Scores, found: Sequence[Truth], *, kin: bool) -> dict[str, Any]:
    """NDCG, rank NDCG and regret@k of one ranking, means over the targets that it ranked, with bootstrap intervals.

    A source that a package gave no score comes last.

    Args:
        scores: by target, each run's by source; figures of a target are means over its runs.
        kin: with the sources of the target's own task or corpus.
    """
    figures: dict[str, list[float]] = {}
    for one in found:
        if one.target not in scores:
            continue
        names = [name for name in one.values if kin or name not in one.kin]
        truth = [one.values[name] for name in names]
        for name, value in of_runs(scores[one.target], names, truth).items():
            figures.setdefault(name, []).append(value)
    out: dict[str, Any] = {"targets": len(next(iter(figures.values()), []))}
    for name, per_target in figures.items():
        interval = measures.bootstrap(per_target)
        out[name] = {"mean": round(interval.mean, 3), "low": round(interval.low, 3), "high": round(interval.high, 3)}
    return out


def of_runs(runs: Sequence[Mapping[str, float]], names: Sequence[str], truth: Sequence[float]) -> dict[str, float]:
    """The figures of one target, means over the runs."""
    each = [figures_of([run.get(name, float("nan")) for name in names], truth) for run in runs]
    return {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}


def figures_of(values: Sequence[float], truth: Sequence[float]) -> dict[str, float]:
    """The figures of one target; regret in percent."""
    return {
        "ndcg": measures.ndcg(values, truth),
        "rank_ndcg": measures.rank_ndcg(values, truth),
        **{f"regret@{k}": 100 * measures.regret(values, truth, k) for k in KS},
    }


def of_chance(found: Sequence[Truth]) -> dict[str, list[dict[str, float]]]:
    """Every source worth the same: ties are worth the mean over their orders."""
    return {one.target: [dict.fromkeys(one.values, 0.0)] for one in found}


def scaled_seconds(seconds: float, sources: int, count: int) -> float:
    """Of a package that runs one model after another."""
    return seconds * count / sources


# What all sides are given.


def write_plan(options: argparse.Namespace, targets: Sequence[str]) -> dict[str, Any]:
    """The work folder's plan.json, the rows that it names, and the base in a folder by its name."""
    work, texts = options.work, options.data / "datasets"
    base = work / "base" / BASE  # a package looks at the name to know how the base pools its tokens
    if not base.exists():
        shutil.copytree(find_base(BASE).folder, base)
    sources = []
    for source in plan.FIRST:
        file = work / "rows" / f"source-{source.task}.jsonl"
        if not file.exists():
            write_rows(file, shuffled(read_rows(texts, source.task, "train")))
        sources.append(
            {"name": source.name, "folder": str((HERE.parent / "examples/zoo" / source.zoo).resolve()), "rows": str(file)}
        )
    missing = [task for task in targets if not (work / "rows" / f"target-{task}.jsonl").exists()]
    seen = {task: overlap.seen_by(read_rows(texts, task, "train"), task) for task in plan.SOURCE_TASKS} if missing else {}
    for task in missing:
        pool = read_rows(texts, task, "dev" if task in plan.SOURCE_TASKS else "train")
        drawn = overlap.draw(task, pool, read_rows(texts, task, "test"), seen, wanted=ROWS)
        write_rows(work / "rows" / f"target-{task}.jsonl", drawn.rows)
    named = [
        {"name": task, "rows": str(file), "regression": isinstance(first_row(file)["label"], float)}
        for task in targets
        for file in [work / "rows" / f"target-{task}.jsonl"]
    ]
    written = {
        "base": str(base),
        "sources": sources,
        "targets": named,
        "timed": options.timed,
        "counts": list(COUNTS),
        "esm_rows": options.esm_rows,
    }
    (work / "plan.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return written


def write_rows(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One kind of label a file: texts for classes, floats for a regression."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(plain_row(row)) + "\n" for row in rows), encoding="utf-8")
    partial.rename(file)


def plain_row(row: Mapping[str, object]) -> dict[str, object]:
    label = row["label"]
    kept = {"text": str(row["text"]), "label": label if isinstance(label, float) else str(label)}
    return (
        kept
        if row.get("text_pair") is None
        else {"text": kept["text"], "text_pair": str(row["text_pair"]), "label": kept["label"]}
    )


def shuffled(rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def first_row(file: Path) -> dict[str, Any]:
    with file.open(encoding="utf-8") as lines:
        row: dict[str, Any] = json.loads(next(lines))
        return row


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# hubrank's own side.


def packed_zoo(work: Path) -> tuple[Packed, dict[str, str], float]:
    """The 24 sources as search would read them, {name in the zoo: name in the plan}, and stored bytes a source."""
    cache = work / "cache"
    if not cache.exists():
        sync([HERE.parent / "examples/zoo"], cache_dir=cache)
    names = {source.zoo: source.name for source in plan.FIRST}
    with Zoo(cache) as zoo:
        chosen = [source for source in zoo.sources() if source.name in names]
        stored = [len(encode_source(source)) + len(zoo.record(source).signature) for source in chosen]
        return pack(BASE, "lora", 0, [(s, zoo.signature(s)) for s in chosen]), names, float(np.mean(stored))


def packed_bytes(packed: Packed) -> float:
    """Of a source's row, without what all share."""
    return sum(part.nbytes for part in (packed.u, packed.v, packed.scales, packed.weights)) / len(packed.sources)


def tuned_signature(task: str, rows: list[dict[str, Any]], tuned: Path | None, work: Path, seed: int) -> Any:
    """The target's signature, from a file that bench/transfer/targets.py or an earlier run left, else tuned now."""
    from safetensors.numpy import load_file, save_file

    name = f"{task}-{STEPS}-{seed}.safetensors"
    places = [folder / name for folder in (tuned, work / "tuned") if folder is not None]
    there = next((file for file in places if file.exists()), None)
    if there is None:
        there = work / "tuned" / name
        there.parent.mkdir(parents=True, exist_ok=True)
        found = tune_target(task, rows, seed)
        partial = there.with_suffix(".partial")
        save_file({key: np.ascontiguousarray(value) for key, value in found.tensors().items()}, partial)
        partial.rename(there)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": BASE}
    return sign_adapter(read_lora(config, load_file(there), BASE))


def tune_target(task: str, rows: list[dict[str, Any]], seed: int = 0) -> Any:
    model, tokenizer = load_base(find_base(BASE))
    modules = tuple(name for name, _ in model.named_modules() if name.endswith(("query", "value")))
    plan = TuningPlan(Placement("lora", modules), steps=STEPS, seed=SEED + seed, aligned=True)
    return tune(model, tokenizer, as_target(task, rows), plan)


def rank_by_hubrank(written: Mapping[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """(scores by target, a list of one tuned seed's by source each; cost)."""
    packed, names, stored = packed_zoo(options.work)
    yardstick = measure(packed)
    scores: dict[str, list[dict[str, float]]] = {}
    for target in written["targets"]:
        rows = rows_of(Path(target["rows"]))
        informed = replace(yardstick, evidence=first_order_evidence(packed, read_by_base(packed, target["name"], rows)))
        for seed in range(TUNED):
            signature = tuned_signature(target["name"], rows, options.targets, options.work, seed)
            found = compare(informed, signature)
            scores.setdefault(target["name"], []).append(
                {names[packed.sources[row].name]: float(value) for row, value in zip(found.usable, found.values, strict=True)}
            )
    cost = {"estimator": yardstick.name, "bytes": {"stored": round(stored), "packed": round(packed_bytes(packed))}}
    return scores, cost | {"seconds": hubrank_seconds(packed, written, options.work)}


def read_by_base(packed: Packed, task: str, rows: list[dict[str, Any]]) -> SiteInputs:
    """What the modules that the sources change read of a target's rows."""
    spaces = {space_of(site) for site in packed.sites}
    return site_inputs(*load_base(find_base(BASE)), as_target(task, rows), spaces, device="cpu")


def hubrank_seconds(packed: Packed, written: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Processor time a target of tuning and of the rows' pass, once for all sources, and of ranking zoos of COUNTS sources."""
    file = work / "times" / "hubrank.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if found["targets"] == written["timed"] and "reading" in found:
            return found
    tuning, reading, ranking = [], [], {str(count): [] for count in COUNTS}
    for target in written["targets"]:
        if target["name"] not in written["timed"]:
            continue
        rows = rows_of(Path(target["rows"]))
        begun = time.process_time()
        signature = sign_adapter(tune_target(target["name"], rows).attached.adapter(BASE))
        tuning.append(time.process_time() - begun)
        begun = time.process_time()
        inputs = read_by_base(packed, target["name"], rows)
        reading.append(time.process_time() - begun)
        for count in COUNTS:
            larger = packed.subset(np.arange(count) % len(packed.sources))
            begun = time.process_time()
            compare(replace(measure(larger), evidence=first_order_evidence(larger, inputs)), signature)
            ranking[str(count)].append(time.process_time() - begun)
    found = {
        "targets": written["timed"],
        "tuning": float(np.mean(tuning)),
        "reading": float(np.mean(reading)),
        "ranking": {count: float(np.mean(seconds)) for count, seconds in ranking.items()},
    }
    found |= {count: found["tuning"] + found["reading"] + seconds for count, seconds in found["ranking"].items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


# The packages' side.


def run_packages(python: Path, work: Path) -> None:
    """Each in a process of the other environment; a package that fails ends the run, and what is done stays done."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for what in ("versions", "prepare", *PACKAGES):
        subprocess.run([str(python), str(HERE / "peers_side.py"), what, str(work)], check=True, env=environment)


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """By target, what a package left: scores and seconds."""
    found = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))]
    return {one["target"]: one for one in found}


def package_costs(written: Mapping[str, Any], work: Path) -> dict[str, dict[str, Any]]:
    """Bytes a source, and seconds of processor time a target, of each package."""
    timed = written["timed"]
    esm = json.loads((work / "size-hf-dataset-selector.json").read_text("utf-8"))
    seconds: dict[str, Any] = {}
    for count in written["counts"]:
        files = [work / "times" / f"hf-dataset-selector-{target}-{count}.json" for target in timed]
        seconds[str(count)] = float(np.mean([json.loads(file.read_text("utf-8"))["cpu_seconds"] for file in files]))
    models = read_scores(work / "scores" / "transformer-ranker")
    whole = [models[target] for target in timed]
    scaled = {
        str(count): float(np.mean([scaled_seconds(one["cpu_seconds"], one["sources"], count) for one in whole]))
        for count in written["counts"]
    }
    size = json.loads((work / "size-transformer-ranker.json").read_text("utf-8"))
    return {
        "hf-dataset-selector": {"bytes": round(esm["bytes"]), "seconds": {"targets": timed, **seconds}},
        "transformer-ranker": {
            "bytes": round(size["bytes"]),
            "seconds": {"targets": timed, **scaled, "scaled from": len(written["sources"])},
        },
    }


def result(
    found: Sequence[Truth],
    rankings: Mapping[str, Scores],
    costs: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON that is committed: rankings are judged on the targets that all of them have."""
    shared = [one for one in found if all(one.target in scores for scores in rankings.values())]
    return {
        **facts,
        "targets": {one.target: {"sources": len(one.values), "seeds": one.seeds} for one in shared},
        "rankings": {
            name: {
                "all sources": judged(scores, shared, kin=True),
                "without kin": judged(scores, shared, kin=False),
                **costs.get(name, {}),
            }
            for name, scores in {**rankings, "chance": of_chance(shared)}.items()
        },
        "per target": {
            one.target: {
                name: {
                    key: round(value, 3)
                    for key, value in of_runs(scores[one.target], list(one.values), list(one.values.values())).items()
                }
                for name, scores in rankings.items()
            }
            for one in shared
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--transfer", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True, help="the python of the environment that has the packages")
    parser.add_argument("--targets", type=Path, help="where bench/transfer/targets.py left tuned targets")
    parser.add_argument("--esm-rows", type=int, default=2000)
    parser.add_argument("--timed", nargs="+", default=["tweet_emotion", "sick_e"])
    parser.add_argument("--only", nargs="+", help="these targets alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = [one for one in truths(summarise.read_rows(options.transfer)) if not options.only or one.target in options.only]
    options.timed = [target for target in options.timed if target in {one.target for one in found}]
    if not options.timed:
        parser.error(f"--timed: none of them is measured; there is {', '.join(one.target for one in found)}")
    written = write_plan(options, [one.target for one in found])
    scores, cost = rank_by_hubrank(written, options)
    run_packages(options.peers, options.work)
    folders = {
        "hf-dataset-selector": options.work / "scores" / "hf-dataset-selector" / str(options.esm_rows),
        "transformer-ranker": options.work / "scores" / "transformer-ranker",
    }
    rankings = {"hubrank": scores}
    rankings |= {
        name: {target: [one["scores"]] for target, one in read_scores(folder).items()} for name, folder in folders.items()
    }
    facts = {
        "command": "python bench/peers.py --data DIR --transfer bench/transfer/rows-lora.jsonl --work DIR --peers PEERS/bin/python",
        "base": BASE,
        "rows": ROWS,
        "steps": STEPS,
        "esm_rows": options.esm_rows,
        "versions": {"hubrank": VERSION, **json.loads((options.work / "versions.json").read_text("utf-8"))},
        "machine": {"processor": platform.machine(), "threads": 1, "python": platform.python_version()},
    }
    whole = result(found, rankings, {"hubrank": cost, **package_costs(written, options.work)}, facts)
    print(json.dumps({name: part for name, part in whole.items() if name != "per target"}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
