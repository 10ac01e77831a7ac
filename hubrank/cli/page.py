"""Writing an HTML report: what made it, and where it goes."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path

from hubrank._version import VERSION
from hubrank.errors import UsageError

__all__ = ["command_line", "versions", "write_page"]

_PACKAGES = ("numpy", "torch", "transformers", "peft", "huggingface_hub", "safetensors")


def command_line() -> str:
    """The command as a shell takes it."""
    return shlex.join(["hubrank", *sys.argv[1:]])


def versions() -> list[tuple[str, str]]:
    """hubrank, Python, and the packages that the numbers depend on."""
    found = [("hubrank", VERSION), ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in _PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_page(path: Path, document: str) -> None:
    """Write a page.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_text(document, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise UsageError(f"--report {path}: cannot be written ({error.strerror})") from error
