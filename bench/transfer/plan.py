"""What is measured: the sources, the targets and every run, in the order in which they are done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SITES = {
    "qv": ("query", "value"),
    "qkv": ("query", "key", "value"),
    "qvo": ("query", "value", "attention.output.dense"),
    "all": ("query", "value", "intermediate.dense", "output.dense"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What an adapter looks like before it is trained; the no-transfer rows are measured once per shape.

    Attributes:
        method: ``lora``, ``bottleneck`` or ``qa`` (a LoRA under a span head).
        sites: a key of SITES, or ``pfeiffer``.
        rank: of every LoRA, or the reduction factor of a bottleneck.
        alpha: the update of a LoRA is scaled by alpha / rank; 0 for a bottleneck.
    """

    method: str
    sites: str
    rank: int
    alpha: float

    def __str__(self) -> str:
        return f"{self.method}-{self.sites}-r{self.rank}" + (f"-a{self.alpha:g}" if self.alpha else "")


@dataclass(frozen=True, slots=True)
class Source:
    """One source adapter: where it came from and how it was, or is to be, trained.

    ``zoo`` is its folder below the example zoo; a source without one is trained by the runner with ``steps`` steps at
    ``rate``, batches of 32 (qa: 16).
    """

    task: str
    shape: Shape
    seed: int
    steps: int = 200
    rate: float = 1e-3
    zoo: str = ""

    @property
    def name(self) -> str:
        return f"{self.task}-{self.shape}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark; ``source`` is None for the no-transfer row of ``shape``."""

    method: str
    group: str
    shape: Shape
    source: Source | None
    target: str
    rows: int
    seed: int

    @property
    def key(self) -> str:
        start = self.source.name if self.source else f"none-{self.shape}"
        return f"{start}|{self.target}|{self.rows}|{self.seed}"


def zoo_source(family: str, task: str, rank: int, sites: str, seed: int, *, alpha: float = 0.0) -> Source:
    name = f"minilm-{task.replace('_', '-')}-lora-r{rank}-{sites}-s{seed}"
    return Source(task, Shape("lora", sites, rank, alpha or 2.0 * rank), seed, zoo=f"example-{family}/{name}")


def trained_lora(task: str, rank: int, sites: str, seed: int, *, steps: int = 200, rate: float = 1e-3) -> Source:
    return Source(task, Shape("lora", sites, rank, 2.0 * rank), seed, steps, rate)


FIRST = (
    zoo_source("citation-intent", "citation_intent", 8, "qv", 29),
    zoo_source("emoji-prediction", "tweet_emoji", 8, "qv", 25),
    zoo_source("emotion", "tweet_emotion", 8, "qv", 21),
    zoo_source("intent", "clinc150", 4, "qv", 34),
    zoo_source("metaphor", "metaphor_svo", 8, "qv", 50),
    zoo_source("nli", "cb", 8, "qv", 49),
    zoo_source("nli", "med_monotonicity", 16, "qv", 46, alpha=32.0),
    zoo_source("nli", "scitail", 4, "qkv", 48),
    zoo_source("nli", "scitail", 8, "qv", 47),
    zoo_source("question-type", "trec6", 16, "qv", 20, alpha=16.0),
    zoo_source("scientific-relations", "chemprot", 4, "qkv", 31),
    zoo_source("scientific-relations", "sciie_relation", 8, "qv", 32),
    zoo_source("sentiment", "absa_laptop", 8, "qv", 36),
    zoo_source("sentiment", "absa_twitter", 8, "qv", 37),
    zoo_source("sentiment", "mpqa", 4, "qv", 16),
    zoo_source("sentiment", "mr", 16, "qv", 14),
    zoo_source("sentiment", "sst2", 4, "qkv", 12),
    zoo_source("sentiment", "sst5", 8, "qv", 13),
    zoo_source("sentiment", "tweet_sentiment", 16, "qv", 27),
    zoo_source("similarity", "sts_semeval", 16, "qv", 39),
    zoo_source("stance", "tweet_stance", 8, "qv", 28),
    zoo_source("subjectivity", "subj", 8, "qkv", 18),
    zoo_source("topic", "clinc_domain", 8, "qv", 35),
    zoo_source("toxicity", "tweet_offensive", 4, "qvo", 24),
)
"""The 24 LoRA sources of the first set: all 14 families of the example zoo, mixed seeds, ranks and sites."""

SECOND = (
    zoo_source("intent", "clinc150", 8, "qv", 33),
    zoo_source("nli", "med_monotonicity", 8, "qv", 45),
    zoo_source("question-type", "trec6", 8, "qv", 19),
    zoo_source("scientific-relations", "chemprot", 8, "qv", 30),
    zoo_source("sentiment", "mpqa", 8, "qv", 15),
    zoo_source("sentiment", "sst2", 8, "qv", 11),
    zoo_source("sentiment", "tweet_sentiment", 8, "qv", 26),
    zoo_source("similarity", "sts_semeval", 8, "qv", 38),
    zoo_source("subjectivity", "subj", 8, "qv", 17),
    zoo_source("toxicity", "tweet_offensive", 8, "qv", 23),
    trained_lora("citation_intent", 4, "qkv", 61, rate=2e-3),
    trained_lora("tweet_emoji", 16, "qv", 62),
    trained_lora("tweet_emotion", 4, "qvo", 63),
    trained_lora("metaphor_svo", 4, "qv", 64, steps=150),
    trained_lora("cb", 4, "qkv", 65, steps=150),
    trained_lora("scitail", 8, "all", 66),
    trained_lora("scitail", 16, "qv", 67),
    trained_lora("sciie_relation", 4, "all", 68, steps=400),
    trained_lora("absa_laptop", 4, "qvo", 69),
    trained_lora("absa_twitter", 16, "qv", 70, rate=5e-4),
    trained_lora("mr", 4, "all", 71),
    trained_lora("sst5", 4, "qkv", 72),
    trained_lora("tweet_stance", 4, "qv", 73),
    trained_lora("clinc_domain", 8, "qkv", 74, rate=7e-4),
)
"""The same tasks as FIRST, trained from other seeds, at other ranks and sites."""

PFEIFFER = Shape("bottleneck", "pfeiffer", 16, 0.0)
BOTTLENECK = tuple(
    Source(task, PFEIFFER, 80 + i, steps=steps)
    for i, (task, steps) in enumerate(
        (
            ("clinc150", 300), ("chemprot", 200), ("sst2", 200), ("mpqa", 200), ("tweet_sentiment", 200),
            ("tweet_offensive", 200), ("tweet_emotion", 200), ("scitail", 200), ("sts_semeval", 200), ("trec6", 200),
            ("med_monotonicity", 400), ("subj", 200),
        )
    )
)  # fmt: skip

QA_SHAPE = Shape("qa", "qv", 8, 16.0)
QA_TASKS = ("xquad_en", "policyqa", "covidqa", "nq_qed", "friendsqa", "tatqa_text", "quoref_contrast", "restaurant8k_qa")
QA = tuple(Source(task, QA_SHAPE, 100 + i, steps=300) for i, task in enumerate(QA_TASKS))

SOURCE_TASKS = tuple(sorted({source.task for source in (*FIRST, *SECOND, *BOTTLENECK)}))
"""Every task that a source of any matrix is trained on. A target's rows are drawn so that none of them saw them."""

TARGETS = (
    "clinc_domain", "ag_news", "mrpc", "qqp", "sick_e", "meld_sentiment", "tweet_hate", "sciie_relation", "tweet_sentiment",
    "trec6", "sts_semeval", "tweet_emotion", "chemprot", "sst5", "subj", "tweet_stance",
)  # fmt: skip
LARGE_TARGETS = ("banking77", "ag_news", "qqp", "sick_e", "meld_sentiment", "tweet_hate")
TWICE = ("banking77", "meld_sentiment")
"""Those of LARGE_TARGETS with the shortest texts; they have a second seed, and so a noise ceiling."""
BOTTLENECK_TARGETS = (
    "clinc_domain", "ag_news", "qqp", "sick_e", "tweet_sentiment", "tweet_hate", "trec6", "sts_semeval", "tweet_emotion", "sst5",
)  # fmt: skip

HELD_OUT = (
    "absa_twitter", "anli_r3", "banking77", "cola", "emorynlp_emotion", "mpqa", "mr", "rte", "sst2", "tweet_emoji",
    "tweet_offensive",
)  # fmt: skip
"""Targets that nothing had been chosen on when they were measured: every other task that has 200 rows which no source saw, but
those of which one class is more than three quarters of the rows, or that have more classes than half of their rows."""

SAME_CORPUS = frozenset({frozenset({"sst2", "sst5"}), frozenset({"clinc150", "clinc_domain"})})
"""Tasks that label the same corpus along the same splits: no row is shared, but the texts are of one kind."""


def kinship(source: str, target: str) -> str:
    """``same task``, ``same corpus`` or nothing: what a benchmark may want to leave out though no text is shared."""
    if source == target:
        return "same task"
    return "same corpus" if frozenset({source, target}) in SAME_CORPUS else ""


def steps_for(rows: int) -> int:
    """Steps of the target's tuning: 36 for 200 rows, and as many passes for more."""
    return round(36 * rows / 200)


def matrix(group: str, sources: tuple[Source, ...], targets: tuple[str, ...], rows: int, seed: int) -> Iterator[Run]:
    """All runs of one seed: for each target the no-transfer row of every shape, then every source."""
    shapes = tuple(dict.fromkeys(source.shape for source in sources))
    for target in targets:
        for shape in shapes:
            yield Run(shape.method, group, shape, None, target, rows, seed)
        for source in sources:
            yield Run(source.shape.method, group, source.shape, source, target, rows, seed)


def all_runs() -> list[Run]:
    """Every run in the order in which it is done: one seed of a matrix is complete before the next begins.

    A no-transfer row that two matrices share stands once.
    """
    parts = (
        matrix("first", FIRST, TARGETS, 200, 0),
        matrix("first", FIRST, TARGETS, 200, 1),
        matrix("second", SECOND, TARGETS, 200, 0),
        matrix("bottleneck", BOTTLENECK, BOTTLENECK_TARGETS, 200, 0),
        matrix("bottleneck", BOTTLENECK, BOTTLENECK_TARGETS, 200, 1),
        matrix("first", FIRST, TARGETS, 200, 2),
        matrix("first", FIRST, LARGE_TARGETS, 1000, 0),
        matrix("qa", QA, QA_TASKS, 200, 0),
        matrix("qa", QA, QA_TASKS, 200, 1),
        matrix("second", SECOND, TARGETS, 200, 1),
        matrix("second", SECOND, TARGETS, 200, 2),
        *(matrix("first-held-out", FIRST, HELD_OUT, 200, seed) for seed in range(3)),
        *(matrix("second-held-out", SECOND, HELD_OUT, 200, seed) for seed in range(3)),
        *(matrix("first", FIRST, TARGETS, 200, seed) for seed in range(3, 6)),
        *(matrix("second", SECOND, TARGETS, 200, seed) for seed in range(3, 6)),
        matrix("first", FIRST, TWICE, 1000, 1),
    )
    runs: dict[str, Run] = {}
    for part in parts:
        for run in part:
            runs.setdefault(run.key, run)
    return list(runs.values())
