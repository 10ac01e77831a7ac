"""The Hugging Face Hub: adapters are listed by tag, a thousand repositories a call, and read at the listed commit.

Nothing is asked about a repository that has not moved. Of one that has, only what matters is fetched: the config, and of the
weights the header and the wanted tensors.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from hubrank.errors import AdapterError, HubAnswerError
from hubrank.hubs.budget import Budget
from hubrank.hubs.http import Call, Transport
from hubrank.hubs.identity import hub_endpoint
from hubrank.hubs.matching import fits, searches
from hubrank.hubs.model_list import PAGE, Model, Search, ask_branches, ask_model, list_models, model_url
from hubrank.hubs.protocol import Listing, OpenModel, Query, Traffic
from hubrank.hubs.ranged_files import MAX_WHOLE, RangedFile

__all__ = ["VERSIONED", "HubBundle", "HuggingFaceHub", "listings"]

VERSIONED = "adapter-transformers"
"""The tag of repositories of the ``adapters`` library, which keep versions on branches."""

_TAGS = ("peft", VERSIONED)
# What makes a folder of a repository an adapter's.
_MARKERS = ("adapter_config.json", "hubrank.json")
# Read from their beginning: safetensors by ranges, cards as far as they matter. Everything else is fetched whole.
_BY_RANGES = (".safetensors", ".md")
_MAX_ANSWER = 16_000_000
_LASTING = frozenset({"file too large"})
_UNKNOWN = "(branches)"  # no branch can be called so
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class HuggingFaceHub:
    """Adapters on the HF Hub.

    Args:
        endpoint: address of another hub with the same API; None for the one that HF_ENDPOINT names, or the HF Hub.
        transport: makes the requests, many threads' at once; one of our own where it is None.
        budget: counts the requests of that one of our own.
    """

    name = "hf"
    _tags: tuple[str, ...] = _TAGS

    def __init__(
        self, endpoint: str | None = None, *, transport: Transport | None = None, budget: Budget | None = None
    ) -> None:
        self.endpoint = (endpoint or hub_endpoint()).rstrip("/")
        self.transport = transport or Transport.for_hub(self.endpoint, budget=budget)
        self.traffic = Traffic()

    def discover(self, query: Query) -> Iterator[Listing]:
        """Adapters tagged ``peft`` or ``adapter-transformers`` that fit the query, the most downloaded of each tag first.

        A repository of ``adapters`` keeps versions on branches: they are listed after it, where it is new or has moved.

        Raises:
            HubError: the hub does not answer, or refuses.
        """
        seen: set[str] = set()
        for search in self._searches(query):
            for page in self._pages(search, query, len(seen)):
                for model in page:
                    if model.id in seen or not fits(model, query):
                        continue
                    if query.limit is not None and len(seen) >= query.limit:
                        return
                    seen.add(model.id)
                    closed = self._closed(model)
                    yield from listings(model, closed=closed)
                    if self._versioned(model) and closed is None and (model.id, model.sha) not in query.known:
                        yield from self._branches(model)
                if query.min_downloads is not None and page and page[-1].downloads < query.min_downloads:
                    break  # those that follow have no more

    def open(self, listing: Listing) -> HubBundle:
        """The files of one adapter at the listed commit, each fetched when it is first asked for."""
        return HubBundle(self.transport, self.endpoint, listing)

    def open_model(self, name: str, traffic: Traffic) -> OpenModel:
        """A model's own files, those at the root of its repository, at its current commit.

        Raises:
            HubAnswerError: it is not there, or not open to us.
            HubError: the hub does not answer.
        """
        model = ask_model(self.transport, self.endpoint, name, "main", traffic=traffic)
        files = {path: -1 for path in model.files if "/" not in path}
        listing = Listing(model.id, model.sha, None, files, closed=self._closed(model))
        return OpenModel(listing, HubBundle(self.transport, self.endpoint, listing, traffic))

    def stop(self) -> None:
        """End every wait and read of every thread within moments; this hub answers nothing any more."""
        self.transport.stop()

    def _searches(self, query: Query) -> list[Search]:
        """Adapters of peft by the tag that names their base; those of ``adapters`` seldom have it, but are few."""
        found = []
        for tag in self._tags:
            narrow = tag != VERSIONED and query.bases
            for base in query.bases if narrow else ("",):
                for search in searches(query, [tag]):
                    more = (f"base_model:adapter:{base}",) if base else ()
                    found.append(replace(search, tags=(*search.tags, *more)))
        return found

    def _pages(self, search: Search, query: Query, count: int) -> Iterator[list[Model]]:
        page = PAGE
        if query.limit is not None and replace(query, bases=(), limit=None, known=frozenset()).everything:
            page = min(PAGE, max(20, query.limit - count))  # hardly any of them will be left out here
        return list_models(self.transport, self.endpoint, search, traffic=self.traffic, page=page)

    def _versioned(self, model: Model) -> bool:
        """Whether its branches are versions."""
        return VERSIONED in model.tags

    def _closed(self, model: Model) -> str | None:
        if model.disabled:
            return "disabled"
        return "gated" if model.gated and not self.transport.has_token else None

    def _branches(self, model: Model) -> Iterator[Listing]:
        asked = (self.transport, self.endpoint, model.id)
        try:
            branches = ask_branches(*asked, traffic=self.traffic)
        except HubAnswerError as error:  # a listing that says so: whoever marks what is gone must know
            yield Listing(model.id, model.sha, None, {}, branch=_UNKNOWN, closed=error.reason)
            return
        for branch, commit in branches.items():
            if commit == model.sha:
                continue
            try:
                found = ask_model(*asked, commit, traffic=self.traffic)
            except HubAnswerError as error:
                yield Listing(model.id, commit, None, {}, branch=branch, closed=error.reason)
                continue
            for listing in listings(found):
                yield replace(listing, branch=branch)


class HubBundle:
    """The files of one adapter of a hub, at the listed commit. Used by one thread at a time.

    Args:
        transport: makes the requests.
        endpoint: address of the hub.
        listing: of the adapter.
        traffic: counts what is read, where there is such a count already.
    """

    def __init__(self, transport: Transport, endpoint: str, listing: Listing, traffic: Traffic | None = None) -> None:
        self._transport, self._endpoint, self._listing = transport, endpoint, listing
        self._files: dict[str, RangedFile] = {}
        self.traffic = traffic if traffic is not None else Traffic()

    @property
    def hashes(self) -> Mapping[str, str]:
        """Of the files read so far, as far as the hub says."""
        return {name: file.hash for name, file in self._files.items() if file.hash is not None}

    def current_hashes(self, names: Sequence[str]) -> Mapping[str, str]:
        """Of the named files at the listed revision, in one request."""
        with self._errors():
            self._open_to_us()
            paths = {self._path(name): name for name in names}
            url = f"{model_url(self._endpoint, self._listing.repo)}/paths-info/{quote(self._listing.revision, safe='')}"
            post = json.dumps({"paths": list(paths), "expand": False}).encode()
            value, answer = self._transport.json(Call(url, _MAX_ANSWER, post=post, traffic=self.traffic))
            if not isinstance(value, list):
                raise HubAnswerError("bad answer", f"{self._listing.repo}: the hub tells no hashes", answer.status)
        found = {}
        for entry in value:
            match entry:
                case {"path": str(path), "lfs": {"oid": str(oid)}} if path in paths and _HASH.fullmatch(oid):
                    found[paths[path]] = f"sha256:{oid}"
                case {"path": str(path), "oid": str(oid)} if path in paths and _HASH.fullmatch(oid):
                    found[paths[path]] = f"git:{oid}"
        return found

    def size(self, name: str) -> int:
        """Size in bytes."""
        return self._file(name).size

    def read(self, name: str, *, limit: int) -> bytes:
        """The whole file, if it is no longer than ``limit``; if its headers say that it is, none of it is read."""
        file = self._file(name, limit=limit)
        if file.size > limit:
            raise AdapterError("file too large", f"{name} has {file.size:,} bytes; at most {limit:,} are read")
        return self.read_range(name, 0, file.size)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        file = self._file(name)
        with self._errors():
            return file.read_range(start, stop)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Several ranges of one file; neighbours come by one request, each range as it arrives."""
        file = self._file(name)
        with self._errors():
            yield from file.read_ranges(ranges)

    def _file(self, name: str, *, limit: int = MAX_WHOLE) -> RangedFile:
        if name not in self._files:
            with self._errors():
                self._open_to_us()
                url = f"{self._endpoint}/{quote(self._listing.repo)}/resolve/{quote(self._listing.revision, safe='')}/"
                self._files[name] = RangedFile(
                    self._transport,
                    url + quote(self._path(name)),
                    revision=self._listing.revision,
                    traffic=self.traffic,
                    whole=not name.endswith(_BY_RANGES),
                    limit=limit,
                )
        return self._files[name]

    def _path(self, name: str) -> str:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise AdapterError("unsafe path", f"{name!r} is not a plain file name")
        if name not in self._listing.files:
            raise AdapterError("file missing", f"{self._listing.repo} has no {name}")
        return f"{self._listing.subfolder}/{name}" if self._listing.subfolder else name

    def _open_to_us(self) -> None:
        repo = self._listing.repo
        if self._listing.closed == "gated":
            raise AdapterError("gated", f"{repo} wants its terms accepted on the Hub, and HF_TOKEN set", lasting=False)
        if self._listing.closed is not None:
            raise AdapterError(self._listing.closed, f"{repo} is {self._listing.closed} on the Hub", lasting=False)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What goes wrong with one file is a matter of this adapter; what goes wrong with the hub is not."""
        try:
            yield
        except HubAnswerError as error:
            raise AdapterError(error.reason, error.detail, lasting=error.reason in _LASTING) from error


def listings(model: Model, *, closed: str | None = None) -> Iterator[Listing]:
    """One listing a folder of the repository that holds an adapter; checkpoints of a training run are left out."""
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    for path in model.files:
        folder, _, name = path.rpartition("/")
        folders[folder][name] = -1
    # The Hub's own tags say more than the card's: it adds dataset, licence and base.
    card = {**model.card, "tags": list(model.tags)} if model.card or model.tags else {}
    for folder, files in sorted(folders.items()):
        if any(marker in files for marker in _MARKERS) and not _is_checkpoint(folder.split("/")):
            told = None if folder else model.peft_type  # the hub has looked at what lies beside the card alone
            yield Listing(
                model.id, model.sha, folder or None, files, card, storage=model.storage, closed=closed, peft_type=told
            )


def _is_checkpoint(parts: Iterable[str]) -> bool:
    return any(part.startswith("checkpoint-") for part in parts)
