"""A :class:`Source` as JSON and back, checked on the way in."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from hubrank.errors import StoreDamagedError
from hubrank.types import CardFacts, Metric, Source

__all__ = ["decode_source", "encode_source", "source_from_json", "source_to_json"]


def encode_source(source: Source) -> bytes:
    """JSON bytes."""
    return json.dumps(source_to_json(source), separators=(",", ":")).encode("ascii")


def decode_source(data: bytes) -> Source:
    """The inverse.

    Raises:
        StoreDamagedError: the bytes are not a source.
    """
    try:
        return source_from_json(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise StoreDamagedError(f"a stored source cannot be read ({type(error).__name__})") from error


def source_to_json(source: Source) -> dict[str, Any]:
    """A dictionary of JSON types with the fields of :class:`Source`."""
    return asdict(source)


def source_from_json(value: Any) -> Source:
    """The inverse of :func:`source_to_json`.

    Raises:
        StoreDamagedError: a field is missing, unknown or of the wrong type.
    """
    try:
        card = dict(value["card"])
        card["metrics"] = tuple(Metric(str(m["name"]), float(m["value"])) for m in card["metrics"])
        for name in ("datasets", "languages", "tags"):
            card[name] = tuple(str(item) for item in card[name])
        fields = {**value, "card": CardFacts(**card), "warnings": tuple(str(w) for w in value["warnings"])}
        fields["files"] = tuple((str(name), str(content)) for name, content in value.get("files", ()))
        source = Source(**fields)
        texts = (source.hub, source.repo, source.revision, source.base, source.method, source.variant)
        places = (source.subfolder, source.location, source.part, source.branch)
        optional = (*places, source.card_base, source.card.task, source.card.license)
        if not all(isinstance(t, str) for t in texts) or not all(isinstance(t, str | None) for t in optional):
            raise TypeError("a text field holds something else")
        numbers = (source.rank, source.reader, source.read_at)
        if not all(type(n) is int for n in numbers) or not isinstance(source.gone, bool):
            raise TypeError("a number or gone is of the wrong type")
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise StoreDamagedError(f"a stored source cannot be read ({str(error)[:80]})") from error
    return source
