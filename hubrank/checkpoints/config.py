"""Read fields of a config that somebody on the internet wrote: types, ranges and patterns are checked, never trusted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import regex

from hubrank.errors import AdapterError

__all__ = ["MAX_CONFIG_BYTES", "boolean", "integer", "mapping", "match_pattern", "number", "parse_config", "text"]

MAX_CONFIG_BYTES = 4_000_000
_MAX_PATTERN = 256
_MATCH_SECONDS = 0.05
_LITERAL = regex.compile(r"[\w.\-]+")


def parse_config(name: str, raw: bytes) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        AdapterError: with reason ``bad config``.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise AdapterError("bad config", f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise AdapterError("bad config", f"{name} is not a JSON object")
    return value


def integer(config: Mapping[str, Any], key: str, *, default: int, low: int = 1, high: int = 1 << 20) -> int:
    """A whole number in a range; absent or null is ``default``."""
    value = number(config, key, default=default)
    if value != int(value) or not low <= value <= high:
        raise AdapterError("bad config", f"{key} is {value:g}, not a whole number from {low} to {high}")
    return int(value)


def number(config: Mapping[str, Any], key: str, *, default: float) -> float:
    """A finite number; absent or null is ``default``."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 <= value <= 1e9 or math.isnan(value):
        raise AdapterError("bad config", f"{key} is {str(value)[:40]!r}, not a number")
    return float(value)


def boolean(config: Mapping[str, Any], key: str) -> bool:
    """True or false; absent or null is false."""
    value = config.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise AdapterError("bad config", f"{key} is {str(value)[:40]!r}, not true or false")


def text(config: Mapping[str, Any], key: str) -> str | None:
    """A string, or None where it is absent, null or of another type."""
    value = config.get(key)
    return value if isinstance(value, str) and value else None


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; absent or null is empty."""
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 10_000:
        raise AdapterError("bad config", f"{key} is not an object of at most 10,000 entries")
    return value


def match_pattern(patterns: Mapping[str, Any], module: str, *, until: float = math.inf) -> Any:
    """The value of the first key that matches a module path as peft matches it: ``(.*\\.)?(key)$`` from the start.

    Most keys are plain module names and never reach a regular expression engine; the rest run under a time limit. ``until``
    (on the clock of ``time.thread_time``) bounds all keys and modules of one adapter together.

    Raises:
        AdapterError: a key is too long, no regular expression, or takes too long.
    """
    for key, value in patterns.items():
        if time.thread_time() > until:
            raise AdapterError("unsafe pattern", "matching the patterns in the config takes too long")
        if _LITERAL.fullmatch(key):
            if module == key or module.endswith("." + key):
                return value
            continue
        # Counted repeats can make the compiled pattern itself enormous, before any time limit applies.
        if len(key) > _MAX_PATTERN or "{" in key:
            raise AdapterError("unsafe pattern", f"{key[:60]!r} in the config is not matched")
        try:
            if regex.match(rf"(.*\.)?({key})$", module, timeout=_MATCH_SECONDS):
                return value
        except (regex.error, TimeoutError, RecursionError, OverflowError, MemoryError) as error:
            reason = type(error).__name__
            raise AdapterError("unsafe pattern", f"{key[:60]!r} in the config cannot be matched ({reason})") from None
    return None
