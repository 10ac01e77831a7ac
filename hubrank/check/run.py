"""What ``hubrank check`` does, as a function."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.check.base_shapes import base_shapes
from hubrank.check.evidence import Evidence
from hubrank.check.findings import CheckReport, Finding, TargetStanding
from hubrank.check.gather import BaseFacts, read_evidence, stored_evidence
from hubrank.check.judge import apply_policy, expired, judge, unused
from hubrank.check.policy import Policy
from hubrank.check.policy_file import find_policy, read_policy
from hubrank.check.published import Candidate, base_is_there, find_candidates
from hubrank.check.rules import RULES
from hubrank.check.seen import Seen, identity, parse_since, read_seen, write_seen
from hubrank.check.sign import tuned_target
from hubrank.check.standing import standings, stored_hashes
from hubrank.check.targets import Signer, stand, target_findings
from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.errors import AdapterError, BaseModelError, EmptyZooError, HubError, TargetError, UsageError
from hubrank.hubs.folder import FolderBundle
from hubrank.hubs.protocol import Listing
from hubrank.target.base import find_base
from hubrank.types import Source
from hubrank.zoo.store import Zoo

if TYPE_CHECKING:
    from hubrank.ranking.search import Listener

__all__ = ["CheckSettings", "check"]

_DRAWN = 40  # adapters whose signatures stay with the report, for its figures


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How to check.

    Attributes:
        new: judge what entered the zoo since the last check, and remember what has been seen.
        since: with ``new``, since then instead: ``2026-11-01``, ``36h``, ``7d``.
        targets: files of labelled rows; which newcomer leads which of them is said.
        policy: a policy, or a file that holds one; None for the one of the current folder.
        base: base model of the targets; None for the one with the most sources in the zoo.
        offline: ask no hub.
        device: where targets are tuned.
        endpoint: address of another hub with the HF Hub's API; None for the one that HF_ENDPOINT names, or the HF Hub.
    """

    new: bool = False
    since: str | None = None
    targets: tuple[str | Path, ...] = ()
    policy: Policy | str | Path | None = None
    base: str | None = None
    offline: bool = False
    device: str = "auto"
    endpoint: str | None = None


def check(
    adapters: Sequence[str | Path] = (),
    *,
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    listener: Listener | None = None,
    signer: Signer | None = None,
    now: datetime | None = None,
    settings: CheckSettings | None = None,
    **changes: object,
) -> CheckReport:
    """Judge adapters by rules: safe to load, complete, well-formed, honest, useful (docs/rules.md has them all).

    No adapter is run and nothing is unpickled.

    Args:
        adapters: folders, or repositories of the Hub as ``org/name``, ``org/name/subfolder`` or ``org/name@revision``.
        zoo: an open zoo to compare with; else the one in ``cache_dir``.
        signer: tunes a target, or looks it up; None tunes it as a search does.
        now: the time that exceptions end by and newcomers are remembered by.
        settings, changes: fields of :class:`CheckSettings`, as an object or by name.

    Raises:
        UsageError: nothing to check, or a name that is neither a folder nor a repository's.
        InputError: the policy, a target or a repository cannot be used.
        HubError: the Hub is asked and does not answer.
        StoreError: the zoo is damaged, locked, or empty where sources are needed.
    """
    settings = replace(settings or CheckSettings(), **changes)  # type: ignore[arg-type]
    if not adapters and not settings.new and not settings.targets:
        raise UsageError("nothing to check: name a folder or a repository, or say --new or --target FILE")
    if settings.since is not None and not settings.new:
        raise UsageError("--since says what is new; it needs --new")
    missing = [path for path in settings.targets if signer is None and not Path(path).is_file()]
    if missing:
        raise TargetError(missing[0], "no such file")
    opened = zoo or Zoo(cache_dir)
    try:
        return _Check(opened, settings, now or datetime.now(UTC), listener, signer).run(adapters)
    finally:
        if zoo is None:
            opened.close()


class _Check:
    def __init__(
        self, zoo: Zoo, settings: CheckSettings, now: datetime, listener: Listener | None, signer: Signer | None
    ) -> None:
        self.zoo, self.settings, self.now, self.listener, self.signer = zoo, settings, now, listener, signer
        self.policy = _policy(settings.policy)
        self.bases: dict[str, BaseFacts] = {}
        self.held = set(zoo.bases()) if not settings.new else {source.base for source in zoo.sources()}

    def run(self, adapters: Sequence[str | Path]) -> CheckReport:
        started = time.perf_counter()
        sources = self.zoo.sources()
        newcomers: list[Source] = []
        seen = Seen()
        if self.settings.new:
            if not sources:
                raise EmptyZooError(f"{self.zoo.folder}: the zoo is empty; `hubrank sync` fills it")
            seen = read_seen(self.zoo.folder)
            since = parse_since(self.settings.since, self.now) if self.settings.since else None
            newcomers = [source for source in sources if seen.is_new(source, since)]
        found = find_candidates(adapters, offline=self.settings.offline, endpoint=self.settings.endpoint)
        evidences = [self._read(candidate) for candidate in found]
        evidences += [self._newcomer(source) for source in newcomers]
        if evidences:
            self._stage(f"comparing {len(evidences)} adapters with {len(sources)} sources")
        stood = [
            replace(evidence, standing=standing)
            for evidence, standing in zip(evidences, standings(self.zoo, evidences), strict=True)
        ]
        judged = tuple(judge(evidence, self.policy, self.now.date()) for evidence in stood)
        drawn = [replace(one, signature=evidence.signature) for one, evidence in zip(judged, stood[:_DRAWN], strict=False)]
        judged = (*drawn, *judged[_DRAWN:])
        new = {identity(source) for source in newcomers}
        targets = tuple(self._target(path, new) for path in self.settings.targets)
        general = self._general(targets)
        general += expired(judged, self.policy, self.now.date())
        if not self.settings.new:
            general += unused(judged, self.policy)
        kept, _ = apply_policy(general, self.policy, self.now.date())
        if self.settings.new:
            write_seen(self.zoo.folder, seen.after(sources, self.now))
        return CheckReport(
            adapters=judged,
            general=kept,
            targets=targets,
            fail_on=self.policy.fail_on,
            new=tuple(source.name for source in newcomers) if self.settings.new else None,
            policy=self.policy.path,
            notes=self._notes(stood, seen),
            sources=len(sources),
            started=self.now.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - started,
        )

    def _read(self, candidate: Candidate) -> Evidence:
        self._stage(f"reading {candidate.listing.repo}")
        return read_evidence(candidate.hub, candidate.listing, candidate.bundle, self._base, security=candidate.security)

    def _newcomer(self, source: Source) -> Evidence:
        """Of a folder that is still there the files are read again; of a hub's, what the zoo keeps is enough."""
        folder = Path(source.location) if source.location is not None else None
        if folder is None or source.part is not None or not folder.is_dir():
            return stored_evidence(self.zoo, source, stored_hashes(source))
        files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        listing = Listing(source.repo, source.revision, source.subfolder, files, location=source.location)
        return read_evidence(source.hub, listing, FolderBundle(folder), self._base)

    def _base(self, name: str) -> BaseFacts:
        if name not in self.bases:
            self.bases[name] = _look_for_base(name, self.settings, held=name in self.held)
        return self.bases[name]

    def _target(self, path: str | Path, newcomers: set[str]) -> TargetStanding:
        if self.signer is None:
            self.signer = tuned_target(
                self.zoo,
                base=self.settings.base,
                device=self.settings.device,
                offline=self.settings.offline,
                listener=self.listener,
            )
        self._stage(f"ranking for {Path(path).name}")
        return stand(self.signer(path), newcomers, self.policy.target(str(path)))

    def _general(self, targets: Sequence[TargetStanding]) -> list[Finding]:
        return [finding for standing in targets for finding in target_findings(standing, self.policy.target(standing.path))]

    def _notes(self, evidences: Sequence[Evidence], seen: Seen) -> tuple[str, ...]:
        notes = []
        if self.settings.new and seen.last is None:
            notes.append("this is the first check of this zoo: everything in it counts as new")
        stored = sum(not evidence.whole for evidence in evidences)
        if stored:
            what = "newcomer was" if stored == 1 else "newcomers were"
            notes.append(f"{stored} {what} judged by what the zoo keeps; `hubrank check REPO` looks at the files")
        return tuple(notes)

    def _stage(self, message: str) -> None:
        if self.listener is not None:
            self.listener.stage(message)


def _policy(given: Policy | str | Path | None) -> Policy:
    if isinstance(given, Policy):
        return given
    return find_policy(RULES) if given is None else read_policy(given, RULES)


def _look_for_base(name: str, settings: CheckSettings, *, held: bool) -> BaseFacts:
    """What this machine has of a base model; only where it has nothing, and the zoo neither, is the Hub asked."""
    try:
        folder = find_base(name, offline=True).folder
        return BaseFacts("found", base_shapes(folder), FolderTensors(folder))
    except (HubError, BaseModelError, AdapterError):
        pass
    if held or settings.offline:
        return BaseFacts("found" if held else "unasked", {})
    there = base_is_there(name, settings.endpoint)
    return BaseFacts("unasked" if there is None else "found" if there else "missing", {})
