"""One entry of AdapterHub's archived index: an adapter, and the zip file of each of its versions.

The index is the repository ``adapter-hub/Hub``. Its sources are YAML (``adapters/ORG/NAME.yaml``, checked against
``scripts/schemas/adapter.schema.json`` there); its generated ``dist/v2`` says the same in JSON (``scripts/generate.py``):
``all.json`` lists all entries with the sha1 of their default version, ``adapters/ORG/NAME.json`` holds one whole. Both forms
give the same listings here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urldefrag, urlencode, urlsplit

from hubrank.hubs.protocol import Listing, Query

__all__ = [
    "MAX_ENTRY_BYTES",
    "MEMBERS",
    "Entry",
    "Version",
    "fits",
    "listed_entry",
    "listings",
    "parse_entry",
    "place",
    "repo_of",
    "zip_of",
]

MAX_ENTRY_BYTES = 256_000
MEMBERS = ("adapter_config.json", "pytorch_adapter.bin")
"""What the zip files hold of an adapter itself: all of them were packed before the library wrote safetensors."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_URL = re.compile(r"https?://[\x21-\x7e]{1,2000}")
_MAX_VERSIONS = 64
_MAX_TEXT = 200
# What text_lang adapters were trained on, all of them; dist/v2 does not keep an entry's type.
_LANGUAGE_SUBTASK = "wiki"


@dataclass(frozen=True, slots=True)
class Version:
    """One zip file. ``url`` is None where the index gives none that could be fetched, or a hash that is none."""

    name: str
    url: str | None
    sha1: str | None
    sha256: str | None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An adapter of the index.

    Attributes:
        repo: ``ORG/NAME``, after the entry's file.
        base: name of the base model.
        task, subtask: AdapterHub's own, such as ``nli`` and ``multinli``; of a language adapter the code and ``wiki``.
        language: of a language adapter, its code.
        architecture: such as ``pfeiffer``, and what of it is changed; empty where the index does not say.
        default: name of the version that is meant where none is named.
        versions: the default one first.
    """

    repo: str
    base: str
    task: str
    subtask: str
    language: str | None
    architecture: tuple[str, ...]
    default: str
    versions: tuple[Version, ...]

    def revision(self, version: Version) -> str:
        """40 hex digits that change with the zip file's content and with what the index says of the adapter."""
        content = version.sha1 or version.sha256 or version.url
        return hashlib.sha1(
            json.dumps([self.base, self.task, self.subtask, content]).encode(), usedforsecurity=False
        ).hexdigest()

    @property
    def card(self) -> Mapping[str, object]:
        """What the index says, in the terms of a model card, as AdapterHub's own migration wrote them."""
        card: dict[str, object] = {
            "tags": ["adapter-transformers", f"adapterhub:{self.task}/{self.subtask}", *self.architecture],
            "base_model": self.base,
        }
        if self.language:
            card["language"] = [self.language]
        return card


def parse_entry(repo: str, value: object) -> Entry | None:
    """An entry from its YAML or its JSON; None where it is not what an entry must be.

    Args:
        repo: ``ORG/NAME``, from the place of the file, never from what is in it.
        value: hostile; only the fields known are looked at, aliases and all.
    """
    if not isinstance(value, dict):
        return None
    stated = value.get("info")
    info: Mapping[str, Any] = stated if isinstance(stated, dict) else value
    texts = [_text(info, key) for key in ("model_name", "task", "subtask")]
    default = _version_name(value.get("default_version"))
    versions = _versions(value.get("files"))
    if None in texts or default not in versions:
        return None
    base, task, subtask = (text or "" for text in texts)
    ordered = (versions.pop(default), *versions.values()) if default else ()
    return Entry(
        repo=repo,
        base=base,
        task=task,
        subtask=subtask,
        language=_language(info, task, subtask),
        architecture=_architecture(info),
        default=default or "",
        versions=ordered,
    )


def listed_entry(value: object) -> Entry | None:
    """An entry as ``all.json`` lists it: all but where its zip files are; None where it is malformed or has no sha1."""
    if not isinstance(value, dict) or not isinstance(value.get("adapter_id"), str):
        return None
    org, _, name = value["adapter_id"].removeprefix("@").partition("/")
    repo, sha1 = repo_of(org, name), _hash(value.get("sha1_checksum"), 40)
    if repo is None or sha1 is None:
        return None
    files = {"default": {"sha1": sha1, "url": None}}
    return parse_entry(repo, {"info": value, "default_version": "default", "files": files})


def repo_of(org: str, name: str) -> str | None:
    """``ORG/NAME``, or None where these are no names."""
    return f"{org}/{name}" if _NAME.fullmatch(org) and _NAME.fullmatch(name) else None


def fits(entry: Entry, query: Query) -> bool:
    """Whether an entry is wanted; the index knows no licences and counts no downloads."""
    return (
        (not query.bases or entry.base in query.bases)
        and (not query.tasks or bool({entry.task, f"{entry.task}/{entry.subtask}"} & set(query.tasks)))
        and (not query.languages or entry.language in query.languages)
        and (not query.authors or entry.repo.partition("/")[0] in query.authors)
        and not query.licenses
    )


def listings(entry: Entry) -> Iterator[Listing]:
    """One listing a version, the default one first; the others are on a branch of their name."""
    for version in entry.versions:
        card = dict(entry.card)
        if version.score is not None:
            metrics = [{"name": "score", "value": version.score}]
            card["model-index"] = [{"results": [{"dataset": {"name": f"{entry.task}/{entry.subtask}"}, "metrics": metrics}]}]
        yield Listing(
            repo=entry.repo,
            revision=entry.revision(version),
            subfolder=None,
            files=dict.fromkeys(MEMBERS, -1),
            card=card,
            location=place(version),
            branch=None if version.name == entry.default else version.name,
        )


def place(version: Version) -> str | None:
    """Where a zip file is, and after a ``#`` what its hashes are."""
    if version.url is None:
        return None
    hashes = {name: value for name, value in (("sha1", version.sha1), ("sha256", version.sha256)) if value}
    return f"{version.url}#{urlencode(hashes)}"


def zip_of(location: str) -> Version:
    """What :func:`place` wrote, read back."""
    url, fragment = urldefrag(location)
    hashes = parse_qs(fragment)
    sha1, sha256 = (found[0] if (found := hashes.get(name)) else None for name in ("sha1", "sha256"))
    return Version("", url, sha1, sha256)


def _versions(files: object) -> dict[str, Version]:
    """By name, from YAML's list or JSON's object; what has no name or has one that is taken is left out."""
    if isinstance(files, dict):
        pairs = [(name, file) for name, file in list(files.items())[:_MAX_VERSIONS] if isinstance(file, dict)]
    elif isinstance(files, list):
        pairs = [(file.get("version"), file) for file in files[:_MAX_VERSIONS] if isinstance(file, dict)]
    else:
        pairs = []
    versions: dict[str, Version] = {}
    for stated, file in pairs:
        name = _version_name(stated)
        if name is not None:
            versions.setdefault(name, _version(name, file))
    return versions


def _version(name: str, file: Mapping[str, Any]) -> Version:
    sha1, sha256 = _hash(file.get("sha1"), 40), _hash(file.get("sha256"), 64)
    # A hash that is none must not lead to a file that nobody checks.
    spoilt = (file.get("sha1") and sha1 is None) or (file.get("sha256") and sha256 is None)
    return Version(name, None if spoilt else _url(file.get("url")), sha1, sha256, _number(file.get("score")))


def _version_name(value: object) -> str | None:
    # An unquoted 1 in YAML is a number.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else value
    return text if isinstance(text, str) and _NAME.fullmatch(text) else None


def _url(value: object) -> str | None:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        return None
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and "@" not in parts.netloc and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return urldefrag(value).url if usable else None


def _hash(value: object, digits: int) -> str | None:
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if len(text) == digits and not set(text) - set("0123456789abcdef") else None


def _text(value: Mapping[str, Any], key: str) -> str | None:
    text = value.get(key)
    return text.strip() if isinstance(text, str) and text.strip() and len(text) <= _MAX_TEXT else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
        return None
    return float(value)


def _language(info: Mapping[str, Any], task: str, subtask: str) -> str | None:
    kind = info.get("type")
    return task if kind == "text_lang" or (kind is None and subtask == _LANGUAGE_SUBTASK) else None


def _architecture(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Its name and overrides, such as ``pfeiffer`` and ``reduction_factor:2``; dist/v2 has them written out, without a name."""
    config = info.get("config")
    stated = config if isinstance(config, dict) else info.get("adapter_config")
    if not isinstance(stated, dict):
        return ()
    named = [name] if (name := _text(stated, "using")) else []
    numbers = [f"reduction_factor:{factor:g}"] if (factor := _number(stated.get("reduction_factor"))) is not None else []
    activation = [f"non_linearity:{name}"] if (name := _text(stated, "non_linearity")) else []
    return (*named, *activation, *numbers)
