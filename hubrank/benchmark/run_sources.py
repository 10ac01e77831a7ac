"""The arrays that rivals look at, made by running sources and tuned targets: what hubrank spares its users."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.benchmark.rivals import SourceArrays, TargetArrays, TunedArrays
from hubrank.benchmark.source_model import PROBES, SourceModel, fit_head
from hubrank.checkpoints.reader import PEFT_WEIGHTS
from hubrank.checkpoints.tensor_files import open_tensors
from hubrank.errors import AdapterError, HubError
from hubrank.hubs.folder import FolderBundle
from hubrank.hubs.protocol import Listing
from hubrank.ranking.placement import usual_placement
from hubrank.ranking.rivals.features import affine_map, h_score, logme
from hubrank.target.base import load_base
from hubrank.target.tuned_files import base_identity, run_key
from hubrank.target.tuning import TuningPlan, tune

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.benchmark.ours import SignedTarget, Signing
    from hubrank.target.task import Target
    from hubrank.types import FloatArray, Signature, Source
    from hubrank.zoo.store import Zoo

    Tensors = dict[str, FloatArray]

__all__ = ["RUNNABLE", "run_sources", "run_targets"]

RUNNABLE = "lora"
"""The method whose sources can be run from what the zoo keeps of them."""

_LABELLED = ("classification", "regression")
_FEW = 200  # rows for gradients


def run_sources(
    model: SourceModel,
    zoo: Zoo,
    sources: Sequence[Source | None],
    targets: Mapping[str, Target],
    *,
    own_rows: Mapping[int, Target],
    stage: Callable[[str], None],
) -> list[SourceArrays]:
    """Run every source on every target's rows, on generic prompts, and on rows of its own where there are some.

    Args:
        sources: in the order of the file; None: not in the zoo.
        own_rows: by place in ``sources``.
        stage: told what is being done.
    """
    labelled = {name: target for name, target in targets.items() if target.task in _LABELLED}
    probes = model.states(PROBES, precise=True).mean(axis=0)
    out = []
    for i, source in enumerate(sources):
        if source is None:
            out.append(SourceArrays())
            continue
        stage(f"running {source.name}, source {i + 1} of {len(sources)}")
        out.append(_run(model, source, zoo.signature(source), labelled, probes=probes, own=own_rows.get(i)))
    return out


def run_targets(
    model: SourceModel, signing: Signing, signed: Mapping[str, SignedTarget], targets: Mapping[str, Target], *, gradients: bool
) -> dict[str, TargetArrays]:
    """What the base and each target's tuned model make of its rows.

    Args:
        gradients: compute Fisher informations, which only sources with rows of their own can be compared by.
    """
    probes = model.states(PROBES, precise=True).mean(axis=0)
    return {
        name: _target(model, signing, signed[name], target, probes=probes, gradients=gradients)
        for name, target in targets.items()
    }


def _run(
    model: SourceModel,
    source: Source,
    signature: Signature,
    targets: Mapping[str, Target],
    *,
    probes: FloatArray,
    own: Target | None,
) -> SourceArrays:
    told = " ".join([source.card.task or "", *source.card.datasets, *source.card.tags]).replace("-", " ")
    size = float(sum(2 * (f.u.size + f.v.size) for f in signature.factors))  # as published, in float16
    known = SourceArrays(tensors=_published(source), family=told, bytes=size)
    if source.method != RUNNABLE or model.why_not(signature) is not None:
        return known
    seconds: dict[str, float] = {}
    esm = fisher = None
    own_base: FloatArray | None = None
    if own is not None:
        own_base = _timed(seconds, "own_base", partial(model.states, own.texts, own.pairs))
    with model.wearing(signature):
        scores, seconds["features"] = _scores(model, targets)
        delta = _timed(seconds, "delta", partial(_moved, model, probes))
        if own is not None and own_base is not None:
            states = _timed(seconds, "esm", partial(model.states, own.texts, own.pairs))
            if own.task in _LABELLED:
                fisher = _timed(seconds, "fisher", partial(_fisher, model, own, states))
            started = time.process_time()
            esm = affine_map(before=own_base, after=states)
            seconds["esm"] += time.process_time() - started
    return replace(
        known,
        logme={name: one for name, (one, _) in scores.items()},
        h_score={name: one for name, (_, one) in scores.items()},
        esm=esm,
        own_base=own_base,
        delta=delta,
        fisher=fisher,
        seconds=seconds,
    )


def _scores(model: SourceModel, targets: Mapping[str, Target]) -> tuple[dict[str, tuple[float, float]], float]:
    """(LogME and H-score of the features of every target's rows, CPU seconds of a target's features)."""
    scores = {}
    spent: dict[str, float] = {}
    for name, target in targets.items():
        features = _timed(spent, name, partial(model.states, target.texts, target.pairs))
        scores[name] = logme(features=features, labels=_labels(target)), h_score(features=features, labels=_labels(target))
    return scores, float(np.mean(list(spent.values()))) if spent else float("nan")


def _moved(model: SourceModel, probes: FloatArray) -> FloatArray:
    """[d] mean activation on the probes, minus the base's."""
    moved: FloatArray = model.states(PROBES, precise=True).mean(axis=0) - probes
    return moved


def _target(
    model: SourceModel, signing: Signing, signed: SignedTarget, target: Target, *, probes: FloatArray, gradients: bool
) -> TargetArrays:
    seconds: dict[str, float] = {"tuning": signed.seconds}
    base = _timed(seconds, "base", partial(model.states, target.texts, target.pairs))
    labelled = target.task in _LABELLED
    tuned = []
    for i, signature in enumerate(signed.signatures.get(RUNNABLE, ())):
        if model.why_not(signature) is not None:
            continue
        fisher = None
        with model.wearing(signature):
            delta = _timed(seconds, "delta", partial(_moved, model, probes))
            if labelled and gradients:
                states = model.states(target.texts, target.pairs)
                fisher = _timed(seconds, "fisher", partial(_fisher, model, target, states))
        tuned.append(TunedArrays(delta, fisher, _tuned_tensors(signing, target, signing.settings.seed + i)))
    return TargetArrays(base, _labels(target) if labelled else None, tuple(tuned), seconds)


def _fisher(model: SourceModel, rows: Target, states: FloatArray) -> FloatArray:
    labels = _labels(rows)
    pairs = None if rows.pairs is None else rows.pairs[:_FEW]
    return model.fisher(rows.texts[:_FEW], pairs, labels[:_FEW], fit_head(states, labels))


def _labels(target: Target) -> NDArray[Any]:
    return np.asarray(target.labels, dtype=np.float64 if target.task == "regression" else np.int64)


def _published(source: Source) -> Tensors | None:
    """A and B as they lie in a folder's file."""
    folder = Path(source.location) if source.location is not None else None
    if source.method != RUNNABLE or folder is None or not folder.is_dir():
        return None
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    listing = Listing(source.repo, source.revision, source.subfolder, files, location=source.location)
    try:
        file = open_tensors(listing, FolderBundle(folder), PEFT_WEIGHTS[:1])
        return file.read(sorted(name for name in file.tensors if ".lora_A." in name or ".lora_B." in name))
    except (AdapterError, HubError):
        return None


def _tuned_tensors(signing: Signing, target: Target, seed: int) -> Tensors | None:
    """A and B of the target, tuned from a random start to the end of the plan, as the papers of those who look at them do."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    yardstick = next((one for one in next(iter(signing.yardsticks.values())) if one.packed.method == RUNNABLE), None)
    if yardstick is None:
        return None
    model, tokenizer = load_base(signing.base, dtype=signing.dtype)
    plan = TuningPlan(usual_placement(yardstick.packed, model), steps=signing.settings.steps, seed=seed)
    base = f"{base_identity(signing.base)} {signing.dtype}"
    key = run_key(target, base, plan, device=signing.device, early=False)
    file = signing.cache / "tuned" / f"{key}.tensors.bin"
    with contextlib.suppress(OSError, SafetensorError):  # of another time, or damaged: it is tuned again
        found: Tensors = load_file(file)
        return found
    signing.listener.stage(f"tuning {RUNNABLE} on {target.name} once more, for its A and B")
    tuned = tune(model, tokenizer, target, plan, device=signing.device, on_step=signing.listener.step)
    tensors = {name: np.ascontiguousarray(value) for name, value in tuned.tensors().items()}
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = file.with_suffix(".partial")
    save_file(tensors, unfinished)
    unfinished.replace(file)
    return tensors


def _timed(seconds: dict[str, float], part: str, compute: Callable[[], Any]) -> Any:
    """What it gives; the CPU seconds it took are noted."""
    started = time.process_time()
    value = compute()
    seconds[part] = time.process_time() - started
    return value
