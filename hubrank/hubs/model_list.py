"""The model list of a hub with the HF Hub's API: repositories, with all that is known of them before a file is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from hubrank.errors import HubAnswerError, HubError
from hubrank.hubs.headers import next_link, origin, shown
from hubrank.hubs.http import Call, Transport
from hubrank.hubs.protocol import Traffic

__all__ = ["PAGE", "Model", "Search", "ask_branches", "ask_model", "list_models", "model_url"]

PAGE = 1000
"""Repositories that one call lists."""

_EXPAND = (
    *("sha", "siblings", "tags", "cardData", "gated", "private", "disabled", "lastModified", "downloads", "pipeline_tag"),
    *("usedStorage", "config"),
)
_MAX_PAGES = 5000
_MAX_BODY = 64_000_000  # a page of a thousand, siblings and cards and all, has a few megabytes
_MAX_REFS = 4_000_000
_MAX_BRANCHES = 64  # each costs a call; AdapterHub's repositories have a handful
_MAX_BRANCH_NAME = 200
_MAX_FILES = 100_000
_HF = ("https", "huggingface.co", 443)
_ID = re.compile(r"[A-Za-z0-9_][\w.\-]{0,95}(?:/(?!\.{1,2}$)[A-Za-z0-9_.\-][\w.\-]{0,95})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Search:
    """What one list is narrowed down to: repositories with all of these tags, of this author, the most downloaded first."""

    tags: tuple[str, ...]
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A repository as it is listed.

    Attributes:
        files: their paths in it.
        card: front matter of the card, as the hub understood it.
        base: the base model that its adapter's config names, where the hub has read it.
        peft_type: of the adapter beside the card, where the hub tells; the HF Hub's own lists give base and task type alone.
        storage: bytes in all.
    """

    id: str
    sha: str
    files: tuple[str, ...]
    tags: tuple[str, ...]
    card: Mapping[str, Any]
    pipeline_tag: str | None
    base: str | None
    peft_type: str | None
    downloads: int
    storage: int | None
    gated: bool
    disabled: bool
    private: bool


def list_models(
    transport: Transport, endpoint: str, search: Search, *, traffic: Traffic, page: int = PAGE
) -> Iterator[list[Model]]:
    """The pages of a list, each asked for when it is wanted.

    Raises:
        HubError: the hub does not answer, or with something else than such a list.
    """
    query = [("filter", tag) for tag in search.tags] + ([("author", search.author)] if search.author else [])
    query += [("sort", "downloads"), ("direction", "-1"), ("limit", str(page)), *(("expand", name) for name in _EXPAND)]
    url: str | None = f"{endpoint}/api/models?{urlencode(query)}"
    seen: set[str] = set()
    known: set[str] = set()
    while url is not None:
        if url in seen or len(seen) >= _MAX_PAGES:
            raise HubError(f"{shown(url)}: the hub's list comes back to a page that it has given already; try again later")
        seen.add(url)
        value, answer = transport.json(Call(url, _MAX_BODY, packed=True, traffic=traffic))
        if not isinstance(value, list):
            raise HubAnswerError("bad answer", f"{shown(url)} was answered with no list", answer.status)
        models = [_model(entry, url) for entry in value]
        new = {model.id for model in models} - known
        more = next_link(answer.headers, url)
        if more is not None and not new:
            raise HubError(f"{shown(url)}: the hub's list brings nothing new, and goes on; try again later")
        known |= new
        yield models
        url = _on_the_hub(more, endpoint, url) if more is not None else None


def ask_model(transport: Transport, endpoint: str, name: str, revision: str, *, traffic: Traffic) -> Model:
    """A repository at another revision than the one listed.

    Raises:
        HubAnswerError: it is not there, or not open to us.
        HubError: the hub does not answer.
    """
    url = f"{model_url(endpoint, name)}/revision/{quote(revision, safe='')}"
    return _model(transport.json(Call(url, _MAX_BODY, packed=True, traffic=traffic))[0], url)


def ask_branches(transport: Transport, endpoint: str, name: str, *, traffic: Traffic) -> Mapping[str, str]:
    """The commit at the head of each branch, of 64 branches at most; names that no adapter needs are left out.

    Raises:
        HubAnswerError: it is not there, or not open to us.
        HubError: the hub does not answer.
    """
    url = f"{model_url(endpoint, name)}/refs"
    value = transport.json(Call(url, _MAX_REFS, packed=True, traffic=traffic))[0]
    branches = value.get("branches") if isinstance(value, dict) else None
    if not isinstance(branches, list):
        raise HubAnswerError("bad answer", f"{shown(url)} was answered with no branches")
    found: dict[str, str] = {}
    for branch in branches:
        match branch:
            case {"name": str(title), "targetCommit": str(commit)} if _COMMIT.fullmatch(commit) and _plain_path(title):
                if len(title) <= _MAX_BRANCH_NAME and len(found) < _MAX_BRANCHES:
                    found[title] = commit
    return found


def model_url(endpoint: str, name: str) -> str:
    """Where a repository is asked about."""
    return f"{endpoint}/api/models/{quote(name)}"


def _on_the_hub(url: str, endpoint: str, before: str) -> str:
    """The next page, which must lie where the list does; a mirror may pass on the HF Hub's own address."""
    try:
        server, home = origin(url), origin(endpoint)
    except ValueError:
        server, home = ("", "", 0), _HF
    if server == _HF != home:
        parts = urlsplit(url)
        return f"{endpoint}{parts.path}?{parts.query}"
    if server != home:
        raise HubError(f"{shown(before)}: the hub's list goes on at another server, which is not asked")
    return url


def _model(entry: object, url: str) -> Model:
    match entry:
        case {"id": str(name), **fields} if _ID.fullmatch(name):
            pass
        case _:
            raise HubAnswerError("bad answer", f"{shown(url)} was answered with what is no list of models")
    sha, card, gated = fields.get("sha"), fields.get("cardData"), fields.get("gated")
    return Model(
        id=name,
        sha=sha if isinstance(sha, str) and _COMMIT.fullmatch(sha) else "main",
        files=_files(fields.get("siblings")),
        tags=tuple(tag for tag in _list(fields.get("tags")) if isinstance(tag, str)),
        card=card if isinstance(card, dict) else {},
        pipeline_tag=_text(fields.get("pipeline_tag")),
        base=_base(fields.get("config")),
        peft_type=_peft_type(fields.get("config")),
        downloads=_count(fields.get("downloads")) or 0,
        storage=_count(fields.get("usedStorage")),
        gated=gated is True or isinstance(gated, str),
        disabled=fields.get("disabled") is True,
        private=fields.get("private") is True,
    )


def _files(siblings: object) -> tuple[str, ...]:
    """Paths that cannot lead elsewhere."""
    names = [entry.get("rfilename") for entry in _list(siblings)[:_MAX_FILES] if isinstance(entry, dict)]
    return tuple(name for name in names if isinstance(name, str) and _plain_path(name))


def _plain_path(path: str) -> bool:
    return path.isprintable() and "\\" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def _base(config: object) -> str | None:
    match config:
        case {"adapter_transformers": {"model_name": str(name)}} | {"peft": {"base_model_name_or_path": str(name)}}:
            return name
        case _:
            return None


def _peft_type(config: object) -> str | None:
    match config:
        case {"peft": {"peft_type": str(name)}}:
            return name
        case _:
            return None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
