"""What the store keeps records of, and under which names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hubrank.checkpoints.reader import METHODS
from hubrank.types import Source

__all__ = ["PARTS", "DealtWith", "Record", "Skip", "identity_of", "source_id"]

PARTS = METHODS
"""What a further part of a file may be: its method."""


@dataclass(frozen=True, slots=True)
class Skip:
    """An adapter that was looked at and could not be read."""

    name: str
    revision: str
    reason: str
    detail: str


def source_id(hub: str, repo: str, subfolder: str | None, *, branch: str | None = None, part: str | None = None) -> str:
    """The ID of a source in the store: 32 hex digits."""
    words = (hub, repo, subfolder or "", *((f"@{branch}",) if branch else ()), *((f"#{part}",) if part else ()))
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def identity_of(source: Source) -> str:
    """The ID of a source in the store."""
    return source_id(source.hub, source.repo, source.subfolder, branch=source.branch, part=source.part)


@dataclass(frozen=True, slots=True)
class Record:
    """A source and its signature as the store keeps it, see :mod:`hubrank.signatures.encoding`."""

    source: Source
    signature: bytes


@dataclass(frozen=True, slots=True)
class DealtWith:
    """At which revision of its default branch a repository was dealt with, and for which bases and methods; None for all."""

    revision: str
    bases: frozenset[str] | None = None
    methods: frozenset[str] | None = None
