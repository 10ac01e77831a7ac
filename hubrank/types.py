"""The frozen dataclasses that cross from room to room. No torch, no I/O; numpy only in annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hubrank.ranking.explain import Explanation

    FloatArray: TypeAlias = NDArray[np.float32]
    Int8Array: TypeAlias = NDArray[np.int8]

__all__ = [
    "Adapter",
    "CardFacts",
    "Delta",
    "Factors",
    "MethodRun",
    "Metric",
    "Ranking",
    "Scored",
    "Signature",
    "Site",
    "Source",
    "SyncPlan",
    "SyncReport",
    "TargetRun",
    "Verdict",
    "Verified",
    "View",
]

View: TypeAlias = Literal["compute", "read", "write"]


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One module of one layer that an adapter changes.

    Attributes:
        stack: ``encoder``, ``decoder``, or ``""`` where the model has only one stack.
        layer: from 0; -1 for modules outside the layers, such as embeddings.
        module: the module's path inside its layer, such as ``attention.self.query``.
        reads: name of the hidden space the module reads, shared by all modules of the layer that read it.
        writes: name of the space it writes into.
    """

    stack: str
    layer: int
    module: str
    reads: str = field(compare=False)
    writes: str = field(compare=False)

    def __str__(self) -> str:
        return ".".join(part for part in (self.stack, str(self.layer), self.module) if part)


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What an adapter adds at one site: ``up @ down``, every scale already inside.

    Attributes:
        down: [r, d_in] float32; r may be 0 where an adapter only shifts.
        up: [d_out, r] float32.
        shift: [d_out] float32 added whatever the input, or None.
        spectrum: where ``up @ down`` is only the largest part of the update, all its singular values, [n] float32, falling.
    """

    site: Site
    down: FloatArray
    up: FloatArray
    shift: FloatArray | None = None
    spectrum: FloatArray | None = None

    @property
    def rank(self) -> int:
        """Of the whole update, at most."""
        return len(self.down) if self.spectrum is None else len(self.spectrum)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that a card states."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a model card says, shortened and stripped of control characters; none of it is verified."""

    task: str | None = None
    datasets: tuple[str, ...] = ()
    license: str | None = None
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A published adapter.

    Attributes:
        hub: ``hf`` (AdapterHub's too), ``zips``, ``zips:WHERE`` or ``folder:PATH``.
        repo: ``org/name``.
        revision: commit sha, or for a folder the sha1 of the files that were read, or of what an index says.
        subfolder: where in the repository the adapter lies; None for its root.
        branch: which branch it is on; None for the default one.
        base: id of the base model the adapter was trained on.
        method: the group of methods whose updates can be compared, such as ``lora``.
        rank: the largest rank among its sites.
        card: what its card says.
        warnings: what a user should know before trusting it.
        location: for a folder hub, the adapter's folder; of a zip file, its address and after a ``#`` its hashes.
        gone: no longer upstream.
        variant: the method in full, such as ``loha``; empty where ``method`` says it all.
        part: where one file holds several methods that were trained together, which of them after the first; else None.
        files: (name, hash) of each file that was read, and (name, "") of each that might have been; () in older records.
        card_base: the base model that its card names.
        reader: version of the reader that read it; 0 in older records.
        read_at: when it was read, in whole seconds since 1970; 0 in older records. Two sources that differ only here are equal.
    """

    hub: str
    repo: str
    revision: str
    subfolder: str | None
    base: str
    method: str
    rank: int
    card: CardFacts = CardFacts()
    warnings: tuple[str, ...] = ()
    location: str | None = None
    gone: bool = False
    variant: str = ""
    part: str | None = None
    branch: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    card_base: str | None = None
    reader: int = 0
    read_at: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """``org/name`` or ``org/name/subfolder``; ``@branch`` off the default one, ``#part`` of several in a file."""
        whole = f"{self.repo}/{self.subfolder}" if self.subfolder else self.repo
        return whole + (f"@{self.branch}" if self.branch else "") + (f"#{self.part}" if self.part else "")

    @property
    def full_method(self) -> str:
        """The method, and the variant where that says more."""
        return f"{self.method} ({self.variant})" if self.variant and self.variant != self.method else self.method

    @property
    def task(self) -> str | None:
        """The task its card names."""
        return self.card.task


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter as read from its files: where it applies and what it changes there.

    Attributes:
        base: id of the base model that its config names.
        method: the group of methods whose deltas can be compared, such as ``lora``.
        deltas: in the order of their sites.
        warnings: what a user should know before trusting it.
        variant: the method in full, such as ``loha``; empty where ``method`` says it all.
    """

    base: str
    method: str
    deltas: tuple[Delta, ...]
    warnings: tuple[str, ...] = ()
    variant: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The canonical factors of one site's update: ``U diag(S) V^T``, truncated to the largest k singular values.

    Attributes:
        u: [d_out, k] float32, orthonormal columns (up to rounding).
        s: [k] float32, falling.
        v: [d_in, k] float32, orthonormal columns.
        spectrum: [r] float32, all singular values before truncation; the norms of every view follow from it.
    """

    site: Site
    u: FloatArray
    s: FloatArray
    v: FloatArray
    spectrum: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """What the zoo keeps of an adapter: canonical factors per site, in the order of their sites."""

    factors: tuple[Factors, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the adapter applies."""
        return tuple(factors.site for factors in self.factors)


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of a ranking.

    ``layers`` is the mean similarity of each layer, None where the two share no site; ``interval`` the best and the worst
    place under any of several seeds, None for a single one. ``evidence`` says how well
    what the source makes of the target's rows to first order explains their labels (:mod:`hubrank.ranking.first_order`), None
    where that was not asked. ``logme`` and ``rerank_score`` are None for a source that was not run
    (:mod:`hubrank.ranking.rerank`).
    """

    rank: int
    source: Source
    value: float
    score: float | None
    similarity: float
    layers: tuple[float | None, ...]
    coverage: float
    warnings: tuple[str, ...] = ()
    interval: tuple[int, int] | None = None
    evidence: float | None = None
    logme: float | None = None
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What tuning on the target from one start gave on rows that were held out.

    Attributes:
        source: whose adapter was the start; None for a fresh one, "from scratch".
        shape: of the adapter, in words; a source is held against the fresh adapter of its own shape.
        metric: what was measured, as :data:`hubrank.target.scoring.METRICS` names it.
        value, spread: mean and standard deviation over the folds; the spread is None where there is one fold.
        gain: how much better than from scratch on the same folds, positive where it is better, whatever the metric.
        gain_error: standard error of the gain, corrected for folds that share the rows they tune on.
        seeds: folds, each tuned with a seed of its own.
        steps: of tuning, in each fold.
    """

    source: Source | None
    shape: str
    metric: str
    value: float
    spread: float | None
    gain: float | None
    gain_error: float | None
    seeds: int
    steps: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether anything in the zoo is related to the target, and the figures that say so.

    ``prominence`` is how far the nearest source stands out, as part of what the nearest of as many unrelated ones would by
    chance (:mod:`hubrank.ranking.verdict` has the bar); None for a zoo too small.
    """

    relevant: bool
    why: str
    prominence: float | None = None


@dataclass(frozen=True, slots=True)
class MethodRun:
    """The target as it was tuned by one method with one seed.

    Attributes:
        method, seed, sources: which, and how many sources it was compared with.
        steps, planned: done, and of how many.
        stopped: ``stable`` (the ranking had settled), ``steps`` (all done) or ``budget`` (the time was up).
        cached: it had been tuned before.
        seconds: of tuning.
        overlap: rank-biased overlap of the last two snapshots; None where there were fewer, or from the cache.
        energy: part of its norm that the zoo's basis holds.
    """

    method: str
    seed: int
    sources: int
    steps: int
    planned: int
    stopped: str
    cached: bool
    seconds: float
    overlap: float | None
    energy: float


@dataclass(frozen=True, slots=True)
class TargetRun:
    """The target as it was tuned: what was read, for how many steps, in how many seconds, on which device."""

    path: str
    examples: int
    task: str
    labels: int
    steps: int
    seconds: float
    device: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """The zoo, ordered by predicted transfer to the target.

    Attributes:
        base: id of the base model; ``base_folder`` where the user gave a folder for it.
        estimator: name of what ordered the rows.
        sources, compared, skipped: how many sources the zoo has, how many the rows were chosen from, and why not the others.
        rows: best first, as many as were asked for.
        energy: part of the target's own norm that the zoo's basis holds, from 0 to 1; low means unlike anything in the zoo.
        notes: what the user should know of the run, one sentence each.
        signature: the target's own, for who draws it among the sources.
        runs: how the target was tuned, method by method and seed by seed.
        verified: what tuning from the first sources gave, best first, with the fresh adapters of their shapes among them;
            empty where nobody asked.
        explanations: why rows stand where they stand, of those that were asked for.
    """

    base: str
    base_folder: str | None
    methods: tuple[str, ...]
    estimator: str
    target: TargetRun
    sources: int
    compared: int
    skipped: Mapping[str, int]
    rows: tuple[Scored, ...]
    verdict: Verdict
    energy: float
    notes: tuple[str, ...] = ()
    runs: tuple[MethodRun, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    signature: Signature | None = field(default=None, compare=False, repr=False)
    verified: tuple[Verified, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync would do, found out by listing alone; no adapter was read.

    Attributes:
        new, changed, gone, unchanged: names of adapters. A changed one is read again only where the files that matter changed.
        skipped: names of those that are not read: known to be unreadable at their revision, or not of what is asked for.
        requests: about as many as the sync would make: those of listing, and at most three for each adapter to be read;
            base models, which a few methods need, come on top.
        bytes: of the files that would be read, at most: sizes where the hub lists them, else all that the repository holds.
        unsized: adapters of which the hub says neither; ``bytes`` leaves them out.
        failed: (hub, why) of each hub that could not be listed to its end.
        not_asked: hubs that an offline sync leaves alone.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    requests: int = 0
    bytes: int = 0
    unsized: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    not_asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        added, updated, unchanged: adapters. One whose repository moved while its files and its card stayed is unchanged.
        removed: sources marked as gone.
        skipped: adapters by reason; ``skips`` names each, with its reason and what exactly was wrong.
        requests: asked of hubs; a redirect is not counted.
        bytes_read, bytes_whole: of weights, configs and cards; what plain downloads of the same files would have read.
        base_requests, base_bytes: those of ``requests`` and ``bytes_read`` that went for tensors of base models.
        failed: (hub, why) of each hub that did not answer to the end; what was read of it until then is kept.
        not_asked: hubs that an offline sync left alone.
    """

    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    bytes_read: int = 0
    bytes_whole: int = 0
    seconds: float = 0.0
    skips: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    not_asked: tuple[str, ...] = ()
    base_requests: int = 0
    base_bytes: int = 0
