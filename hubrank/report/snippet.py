"""Two lines of Python that load the winner."""

from __future__ import annotations

import os

from hubrank.types import Source

__all__ = ["loading_lines"]


def loading_lines(source: Source, base_folder: str | None = None) -> tuple[str, str]:
    """The import and the call that load a source on its base model; every name is a quoted Python string."""
    where = _shortest(source.location) if source.location is not None else source.repo
    options = "" if source.location is not None else f", revision={source.revision!r}"
    if source.location is None and source.subfolder:
        options += f", subfolder={source.subfolder!r}"
    base = base_folder or source.base
    return (
        "from peft import PeftModel; from transformers import AutoModel",
        f"model = PeftModel.from_pretrained(AutoModel.from_pretrained({base!r}), {where!r}{options})",
    )


def _shortest(location: str) -> str:
    """A path below the current folder is written from there; an address without the hashes that may follow it."""
    if location.startswith(("https://", "http://")):
        return location.partition("#")[0]
    relative = os.path.relpath(location)
    return location if relative.startswith(os.pardir) else relative
