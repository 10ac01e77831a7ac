"""Well-formed: the numbers are those of an adapter, of that base model, and not of one that is there already."""

from __future__ import annotations

from collections.abc import Iterator

from hubrank.check.evidence import Evidence, Twin, TwinKind
from hubrank.check.policy import Policy
from hubrank.check.rule import Problem, Rule

__all__ = ["RULES"]

_SHOWN = 3


def _not_finite(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.failure is not None and evidence.failure.reason == "not finite":
        yield Problem(evidence.failure.detail, evidence.failure.file)


def _all_zero(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.failure is not None and evidence.failure.reason == "all zero":
        yield Problem(evidence.failure.detail, evidence.failure.file)


def _zero_sites(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.zero_sites and evidence.signature is not None:
        total = evidence.zero_sites + len(evidence.signature.factors)
        yield Problem(f"{evidence.zero_sites} of {total} updates are exactly zero")


def _shapes(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.failure is not None and evidence.failure.reason == "shape mismatch":
        yield Problem(evidence.failure.detail, evidence.failure.file)


def _base_shapes(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    misfits = evidence.base_misfits or evidence.standing.misfits
    if misfits:
        whose = "the base model's own" if evidence.base_misfits else "that of other adapters of this base model"
        more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        yield Problem(f"the shape is not {whose} at {', '.join(misfits[:_SHOWN])}{more}")


def _same_bytes(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for twin in _twins(evidence, "bytes"):
        first = ", which comes first in this check and so is taken for the original" if twin.checked else " in the zoo"
        yield Problem(f"its weights are byte for byte those of {twin.name}{first}")


def _same_function(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for twin in _twins(evidence, "function"):
        yield Problem(f"it changes the model exactly as {twin.name} in the zoo does")


def _twins(evidence: Evidence, kind: TwinKind) -> Iterator[Twin]:
    return (twin for twin in evidence.standing.twins if twin.kind == kind)


def _scaled_copy(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for twin in evidence.standing.twins:
        if twin.kind == "scaled":
            yield Problem(f"its update is that of {twin.name} times {twin.scale:.2g}")


RULES = (
    Rule(
        "not-finite",
        "well-formed",
        "error",
        "one NaN makes every output NaN",
        "train again with a lower learning rate, or in bfloat16 or float32",
        "A weight is NaN or infinite, or the update overflows float32.",
        _not_finite,
    ),
    Rule(
        "all-zero",
        "well-formed",
        "error",
        "an update of zero is the base model",
        "publish the weights after training, not before",
        "Every update is exactly zero: LoRA starts with B = 0, so an adapter that was saved before its first step looks so.",
        _all_zero,
    ),
    Rule(
        "zero-sites",
        "well-formed",
        "note",
        "modules that were never trained only cost time",
        "leave them out of target_modules, or look at why no gradient reached them",
        "Some modules have an update of exactly zero while others do not.",
        _zero_sites,
    ),
    Rule(
        "shapes",
        "well-formed",
        "error",
        "factors that do not fit each other cannot be multiplied",
        "save the adapter again; the weights are not those of its config",
        "A and B differ in rank, or a tensor has another shape than the config says.",
        _shapes,
    ),
    Rule(
        "base-shapes",
        "well-formed",
        "error",
        "an adapter of another size does not load on this base model",
        "name the base model that it was trained on",
        "Compared with the base model's own shapes where it is on this machine (only headers are read), else with the shapes "
        "that other adapters of that base model have in the zoo.",
        _base_shapes,
    ),
    Rule(
        "same-bytes",
        "well-formed",
        "error",
        "a copy under another name splits credit and misleads searches",
        "link to the original, or publish what is new; if this one is the original, name it first, or make an exception",
        "The weights file has the sha256 of one in the zoo or of another adapter in the same check. An adapter is never "
        "compared with itself: one of the same name or in the same folder. Of two in one check the first counts as the "
        "original, and only the other is at fault; which of two was there first, files do not tell.",
        _same_bytes,
    ),
    Rule(
        "same-function",
        "well-formed",
        "warning",
        "the same update under another name is the same adapter",
        "link to the original, or publish what is new",
        "The compute cosine with a source of the zoo is at least 0.985, and at every site their norms differ by at most a "
        "hundredth. The store keeps int8, so that two checkpoints of one run a few steps apart can look so, too.",
        _same_function,
    ),
    Rule(
        "scaled-copy",
        "well-formed",
        "note",
        "the same update at another strength is hardly another adapter",
        "say on the card what it was made from",
        "The compute cosine with a source of the zoo is at least 0.985, and one factor between their norms holds everywhere.",
        _scaled_copy,
    ),
)
