"""diskcache without pickle: bytes and short strings in, bytes out, everything inside the one SQLite file.

diskcache unpickles what it finds in its database (CVE-2025-69872, no fixed release), and ``JSONDisk`` does not prevent it:
a row that says it is a pickle still reaches ``pickle.load``. This Disk refuses such rows, on both paths, keys and values.
Values never go to files of their own, so that a record is whole or absent whatever kills the process, and so that no file
name from the database is ever opened.
"""

from __future__ import annotations

import diskcache
from diskcache.core import MODE_RAW, UNKNOWN

from hubrank.errors import StoreDamagedError

__all__ = ["IN_DATABASE", "BytesDisk"]

IN_DATABASE = 2**31 - 1
"""``disk_min_file_size`` that keeps every value in the database."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Stores bytes under str keys and nothing else."""

    def put(self, key: object) -> tuple[object, bool]:
        """Database form of a key.

        Raises:
            TypeError: it is not a string.
        """
        if not isinstance(key, str):
            raise TypeError(f"keys are strings, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> object:
        """Key from its database form.

        Raises:
            StoreDamagedError: the row was not written by hubrank.
        """
        if not raw or not isinstance(key, str):
            raise StoreDamagedError("the store holds a key that hubrank did not write")
        return key

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> tuple[int, int, str | None, object]:
        """Database form of a value.

        Raises:
            TypeError: it is not bytes.
        """
        if read or not isinstance(value, bytes):
            raise TypeError(f"values are bytes, not {type(value).__name__}")
        size, mode, filename, row = super().store(value, read, key=key)
        return size, mode, filename, row

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        """Value from its database form.

        Raises:
            StoreDamagedError: the row is a pickle, a file, or anything else that hubrank did not write.
        """
        if read or mode != MODE_RAW or filename is not None or not isinstance(value, bytes):
            raise StoreDamagedError("the store holds a value that hubrank did not write")
        return value
