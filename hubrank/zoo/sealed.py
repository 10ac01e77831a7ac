"""Bytes with a checksum in front, so that a flipped bit is damage and not another number.

A sealed record is ``hubrank\\x01``, the first 16 bytes of the sha256 of the rest, and the rest. Records of older stores carry
no seal and are read as they are; neither JSON nor safetensors begin as a sealed one does.
"""

from __future__ import annotations

import hashlib

from hubrank.errors import StoreDamagedError

__all__ = ["seal", "unseal"]

_MARK = b"hubrank\x01"
_DIGEST = 16


def seal(data: bytes) -> bytes:
    """Put the checksum in front."""
    return b"".join((_MARK, hashlib.sha256(data).digest()[:_DIGEST], data))


def unseal(data: bytes) -> bytes:
    """Check and take off the checksum, if there is one.

    Raises:
        StoreDamagedError: the bytes are not those that were sealed.
    """
    if not data.startswith(_MARK):
        return data
    start = len(_MARK) + _DIGEST
    rest = data[start:]
    if hashlib.sha256(rest).digest()[:_DIGEST] != data[len(_MARK) : start]:
        raise StoreDamagedError("a record is not what was written: its checksum is another")
    return rest
