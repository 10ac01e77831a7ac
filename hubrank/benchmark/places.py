"""Folders that a benchmark is given: rows by name, and adapters that become a zoo for as long as it takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hubrank.errors import EmptyZooError, InputError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs

__all__ = ["files_of_rows", "opened_zoo"]

_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz")


def files_of_rows(folder: str | Path, option: str) -> dict[str, Path]:
    """Files of rows by their name without its ending."""
    where = Path(folder).expanduser()
    if not where.is_dir():
        raise InputError(f"{folder}: no such folder; {option} takes one with NAME.jsonl for each NAME")
    found: dict[str, Path] = {}
    for path in sorted(where.iterdir()):
        ending = next((ending for ending in sorted(_FILES, key=len, reverse=True) if path.name.endswith(ending)), None)
        if ending is not None and path.is_file():
            found.setdefault(path.name.removesuffix(ending), path)
    return found


@contextmanager
def opened_zoo(folder: str | Path | None, cache_dir: str | Path | None) -> Iterator[Zoo]:
    """The zoo in the cache, or one of a folder's adapters that is gone afterwards."""
    if folder is None:
        with Zoo(cache_dir) as zoo:
            if not zoo.sources():
                raise EmptyZooError(
                    f"{zoo.folder}: the zoo is empty; `hubrank sync` fills it, or --zoo names a folder of adapters"
                )
            yield zoo
        return
    hub = FolderHub(folder)
    with tempfile.TemporaryDirectory(prefix="hubrank-bench-") as scratch, Zoo(Path(scratch) / "zoo", create=True) as zoo:
        sync_hubs(zoo, [hub], Query(()))
        if not zoo.sources():
            raise EmptyZooError(f"{folder}: holds no adapter that can be read; --zoo takes a folder of adapter folders")
        yield zoo
