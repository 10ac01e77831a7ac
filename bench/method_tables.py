"""The tables and figures of docs/method.md, from the results in bench/results and the rows of bench/transfer.

docs/render_method.py puts them where the page's template names them. Each function gives Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from plots import OURS, RIVALS, TRANSFER, WITH, WITHOUT, in_order, shown
from rivals import read_rows

from hubrank.benchmark.transfer import MeasuredTarget

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the page is written from: results by file name, and the measured targets with their sources."""

    results: Mapping[str, Any]
    targets: Sequence[MeasuredTarget]
    sources: Sequence[str]

    @classmethod
    def read(cls) -> Evidence:
        results = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(RESULTS.glob("*.json"))}
        matrix = read_rows(TRANSFER, "first", 200)
        rivals = results[RIVALS.stem]
        if list(matrix.sources) != rivals["sources"]:
            raise ValueError(f"{RIVALS} and {TRANSFER} are of different sources; run bench/rivals.py on these rows first")
        return cls(results, [one for one in matrix.targets if one.name in rivals["targets"]], matrix.sources)

    def values(self, ranking: str, target: MeasuredTarget) -> np.ndarray:
        """[tuned, n] what a ranking said."""
        found = self.results["rivals"]["values"][ranking][target.name]
        return np.array([found[name] for name in self.sources], dtype=float).T

    def at(self, path: str) -> Any:
        """A number by its way through the results, such as ``verdict/bar``."""
        found: Any = self.results
        for part in path.split("/"):
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column is words, the others numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def interval(one: Sequence[float] | None, scale: float = 100, digits: int = 1) -> str:
    """A mean and its bounds; empty where nothing was measured."""
    if one is None:
        return ""
    mean, low, high = (f"{scale * value:.{digits}f}" for value in one)
    return f"{mean} [{low}, {high}]"


def bold(name: str, cells: Sequence[str]) -> list[str]:
    """A row; what search ships stands out."""
    return [f"**{cell}**" if name == OURS and cell else cell for cell in cells]


def retrieval(evidence: Evidence) -> str:
    """Which representation knows a task again."""
    whole, few = (evidence.at(f"{name}/representations") for name in ("retrieval", "retrieval_200_rows"))
    rows = [
        [name, *(f"{run[name][measure]:.2f}" for run in (whole, few) for measure in ("MRR", "family_NDCG"))]
        for name in whole
        if not name.endswith(", same shapes") or name.startswith("flattened")
    ]
    return table(["representation", "MRR", "family NDCG", "MRR, 200 rows", "family NDCG, 200 rows"], rows)


def prompts(evidence: Evidence) -> str:
    """Soft prompts, both backbones."""
    found = evidence.at("prompts")
    groups = ("together", *found["targets"])
    rows = [
        [name, *(f"{found[group][name][measure]:.1f}" for group in groups for measure in ("regret@1", "regret@3"))]
        for name in found["together"]
    ]
    heads = [
        f"{'' if group == 'together' else group + ' '}{measure}" for group in groups for measure in ("regret@1", "regret@3")
    ]
    return table(["ranking", *heads], rows)


def transfer(evidence: Evidence, group: str) -> str:
    """Every ranking on measured transfer."""
    lines = evidence.at(f"rivals/{group}")
    rows = []
    for name in in_order(evidence.at("rivals")):
        found, paired = lines[name]["mean, low, high"], lines[name]["minus the default"]
        cells = [shown(name), *(interval(found[measure]) for measure in ("regret@1", "regret@3"))]
        cells += [interval(paired["regret@1"]) if paired else "", interval(found["spearman"], 1, 2), interval(found["gain"])]
        rows.append(bold(name, cells))
    heads = ["ranking", "regret@1, %", "regret@3, %", "regret@1 minus hubrank's", "Spearman", "gain, points"]
    return table(heads, rows)


BOTTLENECKS = {
    "noise ceiling": "noise ceiling",
    "read-write": "**hubrank (read-write)**",
    "nested choice": "nested choice",
    "first-order LogME": "hubrank without tuning",
    "four-views": "hubrank's four-views",
    "three-views": "hubrank's three-views",
    "TextEmb": "TextEmb",
    "flattened weights": "flattened weights",
    "source prior, leave one target out": "source prior",
    "chance": "chance",
    "no transfer": "no transfer",
}


def bottlenecks(evidence: Evidence) -> str:
    """Rankings of bottleneck adapters on measured transfer."""
    rows = []
    there = evidence.at(f"bottleneck/{WITH}")  # one seed has no ceiling
    for name, said in ((name, said) for name, said in BOTTLENECKS.items() if name in there):
        cells = [
            interval([value / 100 for value in found]) if (found := evidence.at(f"bottleneck/{group}/{name}/{measure}")) else ""
            for group in (WITH, WITHOUT)
            for measure in ("regret@1", "regret@3")
        ]
        rows.append([said, *cells])
    return table(["ranking", "regret@1, %", "regret@3, %", "without kin: @1", "@3"], rows)


def compared(evidence: Evidence, group: str) -> str:
    """Which rankings' regret@1 can be told from that of what search ships, by the paired interval."""
    names = [name for name in in_order(evidence.at("rivals")) if name != OURS]
    found = {name: evidence.at(f"rivals/{group}/{name}/minus the default/regret@1") for name in names}
    told = {
        "lower regret@1 than hubrank": [name for name in names if found[name][2] < 0],
        "not to be told apart from it": [name for name in names if found[name][1] <= 0 <= found[name][2]],
        "higher": [name for name in names if found[name][1] > 0],
    }
    return "; ".join(f"{what}: {', '.join(map(shown, which)) or 'none'}" for what, which in told.items())


def costs(evidence: Evidence) -> str:
    """What each ranking asks for."""
    rows = []
    for name, cost in evidence.at("rivals/costs").items():
        runs = "yes" if cost["passes"] else "no"
        cells = [shown(name), "yes" if cost["tunes"] else "no", runs, size(cost["bytes"])]
        cells += ["" if cost[part] is None else f"{cost[part]:.2f} s" for part in ("before", "seconds")]
        rows.append(bold(name, [*cells, cost["needs"]]))
    heads = ["ranking", "tunes the target", "runs every source on your rows", "kept a source", "once a source"]
    heads.append("a target, all sources")
    return table([*heads, "needs besides"], rows)


def size(count: float) -> str:
    unit, scale = next((unit, scale) for unit, scale in (("MB", 1e6), ("kB", 1e3), ("B", 1)) if count >= scale or scale == 1)
    return f"{count / scale:.{0 if unit == 'B' else 1}f} {unit}"


def name_of(source: str) -> str:
    """A source's task, rank and sites."""
    task, _, shape = source.partition("-lora-")
    sites, rank = shape.split("-")[:2]
    return f"{task} {rank} {sites}"


def targets(evidence: Evidence) -> str:
    """Each target: no transfer, the best source, where hubrank put it, and what was lost."""
    rows = []
    for target in evidence.targets:
        truth, values = np.where(target.there, target.truth, -np.inf), evidence.values(OURS, target)
        best = int(truth.argmax())
        order = [np.argsort(-np.where(target.there, one, -np.inf), kind="stable") for one in values]
        firsts = dict.fromkeys(name_of(evidence.sources[one[0]]) for one in order)
        places = dict.fromkeys(str(int(np.flatnonzero(one == best)[0]) + 1) for one in order)
        fresh = float(np.nanmean(target.scratch[target.there]))
        cells = [target.name, f"{100 * fresh:.1f}", f"{name_of(evidence.sources[best])}{' (kin)' if target.kin[best] else ''}"]
        cells += [f"{100 * truth[best]:.1f}", ", ".join(places), ", ".join(firsts)]
        found = evidence.at(f"rivals/{WITH}/{OURS}/targets/{target.name}")
        others = evidence.at(f"rivals/{WITHOUT}/{OURS}/targets/{target.name}")
        rows.append([*cells, *(f"{100 * one[m]:.1f}" for one in (found, others) for m in ("regret@1", "regret@3"))])
    heads = ["target", "no transfer", "best source", "its metric", "its place", "first in the ranking"]
    return table([*heads, "regret@1", "@3", "without kin: @1", "@3"], rows)


def hubs(evidence: Evidence, most: int = 8) -> str:
    """Sources that stand among the first three of targets that are not of their kind, most often first."""
    count = {source: np.zeros(4) for source in evidence.sources}  # in the first three, in the best three, chances, gain
    for target in evidence.targets:
        stays = target.there & ~target.kin
        truth = np.where(stays, target.truth, -np.inf)
        values = evidence.values(OURS, target)
        for one in values:
            for kind, ranks in ((0, np.where(stays, one, -np.inf)), (1, truth)):
                for i in np.argsort(-ranks, kind="stable")[:3]:
                    count[evidence.sources[i]][kind] += 1 / len(values)
        for i in np.flatnonzero(stays):
            count[evidence.sources[i]][2:] += (1, target.truth[i] - target.scratch[i])
    order = sorted(count, key=lambda source: -count[source][0])[:most]
    rows = [
        [
            name_of(s),
            f"{count[s][2]:.0f}",
            f"{count[s][0]:.1f}",
            f"{count[s][1]:.0f}",
            f"{100 * count[s][3] / count[s][2]:+.1f}",
        ]
        for s in order
    ]
    return table(
        ["source", "targets not of its kind", "in hubrank's first three", "in the best three", "mean gain, points"], rows
    )


def verdict(evidence: Evidence) -> str:
    """How often the verdict says that something is related, and how well its figure tells."""
    said, auroc = evidence.at("verdict/said_related"), evidence.at("verdict/auroc")
    figure = next(iter(auroc))
    rows = [
        [
            zoo,
            *(f"{100 * share:.0f} %" for share in shares.values()),
            *(f"{auroc[figure][f'{zoo}, {what}']:.2f}" for what in list(shares)[:2]),
            f"{auroc[figure][zoo]:.2f}",
        ]
        for zoo, shares in said.items()
    ]
    heads = ["zoo", "said related: same task", "no more than the family; no kin", "nothing"]
    return table([*heads, "AUROC, same task", "the second alone", "both"], rows)


WEIGHT_NESTED = "nested, the weight of the rows alone"


def chosen(evidence: Evidence) -> str:
    """The shipped default beside what a nested choice takes, on both sets of sources."""
    rows = []
    for group in ("first", "second"):
        found = evidence.at(f"choose/{group}")
        for what in ("shipped", "averaged", "nested", WEIGHT_NESTED, "best in sample"):
            cells = [f"{value:.1f}" for key, value in found[what].items() if key != "candidate"]
            about = f" ({found[what]['candidate']})" if "candidate" in found[what] else ""
            name = "weight nested" if what == WEIGHT_NESTED else what
            rows.append([f"{group} set, {found['targets']} targets", name + about, *cells])
    return table(["sources", "ranking", "regret@1", "@3", "without kin: @1", "@3"], rows)


UNCHOSEN = {
    "first": "held-out targets, first set",
    "second": "held-out targets, second set",
    "1,000 rows": "1,000 rows, first set",
    "qa": "question answering",
}
UNCHOSEN_LINES = {
    "noise ceiling": "noise ceiling",
    "four-views": "**hubrank**",
    "four-views, as it was": "hubrank as it was",
    "three-views": "hubrank without the rows",
    "first-order LogME": "hubrank without tuning",
    "chance": "chance",
    "no transfer": "no transfer",
}
UNCHOSEN_RIVALS = ("LogME", "ESM-LogME", "TextEmb")


def unchosen(evidence: Evidence) -> str:
    """The shipped ranking where nothing was chosen."""
    rows = []
    for name, said in UNCHOSEN.items():
        matrix = evidence.at(f"unchosen/{name}")
        for line in (line for line in UNCHOSEN_LINES if line in matrix[WITH]):
            found = [matrix[group].get(line, {}).get(f"regret@{k}") for group in (WITH, WITHOUT) for k in (1, 3)]
            cells = ["" if one is None else interval([value / 100 for value in one]) for one in found]
            spearman = matrix[WITH][line]["spearman"]
            rows.append([said, UNCHOSEN_LINES[line], *cells, "" if spearman is None else f"{spearman[0]:.2f}"])
        for line in UNCHOSEN_RIVALS if name == "first" else ():
            found = [evidence.at(f"rivals_held_out/{group}/{line}/mean, low, high") for group in (WITH, WITHOUT)]
            cells = [interval(part[f"regret@{k}"]) for part in found for k in (1, 3)]
            rows.append([said, line, *cells, f"{found[0]['spearman'][0]:.2f}"])
    return table(["matrix", "ranking", "regret@1, %", "@3", "without kin: @1", "@3", "Spearman"], rows)


def peers(evidence: Evidence) -> str:
    """Two packages and hubrank in one run."""
    rows = []
    for name, line in evidence.at("peers/rankings").items():
        cells = [shown(name) if name != "hubrank" else "**hubrank**"]
        for group in (WITH, WITHOUT):
            cells += [f"{line[group][measure]['mean']:.1f}" for measure in ("regret@1", "regret@3")]
        cells.append(f"{line[WITH]['ndcg']['mean']:.3f}")
        seconds, kept = line.get("seconds", {}), line.get("bytes")
        cells += [f"{seconds[count]:.0f} s" if count in seconds else "" for count in ("30", "1000")]
        kept = kept["packed"] if isinstance(kept, dict) else kept
        rows.append([*cells, "" if kept is None else size(kept)])
    heads = ["ranking", "regret@1, %", "@3", "without kin: @1", "@3", "NDCG", "a target, 30 sources", "1,000 sources"]
    return table([*heads, "kept a source"], rows)


TABLES: Mapping[str, Callable[[Evidence], str]] = {
    "retrieval": retrieval,
    "prompts": prompts,
    "transfer": lambda evidence: transfer(evidence, WITH),
    "transfer without kin": lambda evidence: transfer(evidence, WITHOUT),
    "compared": lambda evidence: compared(evidence, WITH),
    "compared without kin": lambda evidence: compared(evidence, WITHOUT),
    "costs": costs,
    "targets": targets,
    "hubs": hubs,
    "verdict": verdict,
    "chosen": chosen,
    "bottlenecks": bottlenecks,
    "unchosen": unchosen,
    "peers": peers,
}
