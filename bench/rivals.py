"""What a user could pick instead of hubrank, on the measured transfer of bench/transfer: every rival with real arrays.

    python bench/rivals.py --data DIR --work DIR --targets DIR [--transfer FILE] [--set NAME --trained DIR] [--few-shot]

DIR of --data as for transfer/run.py; --targets holds the targets' own LoRAs as transfer/targets.py writes them, --work what
this script computes: it can be stopped and started again, and a second run computes nothing. --cached takes what is there.
--random-targets holds those of transfer/targets.py --random-start: rivals that look at the tuned target take them, for their
papers start at random, and hubrank's default is judged on them, too. --values takes all that and every other ranking but
hubrank's own from an earlier result of the same matrix.

    flattened A and B  the paper's cosine. Only sources of the target's own shape (rank and sites) have as many numbers; the
                       others come last, or in a second line get a cosine of 0
    TextEmb            MiniLM is a sentence encoder, so TextEmb and SEmb are one: the mean over the rows of the base's
                       mean-pooled tokens; up to --source-rows training rows of a source's task
    TaskEmb, Task2Vec  the empirical diagonal Fisher of the base's matrices with the tuned LoRA on them, under a linear head
                       refitted to the rows, for none is published: Vu et al.'s cosine, and Achille et al.'s
    data size          rows that a source was trained on; complex reasoning: NLI and its kin first
    LogME, H-score     of the features of the target's 200 rows, by each source
    ESM-LogME          of the base's features through an affine map fitted to a source's rows
    Delta Activations  on five generic prompts; mean-pooled, for the base has no last token that sees all
    few-shot tuning    --few-shot: 10 steps from each source on half of the target's rows, scored on the other half
    hubrank's own      every estimator, from the same tuned targets; first-order LogME is what four-views adds to three-views, alone

SPoT and the paper's prefix mean and BitFit look at prompts, prefixes and biases; bench/prompts.py has the first two.

The JSON holds values[ranking][target][source], a list with one number a tuned target, null where a source cannot be placed;
costs; and figures by hubrank's own measures, over all sources and without kin. Seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))

import plan
from rival_arrays import SOURCE_ROWS, Workshop, labels_of, timed
from train_zoo import SOURCES

from hubrank.benchmark.judge import MEASURES, Cost, Judged, ceiling, chance, judge, no_transfer, paired, prior, restricted
from hubrank.benchmark.rivals import Ranked, SourceArrays, TargetArrays, TunedArrays, rank_rivals
from hubrank.benchmark.transfer import MeasuredTarget, Transfer, read_transfer
from hubrank.ranking.estimators import ESTIMATORS, default_estimator
from hubrank.ranking.measures import Interval
from hubrank.ranking.rank import Yardstick, compare, measure
from hubrank.ranking.rivals.features import affine_map, h_score, logme
from hubrank.types import Signature

HERE = Path(__file__).resolve().parent
RANDOM = ", random start"  # of the target's LoRA; else it starts along its first gradient
ROWS_ALONE = "first-order LogME"
FEW_SHOT = "few-shot tuning"
SETS = {"first": plan.FIRST, "second": plan.SECOND, "first-held-out": plan.FIRST, "second-held-out": plan.SECOND}
WHOLE = 0.8  # of the sources; a target with fewer is one that the runner of transfer is still at


def read_rows(file: Path, group: str, rows: int, *, method: str = "lora") -> Transfer:
    """The matrix of a set of sources; a last line that is still being written is left out."""
    text = file.read_text("utf-8")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as whole:
        whole.write(text[: text.rfind("\n") + 1])
        whole.flush()
        return read_transfer(whole.name, where={"method": method, "set": group, "rows": str(rows)})


def source_arrays(shop: Workshop, source: plan.Source, targets: Sequence[str]) -> SourceArrays:
    """Everything about a source."""
    _, tensors = shop.source_files(source)
    own, base = shop.of_source(source), shop.of_task(source.task)
    scores, spent = {}, []
    for target in targets:
        found = shop.features(source, target)
        if found is not None:
            features, labels = found["states"].astype(np.float64), labels_of(shop.target_rows(target))
            scores[target] = logme(features=features, labels=labels), h_score(features=features, labels=labels)
            spent.append(float(found["states_seconds"]))
    parts = () if own is None else ("delta", "fisher")
    seconds = {part: float(own[f"{part}_seconds"]) for part in parts if own is not None}
    esm = None
    if own is not None and base is not None:
        esm, fitting = timed(lambda: affine_map(before=base["states"], after=own["states"]))
        seconds["esm"] = float(own["states_seconds"]) + fitting
    seconds |= {} if base is None else {"own_base": float(base["seconds"])}
    seconds |= {"features": float(np.mean(spent))} if spent else {}
    return SourceArrays(
        logme={target: one for target, (one, _) in scores.items()},
        h_score={target: one for target, (_, one) in scores.items()},
        esm=esm,
        own_base=None if base is None else base["states"],
        delta=None if own is None else own["delta"],
        fisher=None if own is None else own["fisher"],
        tensors=tensors,
        rows=float(shop.rows_trained_on(source)),
        family=SOURCES[source.task][0],
        bytes=float(shop.weights(source).stat().st_size),
        seconds=seconds,
    )


def whole_only(sources: Sequence[SourceArrays]) -> list[SourceArrays]:
    """Without what is there for some sources only: with --cached, a ranking of half the sources would be none."""
    parts = ("esm", "own_base", "delta", "fisher")
    lacking = {part: None for part in parts if any(getattr(source, part) is None for source in sources)}
    targets = set.intersection(*(set(source.logme) for source in sources))
    return [
        replace(
            source,
            logme={target: source.logme[target] for target in targets},
            h_score={target: source.h_score[target] for target in targets},
            **lacking,
        )
        for source in sources
    ]


def target_arrays(shop: Workshop, target: str, steps: int, seeds: Sequence[int]) -> TargetArrays:
    """Everything about a target; as many tuned ones as there are."""
    base = shop.of_target(target)
    tuned, seconds = [], {} if base is None else {"base": float(base["seconds"])}
    for seed in seeds:
        own, arrays = shop.tuned(target, steps, seed), shop.of_tuned(target, steps, seed)
        if own is not None:
            found = arrays or {}
            tuned.append(TunedArrays(found.get("delta"), found.get("fisher"), own.tensors))
            seconds |= {"tuning": own.seconds}
            seconds |= {part: float(found[f"{part}_seconds"]) for part in ("delta", "fisher") if arrays is not None}
    return TargetArrays(None if base is None else base["states"], labels_of(shop.target_rows(target)), tuple(tuned), seconds)


def few_shot(shop: Workshop, sources: Sequence[plan.Source], targets: Sequence[str]) -> Ranked | None:
    """Few-shot tuning, where it was measured for every source."""
    values, seconds = {}, []
    for target in targets:
        found = [shop.few_shot(source, target) for source in sources]
        if all(one is not None for one in found):
            values[target] = [np.array([float(one["value"]) for one in found if one is not None])]
            seconds.append(sum(float(one["seconds"]) for one in found if one is not None))
    if not values:
        return None
    bytes_kept = float(np.mean([shop.weights(s).stat().st_size for s in sources]))
    cost = Cost(passes=1, bytes=bytes_kept, seconds=float(np.mean(seconds)), needs="to tune every source on every target")
    return Ranked(FEW_SHOT, values, cost, "10 steps from every source, where transfer is measured with 36")


def compared(yardstick: Yardstick, signature: Signature) -> np.ndarray:
    """[sources] values; NaN of those that cannot be compared."""
    found = compare(yardstick, signature)
    values = np.full(len(yardstick.packed.sources), np.nan)
    values[found.usable] = found.values
    return values


def estimators(
    shop: Workshop,
    sources: Sequence[plan.Source],
    targets: Sequence[str],
    steps: int,
    seeds: Sequence[int],
    *,
    ask: bool = True,
) -> list[Ranked]:
    """hubrank's own, over a zoo of just these sources.

    Args:
        ask: the targets' rows; where they have no labels, what asks them ranks without, as a search does.
    """
    packed = shop.packed(sources)
    size = (packed.u.nbytes + packed.v.nbytes + packed.scales.nbytes + packed.weights.nbytes + packed.starts.nbytes) / len(
        sources
    )
    out = []
    rows = {target: found for target in targets if ask and (found := shop.evidence(packed, target)) is not None}
    rows = rows if len(rows) == len(targets) else {}
    asked = float(np.mean([seconds for _, seconds in rows.values()])) if rows else 0.0
    if rows:
        alone = {target: [found.values] for target, (found, _) in rows.items()}
        out.append(Ranked(ROWS_ALONE, alone, Cost(seconds=asked, bytes=size), "what the rows say, without the tuned target"))
    for name in ESTIMATORS:
        yardstick = measure(packed, estimator=name)
        if ask and yardstick.asks_rows and not rows:
            continue  # it would be another
        values, spent = {}, []
        for target in targets:
            tuned = [own for seed in seeds if (own := shop.tuned(target, steps, seed)) is not None]
            informed = replace(yardstick, evidence=rows[target][0]) if rows and yardstick.asks_rows else yardstick
            for own in tuned:
                values.setdefault(target, []).append(compared(informed, own.signature))
                spent.append(own.seconds)
        if values:
            seconds = asked if yardstick.asks_rows else 0.0
            cost = Cost(tunes=True, tuning_seconds=float(np.mean(spent)), seconds=seconds, bytes=size)
            out.append(Ranked(name, values, cost, ""))
    return out


def kept(result: dict[str, Any], sources: Sequence[str], targets: Sequence[str]) -> tuple[list[Ranked], dict[str, str]]:
    """The rankings of an earlier result but hubrank's own, in its order."""
    if result["sources"] != list(sources) or not set(targets) <= set(result["targets"]):
        raise SystemExit("--values: the result of another matrix")
    out = []
    for name, cost in result["costs"].items():
        if name in (*ESTIMATORS, ROWS_ALONE):
            continue
        strangers = "strangers" in name
        found = result["values"][name.partition(",")[0] if strangers else name]
        values = {}
        for target in targets:
            of_target = found.get("any target") or found[target]
            rows = np.array([[np.nan if v is None else v for v in of_target[source]] for source in sources]).T
            values[target] = list(np.nan_to_num(rows, nan=0.0) if strangers else rows)
        note = result["all sources"][name]["note"]
        out.append(Ranked(name, values, Cost(**{k: float("nan") if v is None else v for k, v in cost.items()}), note))
    return out, result["left_out"]


def lines_of(
    ranked: Sequence[Ranked], targets: Sequence[MeasuredTarget], own: set[str], *, method: str = "lora"
) -> list[Judged]:
    """References, then every ranking."""
    references = [chance(targets), no_transfer(targets), prior(targets), ceiling(targets)]
    kind = {True: "estimator", False: "rival"}
    shipped = default_estimator(method)
    lines = [
        judge(r.name, r.values, targets, kind=kind[r.name in own], cost=r.cost, default=r.name == shipped, note=r.note)
        for r in ranked
    ]
    return [line for line in references if line is not None] + lines


def table(lines: Sequence[Judged]) -> str:
    """Markdown: mean and interval of each measure, targets judged on."""
    heads = ["ranking", "targets", *MEASURES]
    out = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for line in lines:
        cells = []
        for measure_name, one in line.figures.items():
            scale, digits = (100, 1) if measure_name.startswith(("regret", "gain")) else (1, 3)
            cells.append(
                ""
                if np.isnan(one.mean)
                else " ".join(
                    [f"{scale * one.mean:.{digits}f}", f"[{scale * one.low:.{digits}f}, {scale * one.high:.{digits}f}]"]
                )
            )
        out.append(f"| {line.name} | {len(line.per_target)} | {' | '.join(cells)} |")
    return "\n".join(out)


def figures(lines: Sequence[Judged]) -> dict[str, Any]:
    """Figures as JSON types; each ranking's minus those of the shipped one, paired, beside them."""
    shipped = next((line for line in lines if line.default), None)
    return {
        line.name: {
            "mean, low, high": {name: triple(one) for name, one in line.figures.items()},
            "minus the default": None
            if shipped is None or shipped is line
            else {m: triple(paired(line, shipped, m)) for m in MEASURES},
            "targets": {
                target: {name: None if np.isnan(value) else round(value, 5) for name, value in found.items()}
                for target, found in line.per_target.items()
            },
            "note": line.note,
        }
        for line in lines
    }


def triple(one: Interval) -> list[float] | None:
    return None if np.isnan(one.mean) else [round(float(value), 5) for value in (one.mean, one.low, one.high)]


def values_of(ranked: Ranked, names: Sequence[str]) -> dict[str, dict[str, list[float | None]]]:
    """values[target][source]: one number a tuned target, to seven digits: fewer make ties; null where the source cannot be placed."""
    return {
        target: {
            name: [None if np.isnan(one[i]) else float(f"{one[i]:.7g}") for one in of_target] for i, name in enumerate(names)
        }
        for target, of_target in ranked.values.items()
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All values, costs and figures."""
    folders = [options.targets, options.random_targets or options.targets]
    shop, plain = (
        Workshop(
            options.data,
            options.work,
            zoo=options.zoo,
            trained=options.trained,
            targets=folder,
            compute=not options.cached,
            source_rows=options.source_rows,
        )
        for folder in folders
    )
    transfer = read_rows(options.transfer, options.set, 200)
    known = {source.name: source for source in SETS[options.set]}
    sources = [known[name] for name in transfer.sources]
    whole = [target for target in transfer.targets if target.there.sum() >= WHOLE * len(sources)]
    names = [target.name for target in whole]
    ours = estimators(shop, sources, names, options.steps, options.seeds)
    left_out: Mapping[str, str]
    if options.values is not None:
        ranked, left_out = kept(json.loads(options.values.read_text("utf-8")), transfer.sources, names)
        ranked = [one for one in ranked if not options.few_shot or one.name != FEW_SHOT]
    else:
        arrays = whole_only([source_arrays(plain, source, names) for source in sources])
        about = {name: target_arrays(plain, name, options.steps, options.seeds) for name in names}
        ranked, left_out = rank_rivals(arrays, about)
        if options.random_targets is not None:
            found = estimators(plain, sources, names, options.steps, options.seeds)
            ranked = [replace(one, name=one.name + RANDOM) for one in found if one.name == default_estimator("lora")] + ranked
    few = few_shot(shop, sources, names) if options.few_shot else None
    ranked = [*ours, *ranked, *([few] if few is not None else [])]
    own = {one.name for one in ours}
    everything = np.ones(len(sources), dtype=bool)
    result: dict[str, Any] = {
        "command": command_of(options),
        "sources": list(transfer.sources),
        "targets": {target.name: {"seeds": len(target.complete), "sources": int(target.there.sum())} for target in whole},
        "left_out": dict(left_out),
        "costs": {one.name: costs(one.cost) for one in ranked},
    }
    for title, kin in (("all sources", True), ("without kin", False)):
        lines = lines_of(ranked, [restricted(target, everything, kin=kin) for target in whole], own)
        print(f"\n## {options.set} set, {title}: {len(sources)} sources, {len(whole)} targets\n\n{table(lines)}", flush=True)
        result[title] = figures(lines)
    result["values"] = briefly({one.name: values_of(one, transfer.sources) for one in ranked})
    return result


def command_of(options: argparse.Namespace) -> str:
    """The line that makes such a result again; what came from an earlier result had been made by --random-targets."""
    random = options.random_targets is not None or options.values is not None
    folders = "--data DIR --work DIR --targets DIR" + (" --random-targets DIR" if random else "")
    more = " --few-shot" if options.few_shot else ""
    return f"python bench/rivals.py {folders} --set {options.set} --steps {options.steps} --source-rows {options.source_rows}{more}"


def briefly(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Without what can be told from the rest: a ranking that looks at no target stands once, under ``any target``; flattened
    A and B with strangers at 0 not at all, it is the other with 0 for null."""
    out: dict[str, Mapping[str, Any]] = {}
    for name, of_targets in values.items():
        first = next(iter(of_targets.values()))
        if "strangers" not in name:
            out[name] = {"any target": first} if all(one == first for one in of_targets.values()) else of_targets
    return out


def costs(cost: Cost) -> Mapping[str, Any]:
    """A cost as JSON types."""
    return {
        name: None if isinstance(value, float) and np.isnan(value) else round(value, 5) if isinstance(value, float) else value
        for name, value in asdict(cost).items()
    }


def as_json(value: Any, depth: int = 0) -> str:
    """JSON with a line for what holds nothing but numbers and words: a target of a ranking."""
    if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
        return json.dumps(value, separators=(",", ":"))
    inside = [f"{' ' * (depth + 1)}{json.dumps(name)}: {as_json(inner, depth + 1)}" for name, inner in value.items()]
    return "{\n" + ",\n".join(inside) + f"\n{' ' * depth}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with datasets/")
    parser.add_argument("--work", type=Path, required=True, help="where arrays are kept")
    parser.add_argument("--targets", type=Path, required=True, help="folder of TARGET-STEPS-SEED.safetensors")
    parser.add_argument("--random-targets", type=Path, help="the same folder as left by targets.py --random-start")
    parser.add_argument("--transfer", type=Path, default=HERE / "transfer" / "rows-lora.jsonl")
    parser.add_argument("--set", choices=tuple(SETS), default="first")
    parser.add_argument("--zoo", type=Path, default=HERE.parent / "examples" / "zoo")
    parser.add_argument("--trained", type=Path, default=Path("sources/lora"), help="sources that transfer/run.py trained")
    parser.add_argument("--steps", type=int, default=75, help="of the tuned targets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the tuned targets; those that are there")
    parser.add_argument("--few-shot", action="store_true", help="tune every source a little on every target, too")
    parser.add_argument("--source-rows", type=int, default=SOURCE_ROWS, help="training rows of each source's task")
    parser.add_argument("--values", type=Path, help="take the rivals' values from this result")
    parser.add_argument("--cached", action="store_true", help="compute nothing that a model is needed for")
    parser.add_argument("--out", type=Path, help="the JSON")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    result = run(options)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(as_json(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
