"""A folder as a hub: laid out like one (``org/name/``), or a training output, or a single adapter."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from operator import attrgetter
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
# Read and hashed at once, which most adapters are: whoever hashes in one thread asks for the interpreter's lock twice a
# block, and another thread may hold it for milliseconds.
_BLOCK = 1 << 22
_SETTLED = 2_000_000_000  # nanoseconds; a file that was written just now may be written again in the same tick of its clock
_MOST_SEEN = 4096


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
        self._seen: dict[str, dict[str, _Seen]] = {}

    def discover(self, query: Query) -> Iterator[Listing]:
        """List the adapters in the order of their paths. The base is known only after reading, so ``bases`` is not applied.

        Raises:
            HubError: a folder under it cannot be listed; raised last, when all the others have been.
        """
        repos: set[str] = set()
        faults: list[str] = []
        for folder in self._adapter_folders(faults):
            repo, subfolder = self._identity(folder.parts)
            if query.limit is not None and repo not in repos and len(repos) >= query.limit:
                return
            repos.add(repo)
            try:
                files = {entry.name: entry.stat().st_size for entry in folder.entries if entry.is_file()}
            except OSError as error:
                faults.append(f"{folder.path}: cannot be listed ({error.strerror})")
                continue
            revision = self._revision(Path(folder.path), files)
            yield Listing(repo, revision, subfolder, files, location=folder.path)
        if faults:
            more = f", nor can {len(faults) - 1:,} more" if len(faults) > 1 else ""
            raise HubError(f"{faults[0]}{more}; check permissions, or move it out of the hub")

    def open(self, listing: Listing) -> FolderBundle:
        """The files of one adapter."""
        if listing.location is None:
            raise HubError(f"{listing.repo}: not from a folder")
        return FolderBundle(Path(listing.location), self._seen.get(listing.location, {}))

    def _adapter_folders(self, faults: list[str]) -> Iterator[_Folder]:
        """Every folder that holds an adapter, each read once, before those below it."""
        waiting: list[tuple[str, tuple[str, ...]]] = [(str(self.root), ())]
        while waiting:
            path, parts = waiting.pop()
            try:
                with os.scandir(path) as found:
                    entries = sorted(found, key=attrgetter("name"))
            except OSError as error:
                faults.append(f"{path}: cannot be listed ({error.strerror})")
                continue
            if len(parts) < _DEPTH:
                kept = [
                    entry
                    for entry in entries
                    if _is_folder(entry, links=False)
                    and not entry.name.startswith(_SKIPPED_FOLDERS)
                    and not entry.name.endswith(".partial")
                ]
                waiting += [(entry.path, (*parts, entry.name)) for entry in reversed(kept)]
            if any(entry.name in _MARKERS and not _is_folder(entry, links=True) for entry in entries):
                yield _Folder(path, parts, entries)

    def _identity(self, names: tuple[str, ...]) -> tuple[str, str | None]:
        # Names that are no text become text that can be printed; ``location`` keeps the path itself.
        parts = [name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in names]
        if len(parts) < 2:
            return "/".join((self.root.name, *parts)) if parts else f"{self.root.parent.name}/{self.root.name}", None
        return "/".join(parts[:2]), "/".join(parts[2:]) or None

    def _revision(self, folder: Path, files: dict[str, int]) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        seen: dict[str, _Seen] = {}
        for name in sorted(files):
            # Often most of a folder's bytes; where weights came without a config, their file may be called anything.
            if not name.endswith(_HASHED) or (_NO_WEIGHTS.fullmatch(name) and "hubrank.json" not in files):
                continue
            digest.update(f"{name}\0{files[name]}\0".encode("utf-8", "surrogateescape"))
            try:
                seen[name] = _hashed(folder / name)
                digest.update(seen[name].sha256.encode())
            except OSError as error:
                digest.update(f"unreadable {error.errno}".encode())
        self._seen[str(folder)] = seen
        if len(self._seen) > _MOST_SEEN:
            self._seen.pop(next(iter(self._seen)))
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder under the root: where it is, the names that lead there, and what it holds by name."""

    path: str
    parts: tuple[str, ...]
    entries: list[os.DirEntry[str]]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file's content when it was listed; ``stamp`` is None where a later look at the file could not tell it apart."""

    sha256: str
    stamp: tuple[int, ...] | None


class FolderBundle:
    """The files of one adapter folder.

    Args:
        seen: what a listing hashed already. It is not hashed again where the file is still the same one, untouched since.
    """

    def __init__(self, folder: Path, seen: Mapping[str, _Seen] | None = None) -> None:
        self._folder = folder
        self._paths: dict[str, Path] = {}
        self._seen = seen or {}
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
            path, seen = self._path(name), self._seen.get(name)
            with contextlib.suppress(OSError):
                if seen is None or seen.stamp is None or seen.stamp != _stamp(path.stat()):
                    seen = _hashed(path)
                found[name] = f"sha256:{seen.sha256}"
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
        (data,) = self.read_ranges(name, [(start, stop)])
        return data

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Several ranges of one file, which is opened once."""
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                if name not in self._touched:
                    self._touched.add(name)
                    self.traffic.bytes_whole += self.size(name)
                for start, stop in ranges:
                    data = _exactly(file, name, start, stop)
                    self.traffic.bytes_read += len(data)
                    yield data
        except OSError as error:
            raise AdapterError("file unreadable", f"{name} ({error.strerror})") from error

    def _path(self, name: str) -> Path:
        if name in self._paths:
            return self._paths[name]
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise AdapterError("unsafe path", f"{name!r} is not a plain file name")
        return self._paths.setdefault(name, self._folder / name)


def _is_folder(entry: os.DirEntry[str], *, links: bool) -> bool:
    """Whether it is one, or also a link to one; not where the system will not say."""
    try:
        return entry.is_dir(follow_symlinks=links)
    except OSError:
        return False


def _hashed(path: Path) -> _Seen:
    """Read a file to its end."""
    digest, started = hashlib.sha256(), time.time_ns()
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        read = 0
        while block := file.read(min(_BLOCK, before.st_size + 1)):
            digest.update(block)
            read += len(block)
            if read == before.st_size:  # what may have been added since makes another stamp
                break
        after = os.fstat(file.fileno())
    settled = started - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED
    return _Seen(digest.hexdigest(), _stamp(before) if settled and _stamp(before) == _stamp(after) else None)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes whenever a file is written, or another takes its place."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _exactly(file: RawIOBase, name: str, start: int, stop: int) -> bytes:
    file.seek(start)
    data = file.read(stop - start) or b""
    while len(data) < stop - start:  # the system reads 2 GiB at a time
        more = file.read(stop - start - len(data))
        if not more:
            raise AdapterError("file truncated", f"{name} ends at byte {start + len(data):,}, before {stop:,}")
        data += more
    return data
