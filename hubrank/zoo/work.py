"""Download and sign one adapter: a plain function of what can be sent to another process, the same wherever it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from hubrank.checkpoints.bare_files import MANIFEST
from hubrank.checkpoints.base_names import canonical_name
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.reader import CONFIG, READER_VERSION, base_of, card_base, methods_of, read_adapters, read_card
from hubrank.checkpoints.tensor_files import SUFFIXES
from hubrank.errors import AdapterError, HubError
from hubrank.hubs.protocol import Hub, Listing, Traffic
from hubrank.signatures.canonical import sign_adapter
from hubrank.signatures.encoding import encode_signature
from hubrank.types import Adapter, CardFacts, Source
from hubrank.zoo.held import Gate, HeldBundle
from hubrank.zoo.store import Record

__all__ = [
    "BaseProvider",
    "Done",
    "Job",
    "Kept",
    "OtherBase",
    "OtherMethod",
    "Outcome",
    "Refused",
    "Signed",
    "Unanswered",
    "wanted_bases",
    "work_on",
]

BaseProvider: TypeAlias = Callable[[str], BaseTensors | None]
"""The tensors of a base model by its id; None where it is not at hand, or an AdapterError that says why."""

_MOST_FILES = 64  # of more, hashes would be most of a record


@dataclass(frozen=True, slots=True)
class Job:
    """One adapter to read.

    Attributes:
        bases: canonical ids of the bases that are wanted; empty for all.
        former: what is stored of it at another revision.
        methods: that are wanted; empty for all.
    """

    hub: Hub
    listing: Listing
    bases: frozenset[str] = frozenset()
    former: Source | None = None
    methods: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Signed:
    """It was read: its records, one for each method in its file."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """The files that matter are those that were read before; only what the card says may be new."""

    card: CardFacts


@dataclass(frozen=True, slots=True)
class OtherBase:
    """It belongs to a base model that is not wanted."""

    base: str


@dataclass(frozen=True, slots=True)
class OtherMethod:
    """All its methods are others than those that are wanted."""

    methods: frozenset[str]


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be read; the fields are those of :class:`AdapterError`."""

    reason: str
    detail: str
    lasting: bool


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The hub failed while it was read."""

    message: str


Outcome: TypeAlias = Signed | Kept | OtherBase | OtherMethod | Refused | Unanswered


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job, and what that cost."""

    outcome: Outcome
    traffic: Traffic = field(default_factory=Traffic)


def work_on(job: Job, *, base_tensors: BaseProvider | None = None, gate: Gate | None = None) -> Done:
    """Read one adapter and sign it. Touches no store, and raises nothing that a hub or an adapter may be to blame for.

    Args:
        base_tensors: finds the tensors of a base model, for adapters that cannot be read without.
        gate: shared by all that read in this process at once.
    """
    try:
        bundle = HeldBundle(job.hub.open(job.listing), gate or Gate())
    except AdapterError as error:
        return Done(Refused(error.reason, error.detail, error.lasting))
    except HubError as error:
        return Done(Unanswered(str(error)))
    outcome: Outcome
    try:
        outcome = _outcome(job, bundle, base_tensors)
    except AdapterError as error:
        outcome = Refused(error.reason, error.detail, error.lasting)
    except HubError as error:
        outcome = Unanswered(str(error))
    finally:
        bundle.release()
    return Done(outcome, bundle.traffic)


def _outcome(job: Job, bundle: HeldBundle, base_tensors: BaseProvider | None) -> Outcome:
    listing = job.listing
    if listing.closed is not None and not listing.files:
        raise AdapterError(listing.closed, "the hub did not say what is there", lasting=False)
    if job.former is not None and _same_files(job.former, listing, bundle):
        return Kept(read_card(listing, bundle))
    if CONFIG in listing.files or MANIFEST in listing.files:
        with contextlib.suppress(AdapterError):  # the reader says it better, and the same whatever was asked for
            if job.bases and (base := base_of(listing, bundle)) not in job.bases:
                return OtherBase(base)
            if job.methods and job.methods.isdisjoint(methods := methods_of(listing, bundle)):
                return OtherMethod(methods)
    adapters = _read(listing, bundle, base_tensors)
    if job.bases and adapters[0].base not in job.bases:
        return OtherBase(adapters[0].base)
    signatures = [encode_signature(sign_adapter(adapter)) for adapter in adapters]
    sources = [_source(job, adapter, bundle, first=adapter is adapters[0]) for adapter in adapters]
    return Signed(tuple(Record(source, data) for source, data in zip(sources, signatures, strict=True)))


def _read(listing: Listing, bundle: HeldBundle, base_tensors: BaseProvider | None) -> tuple[Adapter, ...]:
    """Read an adapter from its own files; only where that cannot be done, with the base model's tensors beside them.

    So that all adapters of a method are described alike, whether or not somebody has the base model on disk.
    """
    try:
        return read_adapters(listing, bundle)
    except AdapterError as error:
        if error.reason != "needs base":
            raise
        tensors = _base(base_of(listing, bundle), base_tensors, error)
        return read_adapters(listing, bundle, base_tensors=tensors)


def _base(name: str, base_tensors: BaseProvider | None, needed: AdapterError) -> BaseTensors:
    """The base model's tensors; ``needed`` says what for, and is raised again where they cannot be had."""
    why = ""
    try:
        tensors = base_tensors(name) if base_tensors is not None else None
    except AdapterError as error:
        tensors, why = None, f"; {error.detail}"
    if tensors is None:
        raise AdapterError("needs base", needed.detail + why, lasting=False) from needed
    return tensors


def _source(job: Job, adapter: Adapter, bundle: HeldBundle, *, first: bool) -> Source:
    listing = job.listing
    return Source(
        hub=job.hub.name,
        repo=listing.repo,
        revision=listing.revision,
        subfolder=listing.subfolder,
        base=adapter.base,
        method=adapter.method,
        rank=max(delta.rank for delta in adapter.deltas),
        card=read_card(listing, bundle),
        warnings=adapter.warnings,
        location=listing.location,
        variant=adapter.variant,
        part=None if first else adapter.method,
        branch=listing.branch,
        files=_files(listing, bundle),
        card_base=card_base(listing, bundle),
        reader=READER_VERSION,
        read_at=int(time.time()),
    )


def _that_matter(listing: Listing) -> set[str]:
    """The files that decide what is read: those that are, and those that would be if the others were not there."""
    return {name for name in listing.files if name.endswith(SUFFIXES) or name in (CONFIG, MANIFEST)}


def _files(listing: Listing, bundle: HeldBundle) -> tuple[tuple[str, str], ...]:
    """For a later revision to be compared with; nothing where the hub gives no hashes, or the folder holds too much."""
    names, hashes = _that_matter(listing), bundle.hashes
    read = bundle.touched & names
    if len(names) > _MOST_FILES or not read <= set(hashes):
        return ()
    return tuple((name, hashes[name] if name in read else "") for name in sorted(names))


def _same_files(former: Source, listing: Listing, bundle: HeldBundle) -> bool:
    if not former.files or former.reader != READER_VERSION:
        return False
    if {name for name, _ in former.files} != _that_matter(listing) or former.card_base != card_base(listing, bundle):
        return False
    read = {name: content for name, content in former.files if content}
    return dict(bundle.current_hashes(sorted(read))) == read


def wanted_bases(bases: tuple[str, ...]) -> frozenset[str]:
    """The canonical ids of the bases of a query."""
    return frozenset(canonical_name(base) for base in bases)
