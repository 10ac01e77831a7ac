"""Where the zoo lies on disk, and how to be rid of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hubrank.errors import StoreError, UsageError

__all__ = ["CACHE_TAG", "cache_folder", "clear_store", "tag_folder"]

CACHE_TAG = "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is hubrank's cache; see https://bford.info/cachedir/\n"


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder to use: ``given``, else HUBRANK_CACHE, else ./cache if it holds a CACHEDIR.TAG, else the user's own."""
    if given is not None:
        return Path(given).expanduser().absolute()
    if os.environ.get("HUBRANK_CACHE"):
        return Path(os.environ["HUBRANK_CACHE"]).expanduser().absolute()
    if Path("cache", CACHE_TAG).is_file():
        return Path("cache").absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("hubrank")).absolute()


def tag_folder(folder: Path) -> None:
    """Make a folder and mark it as a cache, for backups to leave out and for :func:`clear_store` to know it by."""
    folder.mkdir(parents=True, exist_ok=True)
    tag = folder / CACHE_TAG
    if not tag.exists():
        tag.write_text(_TAG_TEXT, encoding="utf-8")


def clear_store(folder: Path) -> int:
    """Delete database, packed matrices, what was kept of targets and figures in a cache folder in any state; bytes freed.

    Nothing else in the folder is touched.

    Raises:
        UsageError: the folder does not carry hubrank's tag, so what lies in it may not be ours.
        StoreError: something cannot be deleted.
    """
    parts = [folder / name for name in ("zoo", "packed", "tuned", "placed", "evidence", "measured")]
    if not any(part.exists() for part in parts):
        return 0
    if not (folder / CACHE_TAG).is_file():
        raise UsageError(f"{folder}: holds no {CACHE_TAG}, so it is not taken for hubrank's cache; delete it by hand")
    freed = sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file())
    try:
        for part in parts:
            if part.is_symlink():
                part.unlink()
            elif part.exists():
                shutil.rmtree(part)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be deleted ({error.strerror})") from error
    return freed
