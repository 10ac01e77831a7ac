"""Read one adapter for the rules: its files, its card, what its weights say. Whatever is wrong with it becomes evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hubrank.check.base_shapes import base_misfits
from hubrank.check.evidence import Evidence, Refusal, Security
from hubrank.check.safety import LOADED, PICKLES
from hubrank.checkpoints.bare_files import MANIFEST
from hubrank.checkpoints.base_tensors import BaseTensors
from hubrank.checkpoints.card import MAX_CARD_BYTES, front_matter
from hubrank.checkpoints.config import MAX_CONFIG_BYTES, parse_config
from hubrank.checkpoints.reader import ADAPTERS_WEIGHTS, CONFIG, PEFT_WEIGHTS, base_of, read_adapters, read_card
from hubrank.checkpoints.torch_file import TorchFile
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.signatures.canonical import sign_adapter
from hubrank.types import Adapter, Signature, Site, Source
from hubrank.zoo.store import Zoo

__all__ = ["BaseFacts", "Bases", "read_evidence", "stored_evidence"]

_CARD = "README.md"
_WEIGHTS = (*PEFT_WEIGHTS, *ADAPTERS_WEIGHTS)
_MOST_BESIDE = 256 * 1024**2  # of a pickle that no library loads by itself


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What is at hand of a base model: whether it can be found, the shapes of its modules, its weights."""

    state: Any
    shapes: Mapping[Site, tuple[int, int]]
    tensors: BaseTensors | None = None


Bases: TypeAlias = Callable[[str], BaseFacts]


def read_evidence(hub: str, listing: Listing, bundle: Bundle, bases: Bases, *, security: Security | None = None) -> Evidence:
    """Everything that the rules ask of one adapter, but for how it stands to the zoo.

    Args:
        hub: name of the hub it is from.
        bases: says what is at hand of a base model.
        security: what the Hub's scanners say, where they were asked.

    Raises:
        HubError: the hub does not answer.
    """
    config = _config(listing, bundle)
    front = _front(listing, bundle)
    refusals = _refusals(listing, bundle)
    source: Source | None = None
    signature: Signature | None = None
    failure: Refusal | None = None
    zero_sites, facts = 0, None
    try:
        if CONFIG not in listing.files and MANIFEST not in listing.files:
            raise AdapterError("no config", f"no {CONFIG} and no {MANIFEST}")
        base = base_of(listing, bundle)
        facts = bases(base)
        adapter = _read(listing, bundle, facts.tensors)
        source = _source(hub, listing, bundle, adapter)
        signature = sign_adapter(adapter)
        wanted = sum(bool(len(delta.down)) + (delta.shift is not None) for delta in adapter.deltas)
        zero_sites = wanted - len(signature.factors)
    except AdapterError as error:
        failure = Refusal(_blamed(error, listing), error.reason, error.detail)
    unsafe = failure if failure is not None and failure.reason == "unsafe file" else None
    if unsafe is not None and not any(refusal.file == unsafe.file for refusal in refusals):
        refusals = (*refusals, unsafe)
    hashes: Mapping[str, str] = {}
    with contextlib.suppress(AdapterError):
        hashes = bundle.current_hashes([name for name in _WEIGHTS if name in listing.files])
    return Evidence(
        name=_name(listing),
        repo=listing.repo,
        subfolder=listing.subfolder,
        revision=listing.revision,
        files=listing.files,
        folder=_shortest(listing.location),
        config=config,
        front=front,
        refusals=refusals,
        failure=failure,
        source=source,
        signature=signature,
        zero_sites=zero_sites,
        hashes={name: digest for name, digest in hashes.items() if digest.startswith("sha256:")},
        security=security,
        base_state=facts.state if facts is not None else "unasked",
        base_misfits=base_misfits(signature, facts.shapes) if facts is not None and signature is not None else (),
    )


def stored_evidence(zoo: Zoo, source: Source, hashes: Mapping[str, str]) -> Evidence:
    """What the zoo keeps of a source: its card's facts and its signature, not its files.

    Raises:
        StoreDamagedError: the signature cannot be read.
    """
    return Evidence(
        name=source.name,
        repo=source.repo,
        subfolder=source.subfolder,
        revision=source.revision,
        source=source,
        signature=zoo.signature(source),
        hashes=hashes,
    )


def _read(listing: Listing, bundle: Bundle, tensors: BaseTensors | None) -> Adapter:
    """The first adapter of the file; with the base model's weights only where it cannot be read without, as sync does."""
    try:
        return read_adapters(listing, bundle)[0]
    except AdapterError as error:
        if error.reason != "needs base" or tensors is None:
            raise
        return read_adapters(listing, bundle, base_tensors=tensors)[0]


def _config(listing: Listing, bundle: Bundle) -> Mapping[str, Any] | None:
    if CONFIG not in listing.files:
        return None
    try:
        return parse_config(CONFIG, bundle.read(CONFIG, limit=MAX_CONFIG_BYTES))
    except AdapterError:  # said again, and reported, where the adapter is read
        return None


def _front(listing: Listing, bundle: Bundle) -> Mapping[str, Any] | None:
    if _CARD not in listing.files:
        return None
    try:
        return front_matter(bundle.read_range(_CARD, 0, min(bundle.size(_CARD), MAX_CARD_BYTES)))
    except AdapterError:
        return None


def _refusals(listing: Listing, bundle: Bundle) -> tuple[Refusal, ...]:
    found = []
    for name in sorted(listing.files):
        if not name.endswith(PICKLES) or (name not in LOADED and listing.files[name] > _MOST_BESIDE):
            continue
        try:
            TorchFile(lambda start, stop, name=name: bundle.read_range(name, start, stop), bundle.size(name))  # type: ignore[misc]
        except AdapterError as error:
            if error.reason == "unsafe file":
                found.append(Refusal(name, error.reason, error.detail))
    return tuple(found)


def _blamed(error: AdapterError, listing: Listing) -> str | None:
    """The file that a failure is about, as far as that can be told."""
    if error.reason in ("no config", "bad config", "no base model", "unsupported method", "unsupported variant"):
        return CONFIG if CONFIG in listing.files else None
    return next((name for name in _WEIGHTS if name in listing.files), None)


def _source(hub: str, listing: Listing, bundle: Bundle, adapter: Adapter) -> Source:
    return Source(
        hub=hub,
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
        branch=listing.branch,
    )


def _name(listing: Listing) -> str:
    whole = f"{listing.repo}/{listing.subfolder}" if listing.subfolder else listing.repo
    return f"{whole}@{listing.branch}" if listing.branch else whole


def _shortest(location: str | None) -> str | None:
    """A folder below the current one is written from there, as an annotation must have it."""
    if location is None:
        return None
    path, here = Path(location), Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()
