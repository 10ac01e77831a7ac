"""YAML that a stranger wrote: plain values only, and nothing that costs more than its length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["parse_yaml"]

_MAX_DEPTH = 32


def parse_yaml(text: bytes) -> Any:
    """The value of a YAML document; None where it is empty, malformed or means harm.

    Aliases are shared, not copied: what comes back may be its own ancestor, or exponentially large to whoever walks all of it.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if _hostile(yaml.parse(text, Loader=loader)):
            return None
        return yaml.load(text, Loader=loader)  # noqa: S506 -- both are safe loaders
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, AttributeError, LookupError, TypeError):
        # PyYAML's constructors trip over bad scalars under explicit tags (!!int "", !!timestamp x) in all of these ways.
        return None


def _hostile(events: Iterable[Any]) -> bool:
    """Nesting that overruns the C stack of libyaml's composer, and merge keys, which multiply with every level."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        merges = kind == "ScalarEvent" and (event.value == "<<" or str(event.tag).endswith(":merge"))
        if merges or depth > _MAX_DEPTH:
            return True
    return False
