"""What hubrank asks of a place that adapters come from. A private hub is one class with these two methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Bundle", "Hub", "Listing", "Query"]


@dataclass(frozen=True, slots=True)
class Query:
    """Which adapters are wanted.

    Attributes:
        bases: of these base models; empty for any.
        limit: at most so many repositories.
        known: (repo, revision) of what is stored already: where a repository has not moved, its branches are not asked for.
    """

    bases: tuple[str, ...] = ()
    limit: int | None = None
    known: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Listing:
    """One adapter as a hub lists it, before any of its files is read.

    Attributes:
        repo: ``org/name``.
        revision: changes whenever a file does.
        subfolder: of the adapter in the repository, or None.
        files: size in bytes of each file beside the adapter, by name; -1 where the hub does not say.
        card: front matter of the card where the hub's listing carries it already.
        location: for a folder, where it is.
        branch: where it is not on the default branch, the branch; AdapterHub keeps versions so.
    """

    repo: str
    revision: str
    subfolder: str | None
    files: Mapping[str, int]
    card: Mapping[str, object] = field(default_factory=dict)
    location: str | None = None
    branch: str | None = None


class Bundle(Protocol):
    """The files of one adapter at one revision."""

    def read(self, name: str, *, limit: int) -> bytes:
        """The whole file.

        Raises:
            AdapterError: it is missing or longer than ``limit`` bytes.
            HubError: the hub does not answer.
        """

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` of a file, exactly that many.

        Raises:
            AdapterError: the file is missing or ends before ``stop``.
            HubError: the hub does not answer.
        """

    def size(self, name: str) -> int:
        """Size in bytes.

        Raises:
            AdapterError: the file is missing.
        """


class Hub(Protocol):
    """A place that adapters come from."""

    @property
    def name(self) -> str:
        """Written into every source: ``hf``, ``adapterhub``, ``folder:PATH``."""

    @property
    def requests(self) -> int:
        """Requests made so far."""

    @property
    def bytes_read(self) -> int:
        """Bytes read so far."""

    def discover(self, query: Query) -> Iterator[Listing]:
        """Every adapter that fits the query.

        Raises:
            HubError: the hub does not answer.
        """

    def open(self, listing: Listing) -> Bundle:
        """The files of one adapter."""
