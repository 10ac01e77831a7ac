"""Which trained soft prompt transfers best, by the prompts alone?

    python bench/prompts.py --data DIR [--out bench/results/prompts.json]

DIR holds prompts_NAME.npz (a prompt [100, d] a task) and zeroshot_transfer_NAME.csv (rows targets, columns sources) of
RoBERTa-base and T5-small. Their public original is github.com/thunlp/Prompt-Transferability (MIT), "On Transferability of
Prompt Tuning for Natural Language Processing" (Su et al., NAACL 2022), whose authors trained the prompts and measured what
each scores on every other task without further tuning. Nothing is tuned here.

Every target's own prompt is the query, and the prompts of the other tasks of that backbone are the zoo; the target's own is
no part of it, not of its basis and not of what standardising measures. The column ``random`` has no prompt and is left out.

    regret@k  (best - best of the k ranked first) / best, in percent, mean over targets
    NDCG      gain 2 ** accuracy in percent (Jarvelin and Kekalainen 2002), in percent, mean over targets
    std       standardised per source (hubrank.ranking.standardise)
    shipped   hubrank's default for prompts: read, signed, packed in int8 on the zoo's basis, ranked by rank_sources
    chance    the mean over 2,000 random orders a target

``nested`` chooses among the candidates of prompt_candidates.py for each target by what is best on the others: by NDCG, which
looks at the whole ranking, and by regret@1, which hangs on one source a target. ``paired`` is what ships now less what
shipped before (the cosine of token means, std), with the 95 % interval of 10,000 bootstrap draws over targets, and ``changed``
names the targets on which regret@1 differs. ``strength`` ranks as if the mean of the target's unit tokens were so many times as
long, as it could be for a target tuned otherwise than the zoo. ``small zoos`` says from how many sources on standardising
helps: regret@1 over random parts of each target's zoo.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prompt_candidates import BOUNDED, by_tokens, by_way, candidates, choose_nested, similarities

from hubrank.checkpoints.peft_prompts import read_prompt
from hubrank.ranking.estimators import default_estimator
from hubrank.ranking.estimators.standardised_tokens import OUTER
from hubrank.ranking.measures import bootstrap
from hubrank.ranking.rank import rank_sources
from hubrank.signatures.canonical import SHIFT, sign_adapter
from hubrank.signatures.views import WeightedView, site_cosines
from hubrank.types import Signature, Source
from hubrank.zoo.packed import pack

METHOD = "prompt"
BACKBONES = {"Roberta": "roberta-base", "T5Small": "t5-small"}
SHIPPED = f"shipped ({default_estimator(METHOD)}, packed)"
BEFORE = "mean over tokens, std"  # what shipped until all pairs of tokens did
CHANCE = "chance"
TOP = 10  # directions of the token subspace
SHUFFLES = 2000
SIZES = (3, 4, 5, 6, 8, 10, 12)
DRAWS = 60
METRICS = ("regret@1", "regret@3", "NDCG")
TIMES = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Backbone:
    """The prompts of one backbone, and what each scores on each target.

    Attributes:
        tokens: [n, P, d] the prompts.
        measured: [n, n] accuracy, row target, column source, both in the order of ``tasks``.
        similarities: [n, n] each, see prompt_candidates.py.
    """

    name: str
    base: str
    tasks: tuple[str, ...]
    tokens: np.ndarray
    measured: np.ndarray
    signatures: tuple[Signature, ...]
    similarities: Mapping[str, np.ndarray]


def read_backbone(folder: Path, name: str) -> Backbone:
    """Prompts and transfer of the tasks that have both."""
    with np.load(folder / f"prompts_{name}.npz") as prompts, (folder / f"zeroshot_transfer_{name}.csv").open() as file:
        (_, *sources), *rows = csv.reader(file)
        targets = {row[0]: dict(zip(sources, map(float, row[1:]), strict=True)) for row in rows}
        tasks = tuple(task for task in sources if task != "random" and task in prompts.files and task in targets)
        tokens = np.stack([prompts[task] for task in tasks])
    measured = np.array([[targets[target][source] for source in tasks] for target in tasks])
    base = BACKBONES[name]
    signatures = tuple(sign_prompt(one, base) for one in tokens)
    return Backbone(name, base, tasks, tokens, measured, signatures, similarities(tokens))


def sign_prompt(tokens: np.ndarray, base: str) -> Signature:
    """A prompt [P, d] as peft would publish it, read and signed."""
    config = {"num_virtual_tokens": len(tokens), "token_dim": tokens.shape[1], "num_transformer_submodules": 1}
    return sign_adapter(read_prompt(config, {"prompt_embeddings": tokens}, base))


def flattened(backbone: Backbone) -> np.ndarray:
    """All tokens side by side, in their order."""
    rows = backbone.tokens.reshape(len(backbone.tasks), -1).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def subspaces(backbone: Backbone) -> np.ndarray:
    """Mean squared cosine of the angles between the leading directions of the tokens."""
    grams = [next(f for f in signature.factors if not f.site.module.endswith(SHIFT)) for signature in backbone.signatures]
    leading = np.stack([gram.v[:, :TOP] for gram in grams])
    return np.array([[np.square(a.T @ b).sum() / TOP for b in leading] for a in leading])


def at_site(backbone: Backbone, view: WeightedView, *, shift: bool) -> np.ndarray:
    """Cosines of the signatures at the site of the token mean or at that of the token Gram."""
    site = f"0.prompt{SHIFT}" if shift else "0.prompt"
    return np.array([[site_cosines(a, b, view)[site] for b in backbone.signatures] for a in backbone.signatures])


def shipped(backbone: Backbone, target: int, zoo: np.ndarray) -> np.ndarray:
    """Values of the zoo's sources for a target, as a search gives them."""
    pairs = [
        (Source("bench", backbone.tasks[i], "0" * 40, None, backbone.base, METHOD, 1), backbone.signatures[i]) for i in zoo
    ]
    ranked = rank_sources(pack(backbone.base, METHOD, 0, pairs), backbone.signatures[target])
    values = {row.source.repo: row.value for row in ranked.rows}
    return np.array([values[backbone.tasks[i]] for i in zoo])


def plain(similarities: np.ndarray) -> Callable[[int, np.ndarray], np.ndarray]:
    """Rank by the similarity itself."""
    return lambda target, zoo: similarities[target, zoo]


def per_source(similarities: np.ndarray) -> Callable[[int, np.ndarray], np.ndarray]:
    """Rank by the similarity, standardised per source over the sources of the zoo."""
    return lambda target, zoo: by_way(similarities, ", std", target, zoo)


def rankings(backbone: Backbone) -> dict[str, Callable[[int, np.ndarray], np.ndarray]]:
    """Every representation: a function from a target and the zoo's sources to the values of these."""
    unit_mean = at_site(backbone, WeightedView("compute", 1.0), shift=True)
    gram = at_site(backbone, WeightedView("read", 1.0), shift=False)
    mean, inner, spot = (backbone.similarities[name] for name in ("mean", "inner", "SPoT"))
    return {
        "all tokens flattened": plain(flattened(backbone)),
        f"token subspace overlap, k={TOP}": plain(subspaces(backbone)),
        "mean over tokens": plain(mean),
        BEFORE: per_source(mean),
        "mean over unit tokens": plain(unit_mean),
        "mean over unit tokens, std": per_source(unit_mean),
        "inner product of token means, std": per_source(inner),
        "all pairs of tokens (SPoT)": plain(spot),
        "all pairs of tokens (SPoT), std": per_source(spot),
        "token Gram (read R_1)": plain(gram),
        "token Gram (read R_1), std": per_source(gram),
        SHIPPED: lambda target, zoo: shipped(backbone, target, zoo),
    }


def regret(values: np.ndarray, measured: np.ndarray, k: int) -> float:
    """(best - best of the k ranked first) / best, in percent."""
    top = np.argsort(-values, kind="stable")[:k]
    return float(100 * (measured.max() - measured[top].max()) / measured.max())


def ndcg(values: np.ndarray, measured: np.ndarray) -> float:
    """In percent, gain 2 ** (accuracy in percent)."""
    gains, discounts = 2.0 ** (100 * measured), 1 / np.log2(np.arange(len(values)) + 2)
    order = np.argsort(-values, kind="stable")
    return float(100 * (gains[order] * discounts).sum() / (np.sort(gains)[::-1] * discounts).sum())


def judge(values: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """The three metrics of one ranking."""
    return regret(values, measured, 1), regret(values, measured, 3), ndcg(values, measured)


def evaluate(backbone: Backbone) -> dict[str, np.ndarray]:
    """The metrics [targets, 3] of each representation."""
    random = np.random.default_rng(0)
    out: dict[str, list[Any]] = {}
    ranked = rankings(backbone)
    for target, zoo, measured in questions(backbone):
        for name, values in ranked.items():
            out.setdefault(name, []).append(judge(values(target, zoo), measured))
        orders = [judge(random.random(len(zoo)), measured) for _ in range(SHUFFLES)]
        out.setdefault(CHANCE, []).append(np.mean(orders, axis=0))
    return {name: np.array(rows) for name, rows in out.items()}


def nested(backbones: list[Backbone]) -> dict[str, Any]:
    """The choice among the candidates by each criterion: which were chosen for how many targets, and what that gives."""
    tables: dict[str, list[Any]] = {}
    for backbone in backbones:
        for target, zoo, measured in questions(backbone):
            for name, values in candidates(backbone.similarities, target, zoo).items():
                tables.setdefault(name, []).append(judge(values, measured))
    of_all = {name: np.array(rows) for name, rows in tables.items()}
    out: dict[str, Any] = {"candidates": summarise(of_all)}
    for criterion in ("NDCG", "regret@1"):
        chosen, rows = choose_nested(of_all, METRICS.index(criterion), larger=criterion == "NDCG")
        out[f"by {criterion}"] = {"chosen": chosen, **summarise({"nested": rows})["nested"]}
    return out


def compared(names: list[str], now: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Metrics [targets, 3] of two rankings: the mean difference with its interval, and where regret@1 differs."""
    intervals = {metric: bootstrap(now[:, i] - before[:, i]) for i, metric in enumerate(METRICS)}
    return {
        **{metric: [round(x, 2) for x in (of.mean, of.low, of.high)] for metric, of in intervals.items()},
        "changed": {
            name: [round(float(old), 1), round(float(new), 1)]
            for name, old, new in zip(names, before[:, 0], now[:, 0], strict=True)
            if abs(old - new) > 1e-9
        },
    }


def strengths(backbones: list[Backbone]) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics as if the mean of a target's unit tokens were longer or shorter, with and without bounds on that."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, outer in ((BOUNDED, OUTER), ("SPoT, std", None)):
        for times in TIMES:
            rows = [
                judge(by_tokens(backbone.similarities["SPoT"], target, zoo, times=times, outer=outer), measured)
                for backbone in backbones
                for target, zoo, measured in questions(backbone)
            ]
            out.setdefault(name, {})[str(times)] = summarise({"": np.array(rows)})[""]
    return out


def questions(backbone: Backbone) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each target, the other prompts as its zoo, and what these score on it."""
    everything = np.arange(len(backbone.tasks))
    for target in everything:
        zoo = np.delete(everything, target)
        yield int(target), zoo, backbone.measured[target, zoo]


def small_zoos(backbones: list[Backbone]) -> dict[str, dict[str, float]]:
    """Mean regret@1 over random parts of the zoo, by their size, plain and standardised."""
    random = np.random.default_rng(0)
    found: dict[int, dict[str, list[float]]] = {size: {} for size in SIZES}
    for backbone in backbones:
        spot = backbone.similarities["SPoT"]
        ranked = {
            "mean over unit tokens": plain(backbone.similarities["unit mean"]),
            BOUNDED: lambda target, zoo, spot=spot: by_tokens(spot, target, zoo),
        }
        everything = np.arange(len(backbone.tasks))
        for size, target, _ in np.ndindex(len(SIZES), len(everything), DRAWS):
            zoo = random.permutation(np.delete(everything, target))[: SIZES[size]]
            measured = backbone.measured[target, zoo]
            if measured.max() > 0:  # nothing transfers at all: no ranking is better than another
                for name, values in ranked.items():
                    found[SIZES[size]].setdefault(name, []).append(regret(values(target, zoo), measured, 1))
    return {str(size): {name: round(float(np.mean(rows)), 2) for name, rows in one.items()} for size, one in found.items()}


def summarise(rows: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Means over targets."""
    return {
        name: dict(zip(METRICS, (round(float(mean), 2) for mean in table.mean(axis=0)), strict=True))
        for name, table in rows.items()
    }


def run(folder: Path) -> dict[str, Any]:
    """All figures."""
    backbones = [read_backbone(folder, name) for name in BACKBONES]
    apart = {backbone.name: evaluate(backbone) for backbone in backbones}
    together = {name: np.concatenate([rows[name] for rows in apart.values()]) for name in next(iter(apart.values()))}
    names = [f"{backbone.name} {task}" for backbone in backbones for task in backbone.tasks]
    return {
        "command": "python bench/prompts.py --data DIR",
        "data": "github.com/thunlp/Prompt-Transferability (MIT): trained prompts and zero-shot transfer",
        "targets": {backbone.name: len(backbone.tasks) for backbone in backbones},
        "together": summarise(together),
        **{name: summarise(rows) for name, rows in apart.items()},
        "nested": nested(backbones),
        "paired": {"shipped less": BEFORE, **compared(names, together[SHIPPED], together[BEFORE])},
        "strength": strengths(backbones),
        "small_zoos_regret@1": small_zoos(backbones),
    }


def print_chosen(result: Mapping[str, Any]) -> None:
    """The nested choice, what it is worth, and how far it leans on the target's strength."""
    print(f"nested, over {len(result['nested']['candidates'])} candidates:")
    for criterion, row in result["nested"].items():
        if criterion != "candidates":
            figures = ", ".join(f"{metric} {row[metric]:.2f}" for metric in METRICS)
            print(f"  {criterion}: {figures}; chosen: {', '.join(f'{name} ({n})' for name, n in row['chosen'].items())}")
    print(f"shipped less {BEFORE}, with 95 % intervals:")
    for metric in METRICS:
        mean, low, high = result["paired"][metric]
        print(f"  {metric} {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
    print("the target's mean so many times as long, regret@1 / @3:")
    for name, rows in result["strength"].items():
        print(f"  {name}:", ", ".join(f"{times} {row['regret@1']:.1f} / {row['regret@3']:.1f}" for times, row in rows.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of prompts_NAME.npz and zeroshot_transfer_NAME.csv")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    result = {**run(options.data), "machine": f"{platform.machine()}, {platform.system()}"}
    groups = ("together", *BACKBONES)
    width = max(map(len, result["together"]))
    print(" " * width, *(f"{group:<29}" for group in groups))
    print(" " * width, *(f"{metric:<9}" for _ in groups for metric in METRICS))
    for name in result["together"]:
        figures = (result[group][name][metric] for group in groups for metric in METRICS)
        print(f"{name:<{width}}", *(f"{figure:<9.2f}" for figure in figures))
    print_chosen(result)
    print("small zoos, regret@1:")
    for size, row in result["small_zoos_regret@1"].items():
        print(f"  {size:>2} sources:", ", ".join(f"{name} {value:.1f}" for name, value in row.items()))
    print(f"{time.perf_counter() - started:.0f} s")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
