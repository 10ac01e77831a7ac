"""Which estimator ranks bottleneck adapters best, chosen on other targets; beside the shipped one, rivals and references.

    python bench/bottlenecks.py --targets DIR [--trained DIR] [--transfer FILE.jsonl] [--data DIR]
                                [--out bench/results/bottleneck.json]

DIR of --targets as transfer/targets.py --method bottleneck leaves it, of --trained as transfer/run.py leaves the sources it
trained. Truth is the measured transfer of the bottleneck matrix of bench/transfer: Pfeiffer adapters of reduction 16. Targets that
are not yet measured from most sources, or of which nobody tuned an adapter, are left out and named.

    similarities  C_p, R_p, W_p: the mean cosine over the sites in the compute, read or write view, singular values to the power p,
                  on exact factors of up · down. The biases, which are shifts, are left out, as a search leaves them out
    candidates    single similarities and sums of z-scored ones; each as it is, less half or all of what is usual for the source
                  (its median with the other sources), and in standard deviations from what its source has with the others;
                  with --data each again with what the target's rows say of the sources, as much as one view more
    nested        each target under the candidate that serves the other targets best: the least sum of regret@1 and @3, over all
                  sources and without kin
    shipped       read-write through the packed zoo, as a search ranks; the other estimators as ``--estimator`` would
    flattened     cosine of all tuned numbers side by side, biases too, as the paper does with LoRA's A and B
    with --data   TextEmb and data size, as bench/rivals.py has them; arrays are kept in the folder of --work

Regrets in percent, means over targets and tuned seeds with
95 % bootstrap intervals over targets, and less the shipped one's, paired over targets.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))  # its scripts import each other by name

import plan
from choose import MEASURES, figures, nested, regrets_of
from rival_arrays import Tuned, Workshop
from rivals import ROWS_ALONE, WHOLE, as_json, estimators, lines_of, read_rows, table
from train_zoo import SOURCES

from hubrank.benchmark.judge import Cost, Judged, paired, restricted
from hubrank.benchmark.rivals import Ranked, SourceArrays, TargetArrays, TunedArrays, rank_rivals
from hubrank.benchmark.transfer import MeasuredTarget
from hubrank.ranking.estimators import ESTIMATORS
from hubrank.ranking.estimators.four_views import known_z_scores
from hubrank.ranking.estimators.three_views import z_scores
from hubrank.ranking.first_order import Evidence
from hubrank.ranking.measures import Interval
from hubrank.ranking.standardise import standardise, usual_cosines, without_own_pairs
from hubrank.signatures.views import WeightedView, similarity
from hubrank.types import Signature
from hubrank.zoo.packed import is_compared

HERE = Path(__file__).resolve().parent
METHOD = "bottleneck"
VIEWS: Mapping[str, WeightedView] = MappingProxyType(
    {
        "C_1": WeightedView("compute", 1.0),
        "R_0": WeightedView("read", 0.0),
        "R_1": WeightedView("read", 1.0),
        "W_0.5": WeightedView("write", 0.5),
        "W_1": WeightedView("write", 1.0),
    }
)
SUMS = (
    *((view,) for view in VIEWS),
    ("C_1", "R_0", "W_0.5"),
    ("C_1", "R_1"),
    ("C_1", "W_1"),
    ("R_1", "W_1"),
    ("C_1", "R_1", "W_1"),
)
USUAL = (0.0, 0.5, 1.0, None)
FLATTENED, NESTED = "flattened weights", "nested choice"

Numbers = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An estimator to choose from.

    Attributes:
        views: keys of VIEWS, whose similarities are z-scored and summed.
        usual: the part of a source's usual similarity that is taken off first; None: it is standardised per source.
        rows: whether what the target's rows say is summed to them.
    """

    views: tuple[str, ...]
    usual: float | None = 0.0
    rows: bool = False

    def __str__(self) -> str:
        said = " + ".join((*self.views, *(("rows",) if self.rows else ())))
        if self.usual is None:
            return f"{said}, standardised per source"
        return f"{said}, less {self.usual:g} of what is usual" if self.usual else said

    def values(self, similarities: Numbers, zoo: Numbers, evidence: Evidence | None = None) -> np.ndarray:
        """[n] values of the sources for a target, the higher the better.

        Args:
            similarities: by view, [n] of the target with each source.
            zoo: by view, [n, n] of each source, which plays the target, with each; NaN for a source with itself.
            evidence: what the target's rows say, for a candidate that asks them.

        Raises:
            ValueError: it is one that asks, and nobody told.
        """
        values = np.sum([z_scores(_apart(similarities[view], zoo[view], self.usual)) for view in self.views], axis=0)
        if self.rows:
            if evidence is None:
                raise ValueError(f"{self}: needs what the rows say")
            values = values + evidence.trust * known_z_scores(evidence.values)
        return np.asarray(values)


def _apart(similarities: np.ndarray, zoo: np.ndarray, usual: float | None) -> np.ndarray:
    """[n] similarities without what they are with any target."""
    return standardise(similarities, zoo) if usual is None else similarities - usual * usual_cosines(zoo)


def candidates(*, rows: bool) -> list[Candidate]:
    """All that are tried, with ``rows`` each without and with them."""
    return [Candidate(*one) for one in product(SUMS, USUAL, (False, True) if rows else (False,))]


@dataclass(frozen=True, slots=True, eq=False)
class Similar:
    """Similarities of a zoo: by target, one mapping from view to [n] a tuned seed; with itself, [n, n] by view; and what each
    target's rows say of it."""

    targets: Mapping[str, Sequence[Numbers]]
    zoo: Numbers
    rows: Mapping[str, Evidence]

    def values(self, candidate: Candidate, target: str) -> list[np.ndarray]:
        """[n] a tuned seed."""
        return [candidate.values(one, self.zoo, self.rows.get(target)) for one in self.targets[target]]


def similar(
    sources: Sequence[Signature], tuned: Mapping[str, Sequence[Signature]], told_by_rows: Mapping[str, Evidence]
) -> Similar:
    """Of exact factors, at the sites that a search compares."""
    zoo = [_compared(one) for one in sources]

    def with_zoo(signature: Signature) -> dict[str, np.ndarray]:
        return {name: np.array([similarity(signature, one, view) for one in zoo]) for name, view in VIEWS.items()}

    of_targets = {name: [with_zoo(_compared(one)) for one in seeds] for name, seeds in tuned.items()}
    rows = [with_zoo(one) for one in zoo]
    return Similar(of_targets, {name: without_own_pairs(np.array([row[name] for row in rows])) for name in VIEWS}, told_by_rows)


def _compared(signature: Signature) -> Signature:
    return Signature(tuple(factors for factors in signature.factors if is_compared(factors.site, METHOD)))


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What the targets choose: their regrets in percent [candidates, targets, 4], the choice of each target for the others, and
    the best of all targets."""

    tried: Sequence[Candidate]
    regrets: np.ndarray
    chosen: Mapping[str, Candidate]
    best: Candidate


def choose(similar_to: Similar, targets: Sequence[MeasuredTarget], tried: Sequence[Candidate]) -> Choice:
    """Nested over the targets; a single one has no others to be chosen by."""
    by_candidate = np.array([
        regrets_of({target.name: similar_to.values(one, target.name) for target in targets}, targets) for one in tried
    ])  # fmt: skip
    choices = nested(by_candidate)[1] if len(targets) > 1 else []
    chosen = {target.name: tried[i] for target, i in zip(targets, choices, strict=False)}
    return Choice(tried, by_candidate, chosen, tried[int(by_candidate.mean(axis=(1, 2)).argmin())])


def rivals_of(
    shop: Workshop, sources: Sequence[plan.Source], tuned: Mapping[str, Sequence[Tuned]], *, data: bool
) -> list[Ranked]:
    """The paper's cosine and what needs no model; with the rows of tasks what looks at those, too."""
    arrays = []
    for source in sources:
        config, tensors = shop.source_files(source)
        base = shop.of_task(source.task) if data else None
        arrays.append(
            SourceArrays(
                own_base=None if base is None else base["states"],
                tensors=without_name(tensors, config["name"]),
                rows=float(shop.rows_trained_on(source)) if data else float("nan"),
                family=SOURCES[source.task][0],
                bytes=float(shop.weights(source).stat().st_size),
                seconds={} if base is None else {"own_base": float(base["seconds"])},
            )
        )
    about = {}
    for name, seeds in tuned.items():
        base = shop.of_target(name) if data else None
        own = tuple(TunedArrays(tensors=without_name(one.tensors, one.name)) for one in seeds)
        seconds = {"tuning": float(np.mean([one.seconds for one in seeds]))}
        seconds |= {} if base is None else {"base": float(base["seconds"])}
        about[name] = TargetArrays(None if base is None else base["states"], None, own, seconds)
    ranked, _ = rank_rivals(arrays, about)
    # All sources are of one shape, so that there are no strangers.
    said = {"flattened A and B": FLATTENED}
    return [replace(one, name=said.get(one.name, one.name)) for one in ranked if "strangers" not in one.name]


def without_name(tensors: Numbers, name: str) -> dict[str, np.ndarray]:
    """Tensors of the adapters library under keys that two adapters share: theirs hold the adapter's name."""
    return {key.replace(f".{name}.", ".", 1): value for key, value in tensors.items()}


def percent(one: Interval) -> list[float] | None:
    return None if np.isnan(one.mean) else [round(100 * value, 2) for value in (one.mean, one.low, one.high)]


def told(lines: Sequence[Judged]) -> dict[str, Any]:
    """Each line's regrets in percent, [mean, low, high], and less the shipped one's."""
    shipped = next((line for line in lines if line.default), None)  # asks the rows, so that it is not there without --data
    return {
        line.name: {
            **{measure: percent(line.figures[measure]) for measure in MEASURES},
            "minus the shipped one": None
            if shipped is None or line is shipped
            else {measure: percent(paired(line, shipped, measure)) for measure in MEASURES},
            "targets": len(line.per_target),
        }
        for line in lines
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All choices and figures."""
    data = options.data is not None
    shop = Workshop(
        options.data or options.work,
        options.work,
        zoo=HERE.parent / "examples" / "zoo",
        trained=options.trained,
        targets=options.targets,
        compute=data,
    )
    transfer = read_rows(options.transfer, METHOD, 200, method=METHOD)
    known = {source.name: source for source in plan.BOTTLENECK}
    sources = [known[name] for name in transfer.sources]
    tuned = {
        target.name: [one for seed in options.seeds if (one := shop.tuned(target.name, options.steps, seed)) is not None]
        for target in transfer.targets
    }
    whole = [t for t in transfer.targets if t.there.sum() >= WHOLE * len(sources) and tuned[t.name]]
    if not whole:
        raise SystemExit("no target is both measured from most sources and tuned; see transfer/run.py and transfer/targets.py")
    names = [target.name for target in whole]
    tuned = {name: tuned[name] for name in names}
    packed = shop.packed(sources)
    asked = {name: found[0] for name in names if (found := shop.evidence(packed, name)) is not None}
    of_targets = {name: [one.signature for one in seeds] for name, seeds in tuned.items()}
    similar_to = similar([shop.signature(source) for source in sources], of_targets, asked)
    choice = choose(similar_to, whole, candidates(rows=bool(asked)))
    ranked = [
        *estimators(shop, sources, names, options.steps, options.seeds),
        *rivals_of(shop, sources, tuned, data=data),
        Ranked(f"best in sample: {choice.best}", {name: similar_to.values(choice.best, name) for name in names}, Cost(), ""),
    ]
    if choice.chosen:
        values = {name: similar_to.values(one, name) for name, one in choice.chosen.items()}
        ranked.append(Ranked(NESTED, values, Cost(), ""))
    result: dict[str, Any] = {
        "command": "python bench/bottlenecks.py --targets DIR" + " --data DIR" * data,
        "sources": list(transfer.sources),
        "targets": {t.name: {"transfer_seeds": len(t.complete), "tuned_seeds": len(tuned[t.name])} for t in whole},
        "targets_left_out": [name for name in plan.BOTTLENECK_TARGETS if name not in names],
        "candidates": len(choice.tried),
    }
    for title, kin in (("all sources", True), ("without kin", False)):
        kept = [restricted(target, np.ones(len(sources), dtype=bool), kin=kin) for target in whole]
        lines = lines_of(ranked, kept, {*ESTIMATORS, ROWS_ALONE}, method=METHOD)
        print(f"\n## {title}: {len(sources)} sources, {len(whole)} targets\n\n{table(lines)}", flush=True)
        result[title] = told(lines)
    result |= {
        "nested_choices": dict(Counter(str(one) for one in choice.chosen.values()).most_common()),
        "nested_choice_of": {name: str(one) for name, one in choice.chosen.items()},
        "best in sample": str(choice.best),
        "by_candidate": {str(one): figures(choice.regrets[i]) for i, one in enumerate(choice.tried)},
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=Path, required=True, help="folder of TARGET-STEPS-SEED.safetensors")
    parser.add_argument("--trained", type=Path, default=HERE / "transfer" / "sources" / METHOD)
    parser.add_argument("--transfer", type=Path, default=HERE / "transfer" / "rows-bottleneck.jsonl")
    parser.add_argument("--data", type=Path, help="folder with datasets/, for all that looks at the tasks' rows")
    parser.add_argument("--work", type=Path, default=Path("/tmp/hubrank-bottlenecks"))
    parser.add_argument("--steps", type=int, default=75, help="of the tuned targets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the tuned targets; those that are there")
    parser.add_argument("--out", type=Path, help="the JSON")
    options = parser.parse_args()
    if options.data is not None:
        import torch

        torch.set_num_threads(1)  # seconds are of one
    result = run(options)
    choices = ", ".join(f"{name} ({count})" for name, count in result["nested_choices"].items())
    print(f"\nchosen: {choices or 'nothing, of one target'}; best in sample: {result['best in sample']}")
    if result["targets_left_out"]:
        print(f"left out: {', '.join(result['targets_left_out'])}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(as_json(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
