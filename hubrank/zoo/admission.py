"""What a record from outside must be before it enters the store: what hubrank itself would have written, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hubrank.errors import InputError, StoreDamagedError
from hubrank.signatures.encoding import decode_signature
from hubrank.zoo.codec import decode_source
from hubrank.zoo.store import PARTS, Record

if TYPE_CHECKING:
    from hubrank.types import Factors, Source

__all__ = ["admit"]

_MAX_TEXT = 5000
_MAX_ITEMS = 1000
_MAX_READER = 1000
_MAX_SITES = 20_000
_MAX_WIDTH = 1 << 21
_MAX_RANK = 1 << 16


def admit(source: bytes, signature: bytes, *, where: str) -> Record:
    """Decode and check a record. A place on another machine's disk is left out of it.

    Args:
        where: what to call the record in an error.

    Raises:
        InputError: it is not what hubrank writes.
    """
    try:
        found = decode_source(source)
        factors = decode_signature(signature).factors
    except StoreDamagedError as error:
        raise InputError(f"{where}: {error}; nothing was taken in") from error
    problem = _problem(found, factors)
    if problem is not None:
        raise InputError(f"{where}: {problem}; nothing was taken in")
    return Record(replace(found, location=None), signature)


def _problem(source: Source, factors: tuple[Factors, ...]) -> str | None:
    card = source.card
    lists = (source.warnings, source.files, card.tags, card.datasets, card.languages, card.metrics)
    numbers_fit = 0 <= source.rank <= _MAX_RANK and 0 <= source.reader <= _MAX_READER and 0 <= source.read_at < 1 << 40
    sites = {one.site for one in factors}
    wrong = (
        (any(len(items) > _MAX_ITEMS for items in lists), "it lists too much"),
        (any(len(text) > _MAX_TEXT for text in _texts(source)), "a text in it is too long"),
        (not all(math.isfinite(metric.value) for metric in card.metrics), "a metric is not a finite number"),
        (source.part not in (None, *PARTS), "its part is no method that shares a file"),
        (not numbers_fit, "a number in it is out of range"),
        (not all((source.hub, source.repo, source.revision, source.base, source.method)), "a name in it is empty"),
        (not 1 <= len(factors) <= _MAX_SITES or len(sites) != len(factors), "its signature has no sites, or one twice"),
        (not all(_sound(one) for one in factors), "its signature is not one of ours"),
    )
    return next((what for is_so, what in wrong if is_so), None)


def _texts(source: Source) -> Iterator[str]:
    card = source.card
    yield from (source.hub, source.repo, source.revision, source.base, source.method, source.variant)
    for text in (source.subfolder, source.branch, source.card_base, card.task, card.license):
        if text is not None:
            yield text
    yield from (*source.warnings, *card.tags, *card.datasets, *card.languages)
    yield from (metric.name for metric in card.metrics)
    for name, content in source.files:
        yield from (name, content)


def _sound(one: Factors) -> bool:
    """Whether the factors are an SVD, as far as int8 keeps one."""
    site, kept = one.site, len(one.s)
    if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in (site.stack, site.module, site.reads, site.writes)):
        return False
    if type(site.layer) is not int or not -1 <= site.layer <= _MAX_RANK:
        return False
    if not (0 <= kept <= len(one.spectrum) <= _MAX_RANK and max(len(one.u), len(one.v)) <= _MAX_WIDTH):
        return False
    arrays = (one.u, one.s, one.v, one.spectrum)
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays):
        return False
    if (one.spectrum < 0).any() or (one.s < 0).any():
        return False
    lengths = [np.linalg.norm(side.astype(np.float64), axis=0) for side in (one.u, one.v)]
    return all(((length > 0.8) & (length < 1.2)).all() for length in lengths)
