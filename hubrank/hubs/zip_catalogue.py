"""Where entries of the archived index come from: a checkout of YAML, a copy of its ``dist/v2``, or an address of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubrank.errors import AdapterError, HubError
from hubrank.hubs.yaml_text import parse_yaml
from hubrank.hubs.zip_index import MAX_ENTRY_BYTES, Entry, listed_entry, parse_entry, repo_of

__all__ = ["Found", "Get", "find_index", "folder_entries", "remote_entries"]

_MAX_INDEX_BYTES = 16_000_000
_MAX_ENTRIES = 20_000
_YAML, _JSON = (".yaml", ".yml"), (".json",)
Get = Callable[[str, int], bytes]
"""Fetches an address, at most so many bytes of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in the index under one name; ``entry`` is None where it is malformed.

    Of an entry on the web that has not changed, it has the default version alone, without its place.
    """

    repo: str
    entry: Entry | None
    digest: str = ""


def find_index(root: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that holds ``ORG/NAME`` with an entry each, and how their names end.

    Args:
        root: a checkout of the repository, a ``dist`` or ``dist/v2`` of it, or a folder of the same layout.

    Raises:
        HubError: it is none of these.
    """
    for folder in (root / "adapters", root / "dist" / "v2" / "adapters"):
        for suffixes in (_YAML, _JSON):
            if any(True for _ in _entry_files(folder, suffixes)):
                return folder, suffixes
    raise HubError(f"--hub zips:{root}: no index of AdapterHub there; it holds adapters/ORG/NAME.yaml or .json")


def folder_entries(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Found]:
    """The entries of a folder in the order of their names.

    Raises:
        HubError: there are more than any index has.
    """
    for count, (repo, file) in enumerate(_entry_files(folder, suffixes)):
        if count >= _MAX_ENTRIES:
            raise HubError(f"{folder}: more than {_MAX_ENTRIES:,} entries")
        try:
            with file.open("rb") as opened:
                raw = opened.read(MAX_ENTRY_BYTES + 1)
        except OSError as error:
            yield Found(repo, None, f"unreadable {error.errno}")
            continue
        value = None if len(raw) > MAX_ENTRY_BYTES else _json(raw) if suffixes == _JSON else parse_yaml(raw)
        yield Found(repo, parse_entry(repo, value), _digest(raw))


def remote_entries(
    address: str, get: Get, wanted: Callable[[Entry], bool], known: frozenset[tuple[str, str]]
) -> Iterator[Found]:
    """The wanted entries of a ``dist/v2`` on the web: one request for the list, and one for each that is new or has changed.

    Args:
        wanted: asked of each line of the list.
        known: see :class:`hubrank.hubs.protocol.Query`.

    Raises:
        HubError: it does not answer, or with something else than an index.
    """
    listed = _json(get(f"{address}/all.json", _MAX_INDEX_BYTES))
    if not isinstance(listed, list) or len(listed) > _MAX_ENTRIES:
        raise HubError(f"{address}/all.json is no index of AdapterHub; check the address")
    seen = set()
    for position, value in enumerate(listed):
        summary = listed_entry(value)
        if summary is None:
            yield Found(f"all.json/{position}", None, "malformed")
        elif summary.repo not in seen:
            seen.add(summary.repo)
            if not wanted(summary):
                continue
            if (summary.repo, summary.revision(summary.versions[0])) in known:
                yield Found(summary.repo, summary)
            else:
                yield _remote_entry(address, summary.repo, get)


def _remote_entry(address: str, repo: str, get: Get) -> Found:
    try:
        raw = get(f"{address}/adapters/{repo}.json", MAX_ENTRY_BYTES)
    except AdapterError as error:
        return Found(repo, None, error.reason)
    return Found(repo, parse_entry(repo, _json(raw)), _digest(raw))


def _entry_files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Ordinary files two levels down, with what they are called; links are not followed."""
    for org in _scan(folder):
        if org.is_dir(follow_symlinks=False):
            for file in _scan(Path(org.path)):
                suffix = next((suffix for suffix in suffixes if file.name.endswith(suffix)), None)
                repo = repo_of(org.name, file.name.removesuffix(suffix)) if suffix else None
                if repo is not None and file.is_file(follow_symlinks=False):
                    yield repo, Path(file.path)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _digest(raw: bytes) -> str:
    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()
