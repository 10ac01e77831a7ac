"""A folder as a hub: laid out like one (``org/name/``), or a training output, or a single adapter."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hubrank.errors import AdapterError, HubError
from hubrank.hubs.protocol import Listing, Query, Traffic

__all__ = ["FolderBundle", "FolderHub"]

# A config of peft or of the adapters library, or the note beside weights that came without one.
_MARKERS = ("adapter_config.json", "hubrank.json")
_DEPTH = 6
# Of a training output, only what belongs to the adapter; optimizer states and checkpoints are never looked at.
_SKIPPED_FOLDERS = ("checkpoint-", ".", "__pycache__")
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state(_\d+)?)\.(pt|bin|pth)")
_HASHED = (".json", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npy", ".npz", ".md")


class FolderHub:
    """Adapters under a folder: whatever lies beside an ``adapter_config.json`` or a ``hubrank.json``.

    ``ROOT/org/name/adapter_config.json`` is ``org/name``; deeper folders are its subfolders; an adapter right under the
    root, or the root itself, gets the root's own name as its organisation. Links to folders are not followed.

    Raises:
        HubError: the folder is not there or cannot be listed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        if not self.root.is_dir():
            raise HubError(f"--hub {root}: no such folder; give hf, adapterhub, zips or a folder of adapters")
        self.name = f"folder:{self.root}"
        self.traffic = Traffic()

    def discover(self, query: Query) -> Iterator[Listing]:
        """List the adapters in the order of their paths. The base is known only after reading, so ``bases`` is not applied.

        Raises:
            HubError: a folder under it cannot be listed; raised last, when all the others have been.
        """
        repos: set[str] = set()
        faults: list[str] = []
        for folder in self._adapter_folders(faults):
            repo, subfolder = self._identity(folder)
            if query.limit is not None and repo not in repos and len(repos) >= query.limit:
                return
            repos.add(repo)
            try:
                files = {entry.name: entry.stat().st_size for entry in _files(folder)}
            except OSError as error:
                faults.append(f"{folder}: cannot be listed ({error.strerror})")
                continue
            revision = self._revision(folder, files)
            yield Listing(repo, revision, subfolder, files, location=str(folder))
        if faults:
            more = f", nor can {len(faults) - 1:,} more" if len(faults) > 1 else ""
            raise HubError(f"{faults[0]}{more}; check permissions, or move it out of the hub")

    def open(self, listing: Listing) -> FolderBundle:
        """The files of one adapter."""
        if listing.location is None:
            raise HubError(f"{listing.repo}: not from a folder")
        return FolderBundle(Path(listing.location))

    def _adapter_folders(self, faults: list[str]) -> Iterator[Path]:
        def fail(error: OSError) -> None:
            faults.append(f"{error.filename}: cannot be listed ({error.strerror})")

        for path, folders, files in os.walk(self.root, onerror=fail):
            depth = len(Path(path).relative_to(self.root).parts)
            kept = sorted(f for f in folders if not f.startswith(_SKIPPED_FOLDERS) and not f.endswith(".partial"))
            folders[:] = kept if depth < _DEPTH else []
            if any(marker in files for marker in _MARKERS):
                yield Path(path)

    def _identity(self, folder: Path) -> tuple[str, str | None]:
        # Names that are no text become text that can be printed; ``location`` keeps the path itself.
        parts = [
            part.encode(errors="surrogateescape").decode(errors="backslashreplace")
            for part in folder.relative_to(self.root).parts
        ]
        if len(parts) < 2:
            return "/".join((self.root.name, *parts)) if parts else f"{self.root.parent.name}/{self.root.name}", None
        return "/".join(parts[:2]), "/".join(parts[2:]) or None

    def _revision(self, folder: Path, files: dict[str, int]) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name in sorted(files):
            # Often most of a folder's bytes; where weights came without a config, their file may be called anything.
            if not name.endswith(_HASHED) or (_NO_WEIGHTS.fullmatch(name) and "hubrank.json" not in files):
                continue
            digest.update(f"{name}\0{files[name]}\0".encode("utf-8", "surrogateescape"))
            try:
                with (folder / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha1").digest())
            except OSError as error:
                digest.update(f"unreadable {error.errno}".encode())
        return digest.hexdigest()


class FolderBundle:
    """The files of one adapter folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touched: set[str] = set()
        self.traffic = Traffic()

    @property
    def hashes(self) -> Mapping[str, str]:
        """Of the files read so far: ``sha256:HEX``."""
        return self.current_hashes(sorted(self._touched))

    def current_hashes(self, names: Sequence[str]) -> Mapping[str, str]:
        """Of the named files that are there: ``sha256:HEX``."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError), self._path(name).open("rb") as file:
                found[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return found

    def size(self, name: str) -> int:
        """Size in bytes."""
        try:
            return self._path(name).stat().st_size
        except OSError as error:
            raise AdapterError("file missing", f"{name} ({error.strerror})") from error

    def read(self, name: str, *, limit: int) -> bytes:
        """The whole file, if it is no longer than ``limit``."""
        size = self.size(name)
        if size > limit:
            raise AdapterError("file too large", f"{name} has {size:,} bytes; at most {limit:,} are read")
        return self.read_range(name, 0, size)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        try:
            with self._path(name).open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise AdapterError("file unreadable", f"{name} ({error.strerror})") from error
        if len(data) != stop - start:
            raise AdapterError("file truncated", f"{name} ends at byte {start + len(data):,}, before {stop:,}")
        if name not in self._touched:
            self._touched.add(name)
            self.traffic.bytes_whole += self.size(name)
        self.traffic.bytes_read += len(data)
        return data

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Several ranges of one file."""
        return (self.read_range(name, start, stop) for start, stop in ranges)

    def _path(self, name: str) -> Path:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise AdapterError("unsafe path", f"{name!r} is not a plain file name")
        return self._folder / name


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if entry.is_file()), key=lambda entry: entry.name)
