"""The files of an adapter inside a zip file that somebody made: checked by name and size, never unpacked onto a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hubrank.errors import AdapterError
from hubrank.hubs.zip_file import Member, ZipFile

__all__ = ["MAX_MEMBER_BYTES", "AdapterZip"]

MAX_MEMBER_BYTES = 256 * 1024**2
"""Of one member when inflated: a Houlsby adapter of XLM-R large with a bottleneck of half its width needs 200 MB."""

_MAX_MEMBERS = 256
_MAX_NAME = 240
_MAX_TOTAL = 4 * 1024**3
# Weights hardly shrink; what shrinks a hundredfold was made to.
_MAX_RATIO, _FREE = 100, 1 << 20
_CONFIG = "adapter_config.json"
# What archivers of macOS add beside every file.
_SHADOWS = "__MACOSX/"


class AdapterZip:
    """The files beside the one ``adapter_config.json`` of a zip file, by their plain names.

    Every member is checked, wanted or not: an archive with a name that leads out of it, or with a link in it, was made to do
    harm to somebody, and nothing of it is believed.

    Args:
        read_range: ``(start, stop) -> bytes`` of the zip file, exactly that many.
        size: of the zip file in bytes.

    Raises:
        AdapterError: ``damaged file``, ``unsafe file``, ``file too large``, ``unsupported format``, ``no config`` or
            ``several adapters``.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        self._zip = ZipFile(read_range, size)
        _check(self._zip.members, size)
        self._members = _files(self._zip.members)
        self.files: Mapping[str, int] = MappingProxyType(
            {name: self._zip.members[member].size for name, member in self._members.items()}
        )

    def read(self, name: str) -> memoryview:
        """The bytes of one file.

        Raises:
            AdapterError: it is not there, is longer than any adapter's can be, or fails its check.
        """
        if name not in self._members:
            raise AdapterError("file missing", f"the zip file has no {name}")
        return self._zip.read(self._members[name], limit=MAX_MEMBER_BYTES)


def _check(members: Mapping[str, Member], size: int) -> None:
    if len(members) > _MAX_MEMBERS:
        raise AdapterError("file too large", f"the zip file has {len(members):,} members; an adapter's has a handful")
    for name, member in members.items():
        if not _stays_inside(name):
            raise AdapterError("unsafe file", "a member of the zip file has a name that leads out of it")
        if not member.plain:
            raise AdapterError("unsafe file", "a member of the zip file is a link or a device")
    total = sum(member.size for member in members.values())
    if total > _MAX_TOTAL or total > _MAX_RATIO * size + _FREE:
        raise AdapterError("unsafe file", f"the zip file of {size:,} bytes inflates to {total:,}")


def _stays_inside(name: str) -> bool:
    """Whether a name is a path below the folder it would be unpacked in, on any system."""
    parts = name.removesuffix("/").split("/")
    odd = any(character in name for character in '\\:\0"<>|?*\x7f') or any(character < " " for character in name)
    return 0 < len(name) <= _MAX_NAME and not odd and not any(part in ("", ".", "..") for part in parts)


def _files(members: Mapping[str, Member]) -> dict[str, str]:
    """Member by plain name, of the folder that holds the config: the top one, or the one that was packed as a whole."""
    names = [name for name in members if not name.startswith(_SHADOWS) and not name.endswith("/")]
    folders = [folder for folder, _, name in (name.rpartition("/") for name in names) if name == _CONFIG]
    if len(folders) != 1:
        reason = "several adapters" if folders else "no config"
        raise AdapterError(reason, f"the zip file has {len(folders)} of {_CONFIG}, not one")
    return {name: member for member in names for folder, _, name in [member.rpartition("/")] if folder == folders[0]}
