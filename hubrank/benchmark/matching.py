"""Which adapter of the zoo a name in a file of measured transfer means."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubrank.types import Source

__all__ = ["Matched", "match_sources"]


@dataclass(frozen=True, slots=True)
class Matched:
    """The zoo's source for each name of the file, None where there is none, and why not, by name."""

    sources: tuple[Source | None, ...]
    unmatched: tuple[tuple[str, str], ...]

    @property
    def found(self) -> tuple[Source, ...]:
        """Those that are there."""
        return tuple(source for source in self.sources if source is not None)


def match_sources(names: Sequence[str], adapters: Sequence[str], zoo: Sequence[Source]) -> Matched:
    """Match by the whole name of a source, by its repository, or by the last folder of either; case counts.

    Args:
        names: to complain by; ``adapters``: to match by.
    """
    by_name: dict[str, list[Source]] = defaultdict(list)
    for source in zoo:
        for name in _names(source):
            by_name[name].append(source)
    found: list[Source | None] = []
    unmatched: list[tuple[str, str]] = []
    for name, adapter in zip(names, adapters, strict=True):
        fitting = by_name.get(adapter.rstrip("/"), [])
        if len(fitting) == 1:
            found.append(fitting[0])
            continue
        found.append(None)
        several = ", ".join(source.name for source in fitting[:3])
        unmatched.append((name, f"means {len(fitting)}: {several}" if fitting else "not in the zoo"))
    twice = Counter(one for one in found if one is not None)
    for i, one in enumerate(found):
        if one is not None and twice[one] > 1:
            unmatched.append((names[i], f"{one.name} is another name's too"))
            found[i] = None
    return Matched(tuple(found), tuple(unmatched))


def _names(source: Source) -> set[str]:
    whole = {source.name, source.repo, source.repo.rpartition("/")[2]}
    if source.subfolder:
        whole |= {f"{source.repo}/{source.subfolder}", source.subfolder.rpartition("/")[2]}
        whole -= {source.repo, source.repo.rpartition("/")[2]}
    if source.location is not None and "#" not in source.location:
        whole.add(Path(source.location).name)
    return whole
