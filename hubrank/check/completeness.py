"""Complete: whoever downloads the adapter has what it takes to load it."""

from __future__ import annotations

from collections.abc import Iterator

from hubrank.check.evidence import Evidence
from hubrank.check.policy import Policy
from hubrank.check.rule import Problem, Rule
from hubrank.checkpoints.reader import CONFIG

__all__ = ["RULES"]

_CONFIG = ("no config", "bad config")
_WEIGHTS = ("no weights", "incomplete", "no LoRA tensors")
_DAMAGED = (
    "damaged file",
    "file truncated",
    "file unreadable",
    "file missing",
    "file too large",
    "too large",
    "unexpected dtype",
)
_UNJUDGED = (
    "unsupported variant",
    "unsupported format",
    "unsupported method",
    "needs base",
    "several adapters",
    "rank too large",
)
# What other rules say: safety, and form.
_ELSEWHERE = ("unsafe file", "unsafe pattern", "unsafe path", "all zero", "not finite", "shape mismatch", "no base model")


def _failure(evidence: Evidence, reasons: tuple[str, ...]) -> Iterator[Problem]:
    failure = evidence.failure
    if failure is not None and failure.reason in reasons:
        yield Problem(f"{failure.reason}: {failure.detail}", failure.file)


def _config(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _failure(evidence, _CONFIG)


def _weights(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _failure(evidence, _WEIGHTS)


def _damaged(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _failure(evidence, _DAMAGED)


def _unjudged(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    failure = evidence.failure
    known = (*_CONFIG, *_WEIGHTS, *_DAMAGED, *_ELSEWHERE)
    if failure is not None and (failure.reason in _UNJUDGED or failure.reason not in known):
        yield Problem(f"{failure.reason}: {failure.detail}", failure.file)


def _base_missing(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _failure(evidence, ("no base model",))
    source = evidence.source
    guessed = [text for text in source.warnings if text.startswith("the config names no ")] if source else []
    if guessed:
        yield Problem(guessed[0], CONFIG)


def _base_unknown(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.base_state == "missing" and evidence.source is not None:
        yield Problem(f"base model {evidence.source.base} is not on the Hub, or not open to us", CONFIG)


def _base_revision(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.config is not None and "peft_type" in evidence.config and not evidence.config.get("revision"):
        yield Problem("the config does not say which revision of the base model was trained on", CONFIG)


RULES = (
    Rule(
        "config",
        "complete",
        "error",
        "without its config nobody can load an adapter",
        "publish the adapter_config.json that save_pretrained writes",
        "There is no `adapter_config.json` (nor a `hubrank.json` for weights that never had one), or it is no JSON, or a field "
        "has a value that it cannot have.",
        _config,
    ),
    Rule(
        "weights",
        "complete",
        "error",
        "a config without its weights is no adapter",
        "publish adapter_model.safetensors beside the config",
        "No weights file is there, or it lacks tensors that its config promises.",
        _weights,
    ),
    Rule(
        "damaged",
        "complete",
        "error",
        "the file cannot be read as what it says it is",
        "upload it again, and compare its sha256",
        "A weights file is cut short, its header contradicts its size, or a tensor is of a type that holds no weights.",
        _damaged,
    ),
    Rule(
        "unjudged",
        "complete",
        "note",
        "what cannot be read cannot be judged",
        "look at it by hand, or accept it with an entry under [[ignore]]",
        "hubrank does not read this method or variant, or needs the base model's weights for it. Nothing is said about its "
        "weights; the files were still looked at.",
        _unjudged,
    ),
    Rule(
        "base-missing",
        "complete",
        "error",
        "an adapter without its base model is noise",
        "write the Hub id of the base model into base_model_name_or_path",
        "The config names no base model, or a path on its author's disk. Where the card names one, that is taken for the rest "
        "of the check.",
        _base_missing,
    ),
    Rule(
        "base-unknown",
        "complete",
        "warning",
        "nobody can load an adapter whose base model cannot be had",
        "name a base model that is on the Hub, or make it public",
        "The base model is neither on this machine nor known to the Hub, or not open to who asks. Not judged offline.",
        _base_unknown,
    ),
    Rule(
        "base-revision",
        "complete",
        "note",
        "a base model that is updated changes what the adapter does",
        "set `revision` in adapter_config.json to the commit of the base model",
        "peft keeps the base model's revision in `revision` of its config, and `AutoPeftModel` loads that one.",
        _base_revision,
    ),
)
