"""Does the verdict know when nothing in the zoo is related, and when nothing in it would help?

    python bench/verdict.py --data DIR --tuned DIR [--transfer FILE.jsonl] [--work DIR] [--out bench/results/verdict.json]
    python bench/verdict.py --data DIR [--rows N] [--seed N] [--work DIR]

DIR of --data is laid out as for train_zoo.py, with an INDEX.tsv that names the families. Targets' adapters are taken from the
folder that transfer/targets.py filled (``--tuned``), a question for each of their seeds, or are tuned here, with the search's
own rule, on rows of each training file. Zoos are asked about every target, and there are two truths:

    by family      the example zoo, and a thinner one that has of every task one adapter, so that hardly any source has a
                   relative. Whole, something is related; without every adapter of the target's family (and of families that
                   share its texts) nothing is. Targets of families that a zoo lacks are asked once, and nothing is related.
    by transfer    the sources of the first LoRA matrix whose transfer to the target was measured (``--transfer``): all; all but
                   the target's kin; those that gain under 1 point on no transfer. Something helps where the best gains 3
                   points or more, nothing where it gains under 1; what lies between is not asked.

    AUROC        of a figure, over all those questions: how often it is higher where something is related; 0.5 is chance
    same task    the zoo has an adapter of the very task, trained on other rows of it or the same
    family only  it has none of the task, but of its family (as the data's index names families)
    pooled       over the questions of both zoos together
    first seed   over the targets tuned from the first seed only: the figure was chosen on those

Tuned signatures are kept in the work folder, as those of a search are, so that a second run takes seconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(1, str(Path(__file__).resolve().parent / "transfer"))  # its scripts import each other by name

import plan
from rivals import read_rows as read_transfer
from train_zoo import BASE, SOURCES, as_target, read_rows

from hubrank import Zoo, sync
from hubrank.benchmark.transfer import Transfer
from hubrank.checkpoints.peft_lora import read_lora
from hubrank.ranking.background import ENOUGH
from hubrank.ranking.rank import Yardstick, compare, measure
from hubrank.ranking.runs import Runs
from hubrank.ranking.search import SearchSettings
from hubrank.ranking.standardise import usual_cosines
from hubrank.ranking.verdict import BAR, chance, usual_scatter
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import find_base
from hubrank.types import Signature, Source
from hubrank.zoo.packed import pack
from hubrank.zoo.packed_files import open_packed

METHOD = "lora"
SHARED_TEXTS = {"clinc150": ("topic",), "clinc_domain": ("intent",), "subj": ("sentiment",), "mr": ("subjectivity",)}
LEFT_OUT = ("mrpc", "qqp")  # paraphrase: whether similarity is its family is a matter of taste
BY_TRANSFER, GAIN, NO_GAIN = "by transfer", 0.03, 0.01
MOST_TOKENS = 60  # a word a row on average beyond which tuning takes long, and tells nothing new


@dataclass(frozen=True, slots=True)
class Question:
    """A target and a zoo, whether anything in it is related, and the figures that could tell."""

    task: str
    seed: int
    zoo: str
    related: bool
    same_task: bool
    figures: dict[str, float]


class Silent:
    """Hears nothing."""

    def stage(self, message: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def note(self, message: str) -> None: ...
    def ranking(self, snapshot: object) -> None: ...


def families(data: Path) -> dict[str, str]:
    """Family of every task, by the names that the zoo's cards have."""
    with (data / "INDEX.tsv").open(encoding="utf-8") as file:
        found = {row["name"]: row["task_family"] for row in csv.DictReader(file, delimiter="\t")}
    return {**found, **{task: family for task, (family, *_) in SOURCES.items()}}


def figures(yardstick: Yardstick, signature: Signature) -> dict[str, float]:
    """The verdict's own figure, and others that it could have been."""
    found = compare(yardstick, signature)
    mutual = yardstick.mutual.cosines
    cosines = {view: of_view[found.usable] for view, of_view in yardstick.packed.cosines(found.target).items()}
    first = int(np.argmax(found.values))
    leads, above = {}, {}
    for view, rows in mutual.items():
        scatter = (usual_scatter(yardstick.mutual, view) or np.nan) * chance(len(found.usable))
        leads[view] = (cosines[view] - usual_cosines(rows[:, found.usable])) / scatter
        above[view] = (cosines[view] - np.median(cosines[view])) / scatter
    return {
        "prominence, compute (the verdict)": float(found.verdict.prominence or 0.0),
        "prominence, read": float(leads["read"].max()),
        "prominence, write": float(leads["write"].max()),
        "prominence, the three views together": float(sum(leads.values()).max()),
        "over the median of all sources, read (the rule before)": float(above["read"].max()),
        "over the median of all sources, compute": float(above["compute"].max()),
        "highest cosine, read": float(cosines["read"].max()),
        "highest cosine, compute": float(cosines["compute"].max()),
        "read cosine of the first source": float(cosines["read"][first]),
        "top score": float(found.scores.max()) if found.scores is not None else 0.0,
    }


def helped(
    matrix: Transfer, target: str, seed: int, signature: Signature, pairs: Sequence[tuple[Source, Signature]]
) -> list[Question]:
    """One target's questions by measured transfer."""
    measured = next((one for one in matrix.targets if one.name == target), None)
    if measured is None:
        return []
    by_name = {source.name: (source, its) for source, its in pairs}
    names = {source.name: source.zoo for source in plan.FIRST}
    gains = measured.truth - measured.scratch
    there = np.flatnonzero(measured.there)
    zoos = {False: there[~measured.kin[there]], None: there[gains[there] < NO_GAIN]}
    zoos |= {True: there} if measured.kin[there].any() else {}
    out = []
    for same, rows in zoos.items():
        best = float(gains[rows].max())
        if len(rows) < ENOUGH or NO_GAIN <= best < GAIN:
            continue
        zoo = [by_name[names[matrix.sources[i]]] for i in rows]
        found = figures(measure(pack(BASE, METHOD, 0, zoo)), signature)
        out.append(Question(target, seed, BY_TRANSFER, best >= GAIN, bool(same), found))
    return out


def thin(pairs: Sequence[tuple[Source, Signature]]) -> list[tuple[Source, Signature]]:
    """Of every task the first."""
    first = {str(source.task): (source, signature) for source, signature in reversed(pairs)}
    return list(first.values())


def ask(
    task: str, seed: int, signature: Signature, pairs: Sequence[tuple[Source, Signature]], family: dict[str, str]
) -> list[Question]:
    """One target's questions."""
    out = {family[task], *SHARED_TEXTS.get(task, ())}
    questions = []
    for name, zoo in (("example zoo", pairs), ("one a task", thin(pairs))):
        rest = [(source, its) for source, its in zoo if family[str(source.task)] not in out]
        if any(family[str(source.task)] == family[task] for source, _ in zoo):
            same = any(source.task == task for source, _ in zoo)
            questions.append(Question(task, seed, name, True, same, figures(measure(pack(BASE, METHOD, 0, zoo)), signature)))
        questions.append(Question(task, seed, name, False, False, figures(measure(pack(BASE, METHOD, 0, rest)), signature)))
    return questions


def auroc(related: Sequence[float], unrelated: Sequence[float]) -> float:
    """How often a related question has the higher figure; ties count half."""
    a, b = np.asarray(related)[:, None], np.asarray(unrelated)
    return float((a > b).mean() + 0.5 * (a == b).mean())


def summary(questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """AUROC of each figure over all questions, over those of the same task, and of the family only; by zoo, and pooled."""
    out: dict[str, dict[str, float]] = {}
    seeds = [q.seed for q in questions]
    for name in questions[0].figures:
        out[name] = {}
        for zoo in ("example zoo", "one a task", "pooled", "first seed", BY_TRANSFER, f"{BY_TRANSFER}, first seed"):
            asked = [q for q in questions if (q.zoo == BY_TRANSFER) is zoo.startswith(BY_TRANSFER)]
            asked = [q for q in asked if "first seed" not in zoo or q.seed == min(seeds)]
            asked = [q for q in asked if zoo not in ("example zoo", "one a task") or q.zoo == zoo]
            unrelated = [q.figures[name] for q in asked if not q.related]
            parts = {
                zoo: [q for q in asked if q.related],
                f"{zoo}, same task": [q for q in asked if q.related and q.same_task],
                f"{zoo}, family only" if not zoo.startswith(BY_TRANSFER) else f"{zoo}, no kin": [
                    q for q in asked if q.related and not q.same_task
                ],
            }
            for part, some in parts.items():
                if some and unrelated:
                    out[name][part] = round(auroc([q.figures[name] for q in some], unrelated), 3)
    return out


def second_seed(questions: Sequence[Question]) -> dict[str, float]:
    """AUROC of the verdict's figure over targets tuned from the other seeds than the first, which it was chosen on."""
    rest = [q for q in questions if q.seed != min(other.seed for other in questions)]
    out = {}
    for truth in ("by family, same task", BY_TRANSFER):
        asked = [q for q in rest if (q.zoo == BY_TRANSFER) is (truth == BY_TRANSFER)]
        related = [q for q in asked if q.related and (q.same_task or truth == BY_TRANSFER)]
        values = [[next(iter(q.figures.values())) for q in some] for some in (related, [q for q in asked if not q.related])]
        if all(values):
            out[truth] = round(auroc(*values), 3)
    return out


def said_related(questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """How often the verdict says that something is related, by what is."""
    out: dict[str, dict[str, float]] = {}
    for zoo in ("example zoo", "one a task", BY_TRANSFER):
        asked = [q for q in questions if q.zoo == zoo]
        kinds = {
            "same task": [q for q in asked if q.related and q.same_task],
            "family only" if zoo != BY_TRANSFER else "no kin": [q for q in asked if q.related and not q.same_task],
            "nothing": [q for q in asked if not q.related],
        }
        out[zoo] = {
            kind: round(float(np.mean([next(iter(q.figures.values())) >= BAR for q in some])), 3)
            for kind, some in kinds.items()
            if some
        }
    return out


def bar_held_out(questions: Sequence[Question]) -> dict[str, float | list[float]]:
    """The verdict's bar chosen without each target, by measured transfer, and what it then says of that target.

    Chosen for the mean of two rates: of zoos in which something helps that are told so, and of the others that are.
    """
    values = np.array([next(iter(q.figures.values())) for q in questions])
    helps = np.array([q.related for q in questions])
    tasks, said, bars = np.array([q.task for q in questions]), np.zeros(len(questions), bool), []
    for task in sorted(set(tasks)):
        rest = tasks != task
        steps = np.unique(values[rest])
        between = (steps[1:] + steps[:-1]) / 2
        gains = [(values[rest & helps] >= bar).mean() - (values[rest & ~helps] >= bar).mean() for bar in between]
        bars.append(float(between[int(np.argmax(gains))]))
        said[tasks == task] = values[tasks == task] >= bars[-1]
    return {
        "bars": [round(min(bars), 3), round(max(bars), 3)],
        "helps": round(float(said[helps].mean()), 3),
        "nothing": round(float(said[~helps].mean()), 3),
    }


@dataclass(frozen=True, slots=True)
class TunedTarget:
    """A target's signature, and what it took; nothing where somebody else tuned it."""

    task: str
    seed: int
    signature: Signature
    steps: int | None = None
    seconds: float | None = None


def tuned_before(folder: Path) -> Iterator[TunedTarget]:
    """What transfer/targets.py left: LoRAs on query and value, tuned for 75 steps."""
    for file in sorted(folder.glob("*-75-*.safetensors")):
        task, _, seed = file.stem.partition("-75-")
        config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16.0, "target_modules": ["query", "value"]}
        yield TunedTarget(task, int(seed), sign_adapter(read_lora(config, load_file(file), BASE)))


def tuned_now(options: argparse.Namespace, family: dict[str, str], yardstick: Yardstick) -> Iterator[TunedTarget]:
    """Every task of the data, tuned as a search does."""
    for task in sorted(family):
        if task in LEFT_OUT or (options.only and task not in options.only):
            continue
        rows = read_rows(options.data, task, "train")
        chosen = sorted(np.random.default_rng(options.seed).permutation(len(rows))[: options.rows])
        rows = [rows[i] for i in chosen]
        if np.mean([len(str(row).split()) for row in rows]) > MOST_TOKENS:
            continue
        settings = SearchSettings(seed=options.seed)
        target, base = as_target(task, rows), find_base(BASE)
        runner = Runs(target, base, options.work, settings, device="cpu", dtype="float32", listener=Silent())
        signature = runner.run(yardstick, options.seed, None, 1, True)
        (run,) = runner.done
        yield TunedTarget(task, options.seed, signature, run.steps, run.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1000, help="of tuning; the zoo's seeds are below 100")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "hubrank-verdict")
    parser.add_argument("--transfer", type=Path, default=Path(__file__).resolve().parent / "transfer" / "rows-lora.jsonl")
    parser.add_argument("--tuned", type=Path, help="of transfer/targets.py; nothing is tuned then")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    family = families(options.data)
    sync(["examples/zoo"], cache_dir=options.work)
    matrix = read_transfer(options.transfer, "first", 200)
    questions: list[Question] = []
    done: list[TunedTarget] = []
    with Zoo(options.work) as zoo:
        packed = open_packed(zoo, BASE, METHOD)
        pairs = [(source, zoo.signature(source)) for source in packed.sources]
        targets = tuned_now(options, family, measure(packed)) if options.tuned is None else tuned_before(options.tuned)
        for target in targets:
            if target.task in LEFT_OUT:
                continue
            done.append(target)
            questions += ask(target.task, target.seed, target.signature, pairs, family)
            if options.tuned is not None:  # on the very rows that transfer was measured with
                questions += helped(matrix, target.task, target.seed, target.signature, pairs)
            latest = {name: round(value, 3) for name, value in questions[-1].figures.items()}
            print(f"{target.task} {target.seed}: without its family {latest}", flush=True)
    how = "--tuned DIR" if options.tuned is not None else f"--rows {options.rows} --seed {options.seed}"
    result = {
        "command": f"python bench/verdict.py --data DIR {how}",
        "targets": len({target.task for target in done}),
        "tuned": len(done),
        "questions": {
            truth: {
                kind: sum(q.related is so for q in questions if (q.zoo == BY_TRANSFER) is (truth == BY_TRANSFER))
                for kind, so in (("related", True), ("unrelated", False))
            }
            for truth in ("by family", BY_TRANSFER)
        },
        "bar": BAR,
        "auroc_second_seed": second_seed(questions),
        "said_related": said_related(questions),
        **({"bar_held_out": bar_held_out(measured)} if (measured := [q for q in questions if q.zoo == BY_TRANSFER]) else {}),
        "auroc": summary(questions),
    }
    if options.tuned is None:
        result["steps_mean"] = round(float(np.mean([target.steps for target in done])), 1)
        result["seconds_mean"] = round(float(np.mean([target.seconds for target in done])), 1)
    print(json.dumps(result, indent=2))
    if options.out is not None:
        rounded = [{**asdict(q), "figures": {k: round(float(v), 4) for k, v in q.figures.items()}} for q in questions]
        options.out.write_text(json.dumps({**result, "asked": rounded}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
