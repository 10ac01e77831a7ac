"""The front matter of a model card: what its author says, cut short and stripped of control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from hubrank.hubs.yaml_text import parse_yaml
from hubrank.types import CardFacts, Metric

__all__ = ["MAX_CARD_BYTES", "base_on_card", "card_facts", "front_matter", "plain"]

MAX_CARD_BYTES = 1_000_000
_MAX_FRONT = 64_000
_MAX_TEXT = 96
_MAX_ITEMS = 12
_FRONT = re.compile(rb"\A(?:\xef\xbb\xbf)?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# Where a task name says nothing, being what nearly every card has.
_EMPTY_TASKS = ("text-classification", "text-generation", "feature-extraction", "generator", "unknown", "custom")


def front_matter(readme: bytes) -> Mapping[str, Any]:
    """The YAML between the leading ``---`` lines; empty where there is none or it is malformed."""
    match = _FRONT.match(readme[: _MAX_FRONT + 16])
    if match is None:
        return {}
    return _known_front(match[1])


@lru_cache(maxsize=32)
def _known_front(text: bytes) -> Mapping[str, Any]:
    # Asked for several times an adapter, and what peft writes for an author who adds nothing is the same in thousands.
    value = parse_yaml(text)
    return MappingProxyType(value) if isinstance(value, dict) else {}


def card_facts(front: Mapping[str, Any]) -> CardFacts:
    """The facts of a card, from its front matter or from a hub's ``cardData``. Wrong types are left out."""
    tags = _texts(front.get("tags"), limit=64)
    datasets = _texts(front.get("datasets"))
    results = _results(front.get("model-index"))
    return CardFacts(
        task=_task(front, tags, datasets, results),
        datasets=datasets,
        license=_text(front.get("license")),
        languages=_texts(front.get("language")),
        tags=tags,
        metrics=_metrics(results),
    )


def base_on_card(front: Mapping[str, Any]) -> str | None:
    """What a card calls the base model: its ``base_model`` where that is one name, else its tag ``base_model:adapter:ID``."""
    stated = front.get("base_model")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if isinstance(stated, str):
        return stated
    prefix = "base_model:adapter:"
    tagged = [tag.removeprefix(prefix) for tag in _texts(front.get("tags"), limit=64) if tag.startswith(prefix)]
    return tagged[0] if len(tagged) == 1 else None


def plain(value: str, limit: int = _MAX_TEXT) -> str:
    """One line without control, format (bidirectional) or unassigned characters, at most ``limit`` long."""
    kept = "".join(" " if c.isspace() else c for c in value[: 4 * limit] if c.isspace() or unicodedata.category(c)[0] != "C")
    short = " ".join(kept.split())
    return short if len(short) <= limit else short[: limit - 1] + "…"


def _text(value: object) -> str | None:
    if isinstance(value, list) and value:
        value = value[0]
    return plain(value) or None if isinstance(value, str) else None


def _texts(value: object, limit: int = _MAX_ITEMS) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(text for item in items[:limit] if isinstance(item, str) and (text := plain(item)))


def _results(index: object) -> list[Mapping[str, Any]]:
    models = index if isinstance(index, list) else []
    return [
        result
        for model in models[:4]
        if isinstance(model, dict) and isinstance(results := model.get("results"), list)
        for result in results[:_MAX_ITEMS]
        if isinstance(result, dict)
    ]


def _task(
    front: Mapping[str, Any], tags: tuple[str, ...], datasets: tuple[str, ...], results: list[Mapping[str, Any]]
) -> str | None:
    for tag in tags:
        if tag.startswith("adapterhub:"):
            return tag.removeprefix("adapterhub:") or None
    named = [dataset.get("name") for result in results if isinstance(dataset := result.get("dataset"), dict)]
    for candidate in (*named, *datasets, front.get("pipeline_tag")):
        text = _text(candidate)
        if text and text.lower() not in _EMPTY_TASKS:
            return text
    return None


def _metrics(results: list[Mapping[str, Any]]) -> tuple[Metric, ...]:
    metrics = []
    for result in results:
        stated = result.get("metrics")
        for metric in stated[:_MAX_ITEMS] if isinstance(stated, list) else []:
            if not isinstance(metric, dict):
                continue
            name, value = _text(metric.get("name") or metric.get("type")), metric.get("value")
            if name and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
                metrics.append(Metric(name, float(value)))
    return tuple(metrics[:_MAX_ITEMS])
