"""Text from a hub that must not act on who reads a job's log.

A CI runner takes lines for commands: GitHub's any that begins with ``::``, whatever blanks are before it, and any that holds
``##[``. Escapes of the format keep the text as it was where there are any; elsewhere a blank comes between.
"""

from __future__ import annotations

import json
from typing import Any

from hubrank.report.text import plain

__all__ = ["inert", "inert_json", "workflow_message", "workflow_property"]

_LONGEST = 300


def inert(text: str, limit: int = _LONGEST) -> str:
    """One line without control characters in which no runner sees a command."""
    return _apart(plain(text, limit))


def inert_json(value: Any) -> str:
    """Indented ASCII JSON that reads back as it was."""
    text = json.dumps(value, indent=2, allow_nan=False)
    return text.replace("::", "\\u003a\\u003a").replace("##[", "#\\u0023[")


def workflow_message(text: str, limit: int = 2000) -> str:
    """The message of a GitHub workflow command."""
    return inert(text, limit).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def workflow_property(text: str, limit: int = _LONGEST) -> str:
    """A property of a GitHub workflow command, such as its file."""
    return workflow_message(text, limit).replace(":", "%3A").replace(",", "%2C")


def _apart(text: str) -> str:
    while "::" in text:
        text = text.replace("::", ": :")
    return text.replace("##[", "## [")
