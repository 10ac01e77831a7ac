"""What a sync writes into the store: the outcome of each adapter, and of each repository when all its adapters have one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from hubrank.hubs.protocol import Listing
from hubrank.zoo.standing import OTHER_BASE, OTHER_METHOD, Standing, name_of
from hubrank.zoo.store import DealtWith, Skip, Zoo
from hubrank.zoo.work import Kept, OtherBase, OtherMethod, Refused, Signed, Unanswered

if TYPE_CHECKING:
    from hubrank.types import CardFacts
    from hubrank.zoo.work import Outcome

__all__ = ["Books", "Settled", "What"]

What: TypeAlias = Literal["added", "updated", "unchanged", "skipped"]


@dataclass(frozen=True, slots=True)
class Settled:
    """One adapter has been dealt with."""

    what: What
    skip: Skip | None = None

    @property
    def detail(self) -> str:
        """Why it was skipped."""
        return f"{self.skip.reason}: {self.skip.detail}" if self.skip is not None else ""


@dataclass(slots=True)
class _Repo:
    """How far a repository has been dealt with."""

    revision: str | None = None  # of its default branch
    pending: int = 0
    listed: bool = False  # to its end
    whole: bool = True  # nothing about it may be otherwise tomorrow
    left_out: set[str] = field(default_factory=set)  # it has adapters of a base, or method, that was not asked for


class Books:
    """Writes the outcomes of one hub, each in a transaction of its own.

    That a repository was dealt with is written after all of its adapters: until then, the next sync asks for its branches
    again, so that no kill can lose one.
    """

    def __init__(self, zoo: Zoo, hub: str, standing: Standing, bases: frozenset[str], methods: frozenset[str]) -> None:
        self._zoo, self._hub, self._standing, self._bases, self._methods = zoo, hub, standing, bases, methods
        self._repos: dict[str, _Repo] = {}
        self._listing = ""

    def open(self, listing: Listing) -> None:
        """An adapter is listed. A hub lists those of one repository one after another."""
        if listing.repo != self._listing:
            self.close_repo()
            self._listing = listing.repo
        repo = self._repos.setdefault(listing.repo, _Repo())
        repo.pending += 1
        if listing.branch is None:
            repo.revision = listing.revision

    def close_repo(self) -> None:
        """The repository that was listed last has no more adapters."""
        repo = self._repos.get(self._listing)
        if repo is not None:
            repo.listed = True
            self._close(self._listing, repo)

    def unchanged(self, listing: Listing, *, back: bool) -> Settled:
        """It is stored as it is listed; with ``back``, as one that was gone."""
        if back:
            self._zoo.revise(*(replace(source, gone=False) for source in self._standing.sources(listing)))
        return self._settled(listing, Settled("unchanged"), for_good=True)

    def skipped(self, listing: Listing, skip: Skip) -> Settled:
        """It is known that it cannot be read."""
        return self._settled(listing, Settled("skipped", skip), for_good=True)

    def done(self, listing: Listing, outcome: Outcome) -> Settled:
        """It has been worked on."""
        match outcome:
            case Signed(records):
                self._zoo.put_records(*records)
                stored = self._standing.sources(listing)
                return self._settled(listing, Settled("updated" if stored else "added"), for_good=True)
            case Kept(card):
                return self._settled(listing, self._kept(listing, card), for_good=True)
            case OtherBase(base):
                return self._skip(listing, OTHER_BASE, base, remember=True, for_good=True)
            case OtherMethod(methods):
                return self._skip(listing, OTHER_METHOD, ", ".join(sorted(methods)), remember=True, for_good=True)
            case Refused(reason, detail, lasting):
                return self._skip(listing, reason, detail, remember=lasting, for_good=lasting)
            case Unanswered(message):
                return self._skip(listing, "no answer", message, remember=False, for_good=False)

    def _kept(self, listing: Listing, card: CardFacts) -> Settled:
        stored = self._standing.sources(listing)
        now = int(time.time())
        revised = (
            replace(source, revision=listing.revision, card=card, location=listing.location, gone=False, read_at=now)
            for source in stored
        )
        self._zoo.revise(*revised)
        return Settled("unchanged" if stored[0].card == card else "updated")

    def _skip(self, listing: Listing, reason: str, detail: str, *, remember: bool, for_good: bool) -> Settled:
        skip = Skip(name_of(listing), listing.revision, reason, detail)
        if remember:
            self._zoo.put_skip(self._hub, listing.repo, listing.subfolder, skip, branch=listing.branch)
        return self._settled(listing, Settled("skipped", skip), for_good=for_good)

    def _settled(self, listing: Listing, settled: Settled, *, for_good: bool) -> Settled:
        repo = self._repos[listing.repo]
        repo.pending -= 1
        repo.whole = repo.whole and for_good
        if settled.skip is not None:
            repo.left_out |= {settled.skip.reason} & {OTHER_BASE, OTHER_METHOD}
        self._close(listing.repo, repo)
        return settled

    def _close(self, name: str, repo: _Repo) -> None:
        if repo.pending or not repo.listed:
            return
        del self._repos[name]
        if repo.whole and repo.revision is not None and (name, repo.revision) not in self._standing.known:
            bases = self._bases if OTHER_BASE in repo.left_out else None
            methods = self._methods if OTHER_METHOD in repo.left_out else None
            self._zoo.put_repo(self._hub, name, DealtWith(repo.revision, bases, methods))
