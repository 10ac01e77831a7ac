"""Which listed models fit a query, and which lists to ask for so that few others come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from hubrank.hubs.model_list import Model, Search
from hubrank.hubs.protocol import Query

__all__ = ["fits", "searches"]

_MOST_LISTS = 16
# Tasks that the HF Hub knows itself and can narrow a list down to; any other may be the first half of one of AdapterHub's.
_HUB_TASKS = frozenset(
    {
        *("text-classification", "token-classification", "question-answering", "table-question-answering", "summarization"),
        *("zero-shot-classification", "translation", "feature-extraction", "text-generation", "text2text-generation"),
        *("fill-mask", "sentence-similarity", "text-ranking", "multiple-choice", "text-retrieval", "conversational"),
        *("image-classification", "image-text-to-text", "automatic-speech-recognition", "audio-classification"),
    }
)


def searches(query: Query, tags: Sequence[str], *, authors: Sequence[str] | None = None) -> list[Search]:
    """The lists to ask for: each narrowed down to one value of each field, unless there were too many of them.

    Args:
        tags: one list each; other than :func:`fits`, the hub asks for all tags at once.
        authors: instead of the query's.
    """
    authors = query.authors if authors is None else authors
    fields = [
        [f"license:{name.lower()}" for name in query.licenses],
        [name.lower() for name in query.languages],
        _task_tags(query.tasks),
    ]
    whole = [field or [""] for field in fields]
    while prod(len(field) for field in whole) > _MOST_LISTS:
        whole[max(range(len(whole)), key=lambda i: len(whole[i]))] = [""]  # sorted out here instead
    return [
        Search(tuple(filter(None, (tag, *values))), author or None)
        for author, tag, *values in product(authors or [""], tags, *whole)
    ]


def fits(model: Model, query: Query, *, bases: bool = True) -> bool:
    """Whether a listed model is wanted, as far as the list tells.

    Args:
        bases: look at the base model too; where a list says nothing of it, it does not fit.
    """
    return (
        (not bases or not query.bases or _is_of(model, query.bases))
        and (not query.tasks or any(_has_task(model, task) for task in query.tasks))
        and (not query.languages or _any(query.languages, (*model.tags, *_texts(model.card.get("language")))))
        and (not query.licenses or _any(query.licenses, (*_after(model.tags, "license:"), *_texts(model.card.get("license")))))
        and (not query.authors or _any(query.authors, [model.id.partition("/")[0]]))
        and (query.min_downloads is None or model.downloads >= query.min_downloads)
    )


def _task_tags(tasks: Sequence[str]) -> list[str]:
    """The tag that every model of a task has; none at all where that cannot be said of one of them."""
    tags = [f"adapterhub:{task}" if "/" in task else task if task in _HUB_TASKS else "" for task in tasks]
    return tags if all(tags) else []


def _has_task(model: Model, task: str) -> bool:
    return task in (model.pipeline_tag, *model.tags) or any(
        own == task or own.startswith(f"{task}/") for own in _after(model.tags, "adapterhub:")
    )


def _is_of(model: Model, bases: Iterable[str]) -> bool:
    named = _after(model.tags, "base_model:adapter:") or [model.base or ""]
    return _any(bases, named)


def _after(tags: Iterable[str], prefix: str) -> list[str]:
    return [tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)]


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _any(wanted: Iterable[str], found: Iterable[str]) -> bool:
    return not {name.lower() for name in wanted}.isdisjoint(name.lower() for name in found)
