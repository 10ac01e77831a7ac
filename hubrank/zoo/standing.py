"""What the store holds of one hub, and what each listing means beside it: nothing to do, to be read, or gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from hubrank.checkpoints.base_names import all_names
from hubrank.checkpoints.peft_families import peft_method
from hubrank.checkpoints.reader import is_comparable
from hubrank.hubs.protocol import Hub, Listing, Partial, Query
from hubrank.zoo.store import Skip, Zoo
from hubrank.zoo.work import wanted_bases

if TYPE_CHECKING:
    from hubrank.types import Source

__all__ = ["OTHER_BASE", "OTHER_METHOD", "Place", "Standing", "Verdict", "is_local", "name_of", "place_of"]

Place: TypeAlias = tuple[str, str | None, str | None]
Verdict: TypeAlias = Literal["new", "changed", "unchanged", "back", "skipped"]

OTHER_BASE, OTHER_METHOD = "other base", "other method"


def is_local(hub: Hub) -> bool:
    """Whether listing a hub asks no network: a folder, or a class of its own that says so with an attribute ``local``."""
    return bool(getattr(hub, "local", hub.name.startswith("folder:")))


def place_of(listing: Listing) -> Place:
    """Where an adapter lies in its hub."""
    return listing.repo, listing.subfolder, listing.branch


def name_of(listing: Listing) -> str:
    """What its source is called, see :class:`hubrank.types.Source`."""
    whole = f"{listing.repo}/{listing.subfolder}" if listing.subfolder else listing.repo
    return f"{whole}@{listing.branch}" if listing.branch else whole


class Standing:
    """What is stored of a hub when a sync begins.

    Attributes:
        known: repositories all of whose adapters, on branches too, were dealt with at a revision.
    """

    def __init__(self, zoo: Zoo, hub: Hub, query: Query) -> None:
        self._zoo, self._hub, self._query = zoo, hub, query
        self._bases, self._methods = wanted_bases(query.bases), frozenset(query.methods)
        self._sources: dict[Place, list[Source]] = defaultdict(list)
        for source in zoo.sources(gone=True):
            if source.hub == hub.name:
                self._sources[source.repo, source.subfolder, source.branch].append(source)
        self.known = frozenset(
            (repo, dealt.revision)
            for repo, dealt in zoo.repos(hub.name).items()
            if _covers(dealt.bases, self._bases) and _covers(dealt.methods, self._methods)
        )
        self._seen: set[Place] = set()
        self._partly: set[str] = set()

    def sources(self, listing: Listing) -> list[Source]:
        """What is stored of an adapter: the parts of its file, the first of them first."""
        return sorted(self._sources.get(place_of(listing), ()), key=lambda source: source.part or "")

    def see(self, listing: Listing) -> bool:
        """Note that an adapter is there; False if that was known, because a hub lists it twice."""
        place = place_of(listing)
        if place in self._seen:
            return False
        self._seen.add(place)
        if listing.closed is not None or (listing.branch is None and (listing.repo, listing.revision) in self.known):
            self._partly.add(listing.repo)
        return True

    def judge(self, listing: Listing) -> tuple[Verdict, Skip | None]:
        """What a listing means; with ``skipped``, what is remembered of it."""
        stored = self.sources(listing)
        older = any(not is_comparable(source.method, source.reader) for source in stored)
        if stored and stored[0].revision == listing.revision and not older:
            return ("back" if any(source.gone for source in stored) else "unchanged"), None
        skip = self._zoo.get_skip(self._hub.name, listing.repo, listing.subfolder, branch=listing.branch)
        if skip is not None and skip.revision == listing.revision and not self._wanted_now(skip):
            return "skipped", skip
        told = peft_method(listing.peft_type)
        if self._methods and told is not None and told not in self._methods:
            return "skipped", Skip(name_of(listing), listing.revision, OTHER_METHOD, told)
        return ("changed" if stored else "new"), None

    def _wanted_now(self, skip: Skip) -> bool:
        """An adapter of another base or method is no worse for that: it is read as soon as somebody wants that one."""
        if skip.reason == OTHER_BASE:
            return not self._bases or skip.detail in self._bases
        if skip.reason == OTHER_METHOD:
            return not self._methods or not self._methods.isdisjoint(skip.detail.split(", "))
        return False

    def gone(self) -> list[Source]:
        """What is stored and was not listed, once a listing has come to its end.

        Only where the listing would have had it: not of a hub that lists a part of what is stored under its name, and not
        under a query that leaves some of the hub out. One of some bases leaves out what is not tagged with them, so there only
        a source whose card had such a tag when it was read can be missed. The branches of a repository that has not moved are
        not listed again, and still there; so may those of one that is closed to us, or did not answer for them.
        """
        if isinstance(self._hub, Partial):
            return []
        query = self._query if not is_local(self._hub) else replace(self._query, bases=())  # a folder is listed whole
        if not replace(query, bases=()).everything:
            return []
        tags = {f"base_model:adapter:{name}".lower() for base in query.bases for name in all_names(base)}
        return [source for source in self._missed() if not tags or tags & {tag.lower() for tag in source.card.tags}]

    def gone_whole(self) -> set[str]:
        """Repositories nothing of which was listed."""
        return {repo for repo, _, _ in self._sources} - {repo for repo, _, _ in self._seen}

    def _missed(self) -> Iterable[Source]:
        for (repo, _, branch), sources in self._sources.items():
            for source in sources:
                there = (repo, source.subfolder, branch) in self._seen or (branch and repo in self._partly)
                if not source.gone and not there:
                    yield source


def _covers(dealt: frozenset[str] | None, wanted: frozenset[str]) -> bool:
    """Whether all that is wanted, which is everything where it is empty, was dealt with."""
    return dealt is None or (bool(wanted) and wanted <= dealt)
