"""What a user could pick instead, from arrays: the values that each rival gives the sources for a target, and what they cost.

Nothing here runs a model; :mod:`hubrank.benchmark.run_sources` makes the arrays. A rival whose arrays nobody has is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hubrank.benchmark.judge import Cost
from hubrank.ranking.rivals.embeddings import delta_activations, flattened, task_embedding, text_embedding
from hubrank.ranking.rivals.features import logme
from hubrank.ranking.rivals.priors import complex_reasoning, data_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray

    Numbers = NDArray[np.float64]

__all__ = ["RIVALS", "Ranked", "Rival", "SourceArrays", "TargetArrays", "TunedArrays", "rank_rivals"]


@dataclass(frozen=True, slots=True, eq=False)
class SourceArrays:
    """What is known of a source; None or empty where it is not.

    Attributes:
        logme, h_score: by target, of the source's features of the target's rows.
        own_base: [m, d] the base's features of rows of its own task.
        esm: its embedding space map, weight [d, d] and bias [d], fitted to those and to the source's own features.
        delta: [d] how its activations differ from the base's on generic prompts.
        fisher: [k] diagonal Fisher information of its model on its own task, not negative.
        tensors: A and B as published, by key.
        rows: it was trained on; ``family``: words on its task.
        bytes: of its weights.
        seconds: that ``features`` (a target, mean), ``own_base``, ``esm``, ``delta`` and ``fisher`` took.
    """

    logme: Mapping[str, float] = field(default_factory=dict)
    h_score: Mapping[str, float] = field(default_factory=dict)
    esm: tuple[Numbers, Numbers] | None = None
    own_base: FloatArray | None = None
    delta: FloatArray | None = None
    fisher: FloatArray | None = None
    tensors: Mapping[str, FloatArray] | None = None
    rows: float = float("nan")
    family: str = ""
    bytes: float = float("nan")
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TunedArrays:
    """A target's tuned model, of one seed: as :class:`SourceArrays`."""

    delta: FloatArray | None = None
    fisher: FloatArray | None = None
    tensors: Mapping[str, FloatArray] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TargetArrays:
    """What is known of a target.

    Attributes:
        base: [rows, d] the base's features of its rows.
        labels: [rows] classes as integers, or numbers; None for a task with neither.
        tuned: one a seed.
        seconds: that ``base`` took, ``tuning`` one seed, and ``delta`` and ``fisher`` of one.
    """

    base: FloatArray | None = None
    labels: NDArray[np.generic] | None = None
    tuned: tuple[TunedArrays, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


Sources = Sequence[SourceArrays]


@dataclass(frozen=True, slots=True)
class Rival:
    """A ranking of the literature.

    Attributes:
        values: of sources for a named target: one [n] a seed of the target's tuning, one where it is not tuned.
        needs: what it needs beside the adapters and the target's rows.
        tunes, passes: see :class:`hubrank.benchmark.judge.Cost`.
        before, each, once: parts that are done once a source; for each source and target; once a target.
        bytes: kept a source.
        note: what a reader must know.
    """

    values: Callable[[Sources, str, TargetArrays], Sequence[Numbers]]
    bytes: Callable[[Sources], float]
    needs: str = ""
    tunes: bool = False
    passes: int = 0
    before: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A rival's values, by target one [n] a seed, and its cost."""

    name: str
    values: Mapping[str, Sequence[Numbers]]
    cost: Cost
    note: str


def rank_rivals(sources: Sources, targets: Mapping[str, TargetArrays]) -> tuple[list[Ranked], list[tuple[str, str]]]:
    """(what every rival says whose arrays are there, (name, what it lacks) of the others)."""
    ranked, left_out = [], []
    for name, rival in RIVALS.items():
        started = time.process_time()
        found = {target: rival.values(sources, target, arrays) for target, arrays in targets.items()}
        # A target of which nothing is known is none that the rival is judged on.
        values = {target: of for target, of in found.items() if any(np.isfinite(one).any() for one in of)}
        seconds = (time.process_time() - started) / max(1, len(targets))
        # A source is told from another somewhere, or it is no ranking.
        if not any(len(np.unique(one[np.isfinite(one)])) > 1 for of_target in values.values() for one in of_target):
            left_out.append((name, f"it needs {rival.needs}" if rival.needs else "no source could be run"))
            continue
        ranked.append(Ranked(name, values, _cost(rival, sources, targets, seconds), rival.note))
    return ranked, left_out


def _cost(rival: Rival, sources: Sources, targets: Mapping[str, TargetArrays], arithmetic: float) -> Cost:
    each = sum(_mean(source.seconds.get(part) for source in sources) for part in rival.each) * len(sources)
    once = sum(_mean(target.seconds.get(part) for target in targets.values()) for part in rival.once)
    return Cost(
        tunes=rival.tunes,
        tuning_seconds=_mean(target.seconds.get("tuning") for target in targets.values()) if rival.tunes else None,
        passes=rival.passes,
        bytes=rival.bytes(sources),
        seconds=arithmetic + each + once,
        before=sum(_mean(source.seconds.get(part) for source in sources) for part in rival.before) or None,
        needs=rival.needs,
    )


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _by_vector(
    sources: Sources,
    target: FloatArray | None,
    of: Callable[[SourceArrays], FloatArray | None],
    compared: Callable[..., Numbers],
) -> Numbers:
    """Values [n] of the sources that have a vector of the target's length; NaN for the others."""
    values = np.full(len(sources), np.nan)
    if target is None:
        return values
    vectors = {
        i: vector for i, source in enumerate(sources) if (vector := of(source)) is not None and vector.shape == target.shape
    }
    if vectors:
        values[list(vectors)] = compared(target=target, sources=np.stack(list(vectors.values())))
    return values


def _flattened(sources: Sources, _: str, target: TargetArrays, *, strange: float = float("nan")) -> list[Numbers]:
    out = []
    for tuned in target.tuned:
        mine = tuned.tensors
        if mine is None:
            continue
        names = sorted(mine)
        shapes = {name: mine[name].shape for name in names}

        def flat(
            source: SourceArrays, names: list[str] = names, shapes: Mapping[str, tuple[int, ...]] = shapes
        ) -> FloatArray | None:
            if source.tensors is None or {name: value.shape for name, value in source.tensors.items()} != shapes:
                return None
            return _side_by_side(source.tensors, names)

        values = _by_vector(sources, _side_by_side(mine, names), flat, flattened)
        out.append(values if np.isnan(values).all() else np.where(np.isnan(values), strange, values))
    return out


def _side_by_side(tensors: Mapping[str, FloatArray], names: Sequence[str]) -> FloatArray:
    whole: FloatArray = np.concatenate([tensors[name].ravel() for name in names])
    return whole


def _text(sources: Sources, _: str, target: TargetArrays) -> list[Numbers]:
    mean = None if target.base is None else target.base.mean(axis=0)
    return [_by_vector(sources, mean, lambda s: None if s.own_base is None else s.own_base.mean(axis=0), text_embedding)]


def _fisher(compared: Callable[..., Numbers]) -> Callable[[Sources, str, TargetArrays], list[Numbers]]:
    return lambda sources, _, target: [_by_vector(sources, t.fisher, lambda s: s.fisher, compared) for t in target.tuned]


def _delta(sources: Sources, _: str, target: TargetArrays) -> list[Numbers]:
    return [_by_vector(sources, tuned.delta, lambda source: source.delta, delta_activations) for tuned in target.tuned]


def _esm(sources: Sources, _: str, target: TargetArrays) -> list[Numbers]:
    values = np.full(len(sources), np.nan)
    if target.base is None or target.labels is None:
        return [values]
    for i, source in enumerate(sources):
        if source.esm is not None:
            weight, bias = source.esm
            values[i] = logme(features=target.base @ weight + bias, labels=target.labels)
    return [values]


def _sizes(sources: Sources, _: str, __: TargetArrays) -> list[Numbers]:
    return [data_size(rows=[source.rows for source in sources])]


def _families(sources: Sources, _: str, __: TargetArrays) -> list[Numbers]:
    return [complex_reasoning(families=[source.family for source in sources])]


def _weights(sources: Sources) -> float:
    return _mean(source.bytes for source in sources)


def _vector(of: Callable[[SourceArrays], FloatArray | None]) -> Callable[[Sources], float]:
    """Bytes of one vector a source in float32."""
    return lambda sources: _mean(4.0 * vector.shape[-1] for source in sources if (vector := of(source)) is not None)


def _map_bytes(sources: Sources) -> float:
    return _mean(4.0 * (source.esm[0].size + source.esm[1].size) for source in sources if source.esm is not None)


_OWN_ROWS = "rows of every source's task (--source-rows)"
_LAST = "only sources of the target's own shape can be compared; the others come last"
_BETWEEN = "only sources of the target's own shape can be compared; the others get a cosine of 0"

RIVALS: Mapping[str, Rival] = MappingProxyType(
    {
        "flattened A and B": Rival(
            _flattened, _weights, "the tuned A and B of sources and target", tunes=True, note=_LAST
        ),
        "flattened A and B, strangers at 0": Rival(
            lambda s, name, t: _flattened(s, name, t, strange=0.0), _weights, "the tuned A and B of sources and target",
            tunes=True, note=_BETWEEN,
        ),
        "TextEmb": Rival(_text, _vector(lambda s: s.own_base), _OWN_ROWS, before=("own_base",), once=("base",)),
        "TaskEmb": Rival(
            _fisher(flattened), _vector(lambda s: s.fisher), _OWN_ROWS, tunes=True, before=("fisher",), once=("fisher",)
        ),
        "Task2Vec": Rival(
            _fisher(task_embedding), _vector(lambda s: s.fisher), _OWN_ROWS, tunes=True, before=("fisher",), once=("fisher",)
        ),
        "data size": Rival(_sizes, lambda _: 8, "source_rows in the rows"),
        "complex reasoning": Rival(_families, lambda _: 1, "the kind of every source's task, on cards or in the rows"),
        "LogME": Rival(
            lambda sources, name, _: [np.array([s.logme.get(name, np.nan) for s in sources])], _weights, passes=1,
            each=("features",),
        ),
        "H-score": Rival(
            lambda sources, name, _: [np.array([s.h_score.get(name, np.nan) for s in sources])], _weights, passes=1,
            each=("features",),
        ),
        "ESM-LogME": Rival(_esm, _map_bytes, _OWN_ROWS, before=("own_base", "esm"), once=("base",)),
        "Delta Activations": Rival(
            _delta, _vector(lambda s: s.delta), tunes=True, before=("delta",), once=("delta",)
        ),
    }
)  # fmt: skip
"""By name; papers and formulas are with the functions of :mod:`hubrank.ranking.rivals`."""
