"""Does the verdict know when nothing in the zoo is related?

    python bench/verdict.py --data DIR [--rows N] [--seed N] [--work DIR] [--out bench/results/verdict.json]

Every target is tuned once, with the search's own rule, on rows of its training file; DIR is laid out as for train_zoo.py,
with an INDEX.tsv that names the families. Then the zoo is asked about it twice: whole, and without every adapter of the
target's family (and of families that share its texts). The second time nothing is related. Targets of families that the
zoo lacks are asked once, and nothing is related either.

    AUROC        of a figure, over all those questions: how often it is higher where something is related; 0.5 is chance
    same task    the zoo has an adapter of the very task, trained on other rows of it or the same
    family only  it has none of the task, but of its family (as the data's index names families)

Tuned signatures are kept in the work folder, as those of a search are, so that a second run takes seconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from train_zoo import BASE, SOURCES, as_target, read_rows

from hubrank import Zoo, sync
from hubrank.ranking.rank import Yardstick, compare, measure
from hubrank.ranking.runs import Runs
from hubrank.ranking.search import SearchSettings
from hubrank.ranking.verdict import BAR
from hubrank.signatures.basis import energy_kept
from hubrank.target.base import find_base
from hubrank.types import Signature, Source
from hubrank.zoo.packed import pack
from hubrank.zoo.packed_files import open_packed

METHOD = "lora"
SHARED_TEXTS = {"clinc150": ("topic",), "clinc_domain": ("intent",), "subj": ("sentiment",), "mr": ("subjectivity",)}
LEFT_OUT = ("mrpc", "qqp")  # paraphrase: whether similarity is its family is a matter of taste
MOST_TOKENS = 60  # a word a row on average beyond which tuning takes long, and tells nothing new


@dataclass(frozen=True, slots=True)
class Question:
    """A target and a zoo, whether anything in it is related, and the figures that could tell."""

    task: str
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


def figures(yardstick: Yardstick, pairs: Sequence[tuple[Source, Signature]], signature: Signature) -> dict[str, float]:
    """The verdict's own figure, and three that it could have been."""
    found = compare(yardstick, signature)
    mutual = yardstick.mutual.cosines
    usual = np.median(np.nanmax(mutual["compute"], axis=1))
    cosines = yardstick.packed.cosines(found.target)["compute"]
    small = measure(pack(BASE, METHOD, 0, pairs, p=32))
    energy = energy_kept(compare(small, signature).target, ("compute", "read", "write"))
    return {
        "prominence in the read view (the verdict)": float(found.verdict.prominence or 0.0),
        "nearest compute cosine, as part of the usual": float(cosines.max() / usual),
        "top score": float(found.scores.max()) if found.scores is not None else 0.0,
        "energy kept by 32 directions a side": energy,
    }


def ask(task: str, signature: Signature, zoo: Zoo, family: dict[str, str]) -> list[Question]:
    """One target's questions."""
    packed = open_packed(zoo, BASE, METHOD)
    pairs = [(source, zoo.signature(source)) for source in packed.sources]
    of_source = [family[str(source.task)] for source in packed.sources]
    mine = family[task]
    questions = []
    if mine in of_source:
        same = any(source.task == task for source in packed.sources)
        questions.append(Question(task, True, same, figures(measure(packed), pairs, signature)))
    out = {mine, *SHARED_TEXTS.get(task, ())}
    rest = [pair for pair, its in zip(pairs, of_source, strict=True) if its not in out]
    questions.append(Question(task, False, False, figures(measure(pack(BASE, METHOD, 0, rest)), rest, signature)))
    return questions


def auroc(related: Sequence[float], unrelated: Sequence[float]) -> float:
    """How often a related question has the higher figure; ties count half."""
    a, b = np.asarray(related)[:, None], np.asarray(unrelated)
    return float((a > b).mean() + 0.5 * (a == b).mean())


def summary(questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """AUROC of each figure over all questions, over those of the same task, and of the family only."""
    out = {}
    for name in questions[0].figures:
        unrelated = [q.figures[name] for q in questions if not q.related]
        parts = {
            "auroc": [q for q in questions if q.related],
            "auroc_same_task": [q for q in questions if q.related and q.same_task],
            "auroc_family_only": [q for q in questions if q.related and not q.same_task],
        }
        out[name] = {part: round(auroc([q.figures[name] for q in some], unrelated), 3) for part, some in parts.items() if some}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1000, help="of tuning; the zoo's seeds are below 100")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "hubrank-verdict")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    family = families(options.data)
    sync(["examples/zoo"], cache_dir=options.work)
    questions: list[Question] = []
    steps, seconds = [], []
    with Zoo(options.work) as zoo:
        yardstick = measure(open_packed(zoo, BASE, METHOD))
        for task in sorted(family):
            if task in LEFT_OUT or (options.only and task not in options.only):
                continue
            rows = read_rows(options.data, task, "train")
            chosen = sorted(np.random.default_rng(options.seed).permutation(len(rows))[: options.rows])
            rows = [rows[i] for i in chosen]
            if np.mean([len(str(row).split()) for row in rows]) > MOST_TOKENS:
                continue
            target = as_target(task, rows)
            settings = SearchSettings(seed=options.seed)
            runner = Runs(target, find_base(BASE), options.work, settings, device="cpu", dtype="float32", listener=Silent())
            started = time.perf_counter()
            signature = runner.run(yardstick, options.seed, None, 1, True)
            (run,) = runner.done
            steps.append(run.steps)
            seconds.append(run.seconds)
            questions += ask(task, signature, zoo, family)
            latest = {name: round(value, 3) for name, value in questions[-1].figures.items()}
            print(f"{task}: {run.steps} steps, {time.perf_counter() - started:.0f} s; without its family {latest}", flush=True)
    shipped = next(iter(questions[0].figures))
    decided = [(q.related, q.figures[shipped] >= BAR) for q in questions]
    result = {
        "command": f"python bench/verdict.py --data DIR --rows {options.rows} --seed {options.seed}",
        "targets": len(steps),
        "questions_related": sum(q.related for q in questions),
        "questions_unrelated": sum(not q.related for q in questions),
        "steps_mean": round(float(np.mean(steps)), 1),
        "seconds_mean": round(float(np.mean(seconds)), 1),
        "bar": BAR,
        "said_related_where_it_is": round(float(np.mean([said for is_so, said in decided if is_so])), 3),
        "said_related_where_it_is_not": round(float(np.mean([said for is_so, said in decided if not is_so])), 3),
        "figures": summary(questions),
        "questions": [
            {
                "task": q.task,
                "related": q.related,
                "same_task": q.same_task,
                "figures": {k: round(v, 4) for k, v in q.figures.items()},
            }
            for q in questions
        ],
    }
    text = json.dumps(result, indent=2)
    print(text if options.out is None else json.dumps({k: v for k, v in result.items() if k != "questions"}, indent=2))
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
