"""What the headers of an answer say, checked: they come from a hub, or from wherever it redirects to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urljoin, urlsplit

__all__ = [
    "Extent",
    "RateLimit",
    "content_length",
    "content_range",
    "etag",
    "next_link",
    "origin",
    "rate_limit",
    "retry_after",
    "shown",
]

_PORTS = {"http": 80, "https": 443}
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_REMAINING, _RESET = re.compile(r";\s*r=(\d{1,9})"), re.compile(r";\s*t=(\d{1,9})")
_QUOTA, _WINDOW = re.compile(r";\s*q=(\d{1,9})"), re.compile(r";\s*w=(\d{1,9})")
_LINK = re.compile(r'<([^<>\s]{1,8000})>((?:\s*;\s*[\w-]{1,40}=(?:"[^"]{0,200}"|[^\s;,"]{1,200})){1,8})')


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes ``start`` to ``stop`` of a file of ``total``."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a hub says of one class of requests, None where it does not: ``remaining`` of ``quota``, anew in ``reset`` s."""

    remaining: int | None
    reset: float | None
    quota: int | None
    window: float | None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port, in lower case: what a token is given to.

    Raises:
        ValueError: it is no address of the web, or carries a user's name.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS or not host or "@" in parts.netloc:
        raise ValueError("not an address of the web")
    return scheme, host, parts.port or _PORTS[scheme]


def shown(url: str) -> str:
    """The path of an address for a message: without the query, which may hold a signature, and without control characters."""
    path = quote(unquote(urlsplit(url).path), safe="/:@") or "/"
    return path if len(path) <= 160 else f"{path[:157]}..."


def content_length(headers: Mapping[str, str]) -> int | None:
    """Bytes of the body, where it is said."""
    value = headers.get("content-length", "")
    return int(value) if re.fullmatch(r"\d{1,18}", value) else None


def content_range(headers: Mapping[str, str]) -> Extent | None:
    """Which bytes a 206 carries; None where it does not say so properly."""
    match = _RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    first, last, total = (int(group) for group in match.groups())
    return Extent(first, last + 1, total) if first <= last < total else None


def etag(headers: Mapping[str, str], name: str = "etag") -> str | None:
    """An entity tag without its quotes, as huggingface_hub reads it."""
    value = headers.get(name, "").removeprefix("W/").strip('"')
    return value if re.fullmatch(r"[\x21-\x7e]{1,200}", value) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, whether the hub says seconds or a date; never negative."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """``RateLimit: "api";r=489;t=189`` and ``RateLimit-Policy: "fixed window";"api";q=500;w=300``, or None."""
    state, policy = headers.get("ratelimit", "")[:500], headers.get("ratelimit-policy", "")[:500]
    numbers = [
        int(match[1]) if (match := pattern.search(text)) else None
        for pattern, text in ((_REMAINING, state), (_RESET, state), (_QUOTA, policy), (_WINDOW, policy))
    ]
    return RateLimit(*numbers) if any(number is not None for number in numbers) else None


def next_link(headers: Mapping[str, str], url: str) -> str | None:
    """The address of the next page, made absolute."""
    for match in _LINK.finditer(headers.get("link", "")[:20_000]):
        if re.search(r';\s*rel="?next"?\s*(?:;|$)', match[2]):
            return str(urljoin(url, match[1]))
    return None
