"""Find a stored source by what a person types."""

from __future__ import annotations

import difflib

from hubrank.errors import EmptyZooError, UsageError
from hubrank.types import Source
from hubrank.zoo.store import Zoo

__all__ = ["find_source"]


def find_source(zoo: Zoo, text: str) -> Source:
    """The source whose name is ``text``, or the only one whose name contains it.

    Raises:
        EmptyZooError: the zoo is empty.
        UsageError: no source has that name, or several do.
    """
    sources = zoo.sources(gone=True)
    if not sources:
        raise EmptyZooError(f"{zoo.folder}: the zoo is empty; fill it with `hubrank sync` or `hubrank sync --hub FOLDER`")
    exact = [source for source in sources if source.name == text]
    found = exact or [source for source in sources if text.lower() in source.name.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(source.name for source in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise UsageError(f"{text}: {len(found)} sources match ({names}{more}); give more of the name")
    close = difflib.get_close_matches(text, [source.name for source in sources], n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else "`hubrank ls` lists them"
    raise UsageError(f"{text}: no such source in the zoo; {hint}")
