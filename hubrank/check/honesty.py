"""Honest: the card says what the adapter is, and the weights agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from hubrank.check.evidence import Evidence
from hubrank.check.findings import Level
from hubrank.check.policy import Policy, allowed
from hubrank.check.rule import Finder, Problem, Rule
from hubrank.checkpoints.base_names import canonical_base
from hubrank.checkpoints.card import base_on_card, card_facts
from hubrank.errors import AdapterError
from hubrank.types import CardFacts

__all__ = ["METHOD_TAGS", "RULES"]

_CARD = "README.md"
METHOD_TAGS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("lora", "qlora", "rslora", "dora", "qdora", "adalora", "loha", "lokr", "vera"), "lora"),
        **dict.fromkeys(("ia3",), "ia3"),
        **dict.fromkeys(("prefix-tuning", "prefix_tuning"), "prefix"),
        **dict.fromkeys(("prompt-tuning", "prompt_tuning", "soft-prompt", "p-tuning"), "prompt"),
        **dict.fromkeys(("bottleneck", "houlsby", "pfeiffer"), "bottleneck"),
        **dict.fromkeys(("reft", "loreft"), "reft"),
        **dict.fromkeys(("oft", "boft", "hra"), "rotation"),
        **dict.fromkeys(("bitfit",), "bias"),
    }
)
"""What tags of cards call a method, and the group of methods that it belongs to."""


def _facts(evidence: Evidence) -> CardFacts | None:
    """The card's facts: its own front matter, else what the zoo keeps; None where there is no card."""
    if evidence.front is not None:
        return card_facts(evidence.front)
    if evidence.whole or evidence.source is None:
        return None
    return evidence.source.card


def _card_missing(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.whole and not evidence.front:
        what = "there is no README.md" if evidence.front is None else "README.md has no front matter"
        yield Problem(what, None if evidence.front is None else _CARD)


def _card_base(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.front and base_on_card(evidence.front) is None:
        yield Problem("the card names no base_model, or several", _CARD)


def _card_base_differs(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    source = evidence.source
    stated = base_on_card(evidence.front) if evidence.front else None
    if source is None:
        return
    if stated is None:
        said = [text for text in source.warnings if text.startswith("the card names another base model")]
        if said:
            yield Problem(f"{said[0]}; the config names {source.base}", _CARD)
        return
    try:
        base = canonical_base(stated, None)[0]
    except AdapterError:
        yield Problem(f"the card's base_model {stated[:60]!r} is no model's id", _CARD)
        return
    if base.lower() != source.base.lower():
        yield Problem(f"the card says base_model {base}, the config {source.base}", _CARD)


def _lacking(evidence: Evidence, field: str, what: str) -> Iterator[Problem]:
    facts = _facts(evidence)
    if facts is not None and (evidence.front or not evidence.whole) and not getattr(facts, field):
        yield Problem(f"the card names no {what}", _CARD)


def _card_license(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _lacking(evidence, "license", "license")


def _card_datasets(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _lacking(evidence, "datasets", "datasets")


def _card_language(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _lacking(evidence, "languages", "language")


def _card_metrics(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    yield from _lacking(evidence, "metrics", "measured result under model-index")


def _card_method(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    facts, source = _facts(evidence), evidence.source
    if facts is None or source is None:
        return
    said = {tag.lower(): METHOD_TAGS[tag.lower()] for tag in facts.tags if tag.lower() in METHOD_TAGS}
    if said and source.method not in said.values() and source.part is None:
        yield Problem(f"the card's tags say {', '.join(said)}, the weights are {source.full_method}", _CARD)


def _init_kind(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for text in evidence.source.warnings if evidence.source else ():
        if text.startswith("init_lora_weights="):
            yield Problem(text, "adapter_config.json")


def _license_allowed(evidence: Evidence, policy: Policy) -> Iterator[Problem]:
    facts = _facts(evidence)
    if not policy.licenses or facts is None:
        return
    if facts.license is None or not allowed(facts.license, policy.licenses):
        yield Problem(f"license {facts.license or 'none'} is not among the allowed ones", _CARD)


def _base_allowed(evidence: Evidence, policy: Policy) -> Iterator[Problem]:
    if evidence.source is not None and not allowed(evidence.source.base, policy.bases):
        yield Problem(f"base model {evidence.source.base} is not among the allowed ones")


def _org_allowed(evidence: Evidence, policy: Policy) -> Iterator[Problem]:
    org = evidence.repo.partition("/")[0]
    if evidence.folder is None and not allowed(org, policy.orgs):
        yield Problem(f"{org} is not among the allowed organisations")


def _card_rule(name: str, level: Level, reason: str, way_out: str, text: str, find: Finder) -> Rule:  # noqa: PLR0917
    return Rule(f"card-{name}", "honest", level, reason, way_out, text, find)


RULES = (
    _card_rule(
        "missing",
        "warning",
        "an adapter without a card is found by nobody",
        "write a README.md with front matter: base_model, license, datasets, language, tags, model-index",
        "There is no README.md, or it does not begin with YAML between two lines of `---`.",
        _card_missing,
    ),
    _card_rule(
        "base",
        "warning",
        "the Hub lists an adapter under its base model only if the card names it",
        "add base_model: ORG/NAME to the card's front matter",
        "The card has no `base_model`, or a list of several, and no tag `base_model:adapter:ID`.",
        _card_base,
    ),
    _card_rule(
        "base-differs",
        "error",
        "who follows the card loads it on another model than it was trained on",
        "make base_model on the card and base_model_name_or_path in the config the same",
        "Card and config name different base models. Older names, renamed models and known quantised copies count as the same.",
        _card_base_differs,
    ),
    _card_rule(
        "license",
        "warning",
        "without a license nobody may use it",
        "add license: to the card's front matter",
        "The card's front matter has no `license`.",
        _card_license,
    ),
    _card_rule(
        "datasets",
        "warning",
        "what it was trained on is the first thing one needs to know",
        "add datasets: to the card's front matter",
        "The card's front matter has no `datasets`.",
        _card_datasets,
    ),
    _card_rule(
        "language",
        "note",
        "searches by language pass over a card without one",
        "add language: to the card's front matter",
        "The card's front matter has no `language`.",
        _card_language,
    ),
    _card_rule(
        "metrics",
        "note",
        "an adapter without a measured result asks to be trusted",
        "add a model-index with task, dataset and metrics",
        "The card's `model-index` has no metric with a name and a number. None of the numbers is verified.",
        _card_metrics,
    ),
    _card_rule(
        "method",
        "error",
        "who filters by method gets something else than the card says",
        "correct the card's tags, or publish the right weights",
        "The card's tags name methods (such as `lora` or `ia3`), and none of them is that of the weights.",
        _card_method,
    ),
    Rule(
        "init-weights",
        "honest",
        "warning",
        "B·A alone is not what was learned: the base weights were changed when training started",
        "convert it with peft's path_initial_model_for_weight_conversion, and publish the result",
        "PiSSA, CorDA, OLoRA, LoRA-GA, LoftQ and MiCA change the base weights at the start. On the unchanged base model such "
        "an adapter is another one.",
        _init_kind,
    ),
    Rule(
        "license-allowed",
        "honest",
        "error",
        "the policy lists the licenses that may be used",
        "choose another adapter, or add the license to [allow] licenses",
        "The card's license is none of `[allow] licenses`. Without that list every license is allowed.",
        _license_allowed,
    ),
    Rule(
        "base-allowed",
        "honest",
        "error",
        "the policy lists the base models that may be used",
        "train on one of them, or add it to [allow] bases",
        "The base model matches none of `[allow] bases`; `*` and `?` match as in a shell.",
        _base_allowed,
    ),
    Rule(
        "org-allowed",
        "honest",
        "error",
        "the policy lists whose adapters may be used",
        "choose another adapter, or add the organisation to [allow] orgs",
        "The organisation before the slash matches none of `[allow] orgs`. Folders on this disk have none.",
        _org_allowed,
    ),
)
