"""The directory of a zip file, read by ranges and checked before any member is read or inflated.

Format: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end, and
zip64, which torch always writes). Only what weights files use is read: one volume, no encryption, members that lie one
after the other. Overlapping members, the way to pack petabytes into kilobytes, are refused.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hubrank.errors import AdapterError

__all__ = ["MAX_MEMBERS", "Member", "ZipFile"]

MAX_MEMBERS = 50_000
_MAX_DIRECTORY = 16_000_000
_MAX_COMMENT = 65_535
_MAX_RATIO = 1040  # deflate cannot do better than 1032 to 1
_BLOCK = 1 << 20
_END, _END64, _LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_CENTRAL, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED, _UNIX = 0, 8, 3


@dataclass(frozen=True, slots=True)
class Member:
    """One member. Its local header starts at ``start``; all of it lies before ``stop``.

    ``packed`` and ``size`` are its bytes in the file and when inflated; they are equal where ``stored``. ``plain`` says that
    it is an ordinary file, as far as the directory tells: no link, no device.
    """

    stored: bool
    packed: int
    size: int
    crc: int
    start: int
    stop: int
    plain: bool = True


class ZipFile:
    """The members of a zip file by name, behind a function that reads ranges of it.

    Args:
        read_range: ``(start, stop) -> bytes``, exactly that many.
        size: of the file in bytes.

    Raises:
        AdapterError: ``damaged file``, ``unsafe file`` or ``file too large``.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        self._read_range = read_range
        count, start, stop = _find_directory(read_range, size)
        if count > MAX_MEMBERS or stop - start > _MAX_DIRECTORY:
            raise AdapterError("file too large", f"the zip file has {count:,} members; at most {MAX_MEMBERS:,} are read")
        self.members: Mapping[str, Member] = MappingProxyType(_parse_directory(read_range(start, stop), count, start))

    def read(self, name: str, *, limit: int, first: int | None = None) -> memoryview:
        """The bytes of one member, inflated where need be.

        Args:
            limit: the most that the member may hold.
            first: stop after about this many.

        Raises:
            AdapterError: it is longer than ``limit``, or is not what the directory says.
        """
        member = self.members[name]
        if member.size > limit:
            raise AdapterError("file too large", f"a member of the zip file has {member.size:,} bytes")
        payload = member_payload(member, self._read_range(member.start, member.stop))
        if member.stored:
            data = payload[:first]
        else:
            data = memoryview(_inflate(payload, member.size if first is None else min(first, member.size)))
        if first is None and (len(data) != member.size or zlib.crc32(data) != member.crc):
            raise AdapterError("damaged file", "a member of the zip file fails its check")
        return data


def member_payload(member: Member, region: bytes | memoryview) -> memoryview:
    """The packed bytes of a member, given the file's bytes from its ``start`` to its ``stop``."""
    if len(region) < _LOCAL.size:
        raise AdapterError("damaged file", "the zip file ends inside a member")
    signature, *_, name_length, extra_length = _LOCAL.unpack_from(region)
    start = _LOCAL.size + name_length + extra_length
    if signature != b"PK\x03\x04" or start + member.packed > len(region):
        raise AdapterError("damaged file", "a member of the zip file is not where its directory says")
    return memoryview(region)[start : start + member.packed]


def _inflate(payload: memoryview, size: int) -> bytearray:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    data: bytes | memoryview = payload
    try:
        while len(out) < size and not engine.eof:
            block = engine.decompress(data, min(_BLOCK, size - len(out)))
            data = engine.unconsumed_tail
            if not block and not data:
                break
            out += block
    except zlib.error:
        raise AdapterError("damaged file", "a member of the zip file cannot be inflated") from None
    return out


def _find_directory(read_range: Callable[[int, int], bytes], size: int) -> tuple[int, int, int]:
    """(members, first byte, last byte + 1) of the central directory."""
    start = max(0, size - _END.size - _MAX_COMMENT)
    tail = read_range(start, size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise AdapterError("damaged file", "the zip file has no directory")
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    if at >= _LOCATOR64.size and tail.startswith(b"PK\x06\x07", at - _LOCATOR64.size):
        _, _, end, _ = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        if end + _END64.size > start + at:
            raise AdapterError("damaged file", "the zip file's directory lies outside the file")
        signature, *_, disk, first_disk, _, count, length, offset = _END64.unpack(read_range(end, end + _END64.size))
        if signature != b"PK\x06\x06":
            raise AdapterError("damaged file", "the zip file has no directory")
    if disk or first_disk or offset + length > end or count * _CENTRAL.size > length:
        raise AdapterError("damaged file", "the zip file's directory lies outside the file")
    return count, offset, offset + length


def _parse_directory(data: bytes, count: int, directory: int) -> dict[str, Member]:
    entries, at = [], 0
    for _ in range(count):
        if len(data) - at < _CENTRAL.size:
            raise AdapterError("damaged file", "the zip file's directory is cut short")
        signature, made, _, flags, method, _, _, crc, packed, size, n, extra, comment, _, _, attributes, start = (
            _CENTRAL.unpack_from(data, at)
        )
        names = at + _CENTRAL.size
        at = names + n + extra + comment
        if signature != b"PK\x01\x02" or at > len(data):
            raise AdapterError("damaged file", "the zip file's directory is cut short")
        if flags & 0x2041 or method not in (_STORED, _DEFLATED):
            raise AdapterError("unsupported format", "the zip file is encrypted or packed in a way that is not read")
        size, packed, start = _wide(data[names + n : names + n + extra], [size, packed, start])
        if packed > directory or size > (packed if method == _STORED else packed * _MAX_RATIO):
            raise AdapterError("unsafe file", "a member of the zip file claims more bytes than it can hold")
        name = data[names : names + n].decode("utf-8", "replace")
        entries.append((start, name, method == _STORED, packed, size, crc, _ordinary(made, attributes)))
    entries.sort()
    starts = [entry[0] for entry in entries] + [directory]
    members = {}
    for (start, name, stored, packed, size, crc, plain), stop in zip(entries, starts[1:], strict=True):
        if start + _LOCAL.size + packed > stop:
            raise AdapterError("unsafe file", "members of the zip file overlap")
        members[name] = Member(stored, packed, size, crc, start, stop, plain)
    if len(members) != count:
        raise AdapterError("damaged file", "two members of the zip file share a name")
    return members


def _ordinary(made: int, attributes: int) -> bool:
    """Whether an entry is a file or a folder: made on Unix, it says of which type in the upper half of its attributes."""
    kind = stat.S_IFMT(attributes >> 16) if made >> 8 == _UNIX else 0
    return kind in (0, stat.S_IFREG, stat.S_IFDIR)


def _wide(extra: bytes, fields: list[int]) -> list[int]:
    """Sizes and offset of an entry, taken from its zip64 field (id 1) where they do not fit 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            return [next(values, field) if field == 0xFFFFFFFF else field for field in fields]
        at += 4 + length
    return fields
