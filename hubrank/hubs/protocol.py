"""What hubrank asks of a place that adapters come from. A private hub is one class with two methods, and bundles that read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

__all__ = ["Bundle", "HoldsModels", "Hub", "Listing", "OpenModel", "Partial", "Query", "Stoppable", "Traffic"]


@dataclass(slots=True)
class Traffic:
    """What has gone over the wire, or been read from a disk.

    Attributes:
        requests: asked of a hub; following a redirect is not another one.
        bytes_read: of bodies.
        bytes_whole: what plain downloads of the same files would have read.
    """

    requests: int = 0
    bytes_read: int = 0
    bytes_whole: int = 0

    def add(self, other: Traffic) -> None:
        """Count another one's too."""
        self.requests += other.requests
        self.bytes_read += other.bytes_read
        self.bytes_whole += other.bytes_whole


@dataclass(frozen=True, slots=True)
class Query:
    """Which adapters are wanted. Of several values for one field any will do; an empty field leaves nothing out.

    Attributes:
        bases: of these base models.
        methods: of these, such as ``lora``; no hub needs to look at it, the config of each adapter decides.
        tasks: a card's task, such as ``text-classification``, or AdapterHub's ``nli`` or ``nli/multinli``.
        languages: codes as cards give them, such as ``en``.
        licenses: as cards give them, such as ``apache-2.0``.
        authors: the organisation or user before the slash.
        min_downloads: downloaded at least so often, where the hub counts.
        limit: at most so many repositories.
        known: (repo, revision) of what is stored already: where a repository has not moved, its branches are not asked for.
    """

    bases: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    min_downloads: int | None = None
    limit: int | None = None
    known: frozenset[tuple[str, str]] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether nothing of the hub is left out, so that what is not listed is gone."""
        return replace(self, known=frozenset()) == Query()


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
        storage: bytes of the whole repository where the hub says so, else None.
        closed: why its files cannot be had, where the listing says so already: ``gated`` or ``disabled``.
        peft_type: of its config, where the hub's listing says so already.
    """

    repo: str
    revision: str
    subfolder: str | None
    files: Mapping[str, int]
    card: Mapping[str, object] = field(default_factory=dict)
    location: str | None = None
    branch: str | None = None
    storage: int | None = None
    closed: str | None = None
    peft_type: str | None = None


class Bundle(Protocol):
    """The files of one adapter at one revision. Used by one thread at a time."""

    @property
    def traffic(self) -> Traffic:
        """What reading it has cost so far."""

    @property
    def hashes(self) -> Mapping[str, str]:
        """By name, of each file read so far, what the hub says its content is: ``sha256:HEX`` or ``git:HEX`` (blob sha1)."""

    def current_hashes(self, names: Sequence[str]) -> Mapping[str, str]:
        """The same, of the named files at the listed revision, without reading them; names that are not there are left out.

        Raises:
            AdapterError: the revision is not open to us.
            HubError: the hub does not answer.
        """

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

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes]:
        """Several ranges of one file, in the order asked for, each when its turn comes; the hub decides what to fetch together.

        Ranges that ascend come cheapest. Nothing else of the bundle may be read before the last has come.

        Raises:
            AdapterError: the file is missing, ends before a ``stop``, or is another one than when its first range was read.
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
    def traffic(self) -> Traffic:
        """What listing has cost so far; each bundle counts its own."""

    def discover(self, query: Query) -> Iterator[Listing]:
        """Every adapter that fits the query.

        Raises:
            HubError: the hub does not answer.
        """

    def open(self, listing: Listing) -> Bundle:
        """The files of one adapter."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model's repository, and its files at the listed commit."""

    listing: Listing
    bundle: Bundle


@runtime_checkable
class HoldsModels(Protocol):
    """A hub that has the base models too: some adapters say nothing without what they were trained on."""

    def open_model(self, name: str, traffic: Traffic) -> OpenModel:
        """A model at its current commit, in one request.

        Args:
            name: its id; whoever asks has seen that it is one.
            traffic: counts this request and what is read of its files.

        Raises:
            HubAnswerError: it is not there, or not open to us.
            HubError: the hub does not answer.
        """


@runtime_checkable
class Partial(Protocol):
    """A hub that lists only some of what is stored under its name: what it does not list is not gone for that."""

    partial: bool


@runtime_checkable
class Stoppable(Protocol):
    """A hub that waits for others: over a network, for a rate limit."""

    def stop(self) -> None:
        """End every wait and read of every thread within moments, with :class:`hubrank.errors.HubStoppedError`; for good."""
