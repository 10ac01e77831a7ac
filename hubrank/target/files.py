"""The file behind a target: opened, decompressed, told apart by name and first bytes, and read within limits."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, cast

from hubrank.errors import TargetError
from hubrank.target.json_rows import json_array, json_lines
from hubrank.target.table_rows import csv_rows, parquet_rows

__all__ = ["MAX_BYTES", "MAX_LINE", "MAX_ROWS", "FileFormat", "RowFile", "opened"]

MAX_ROWS = 5_000_000
MAX_LINE = 16 << 20
"""Bytes of the longest line."""
MAX_BYTES = 2 << 30
"""Bytes of a file after decompression; what is kept of it is bounded by this, too."""
_MAX_WHOLE = 512 << 20  # of what has to be in memory at once: JSON arrays, and Parquet that comes through a pipe
_BUFFER = 1 << 20
_NOT_UTF8 = "not UTF-8; save the file as UTF-8 (iconv -t utf-8 does)"
_NULS = "holds NUL bytes: damaged, or not UTF-8 but UTF-16; save it as UTF-8"

FileFormat: TypeAlias = Literal["jsonl", "json", "csv", "tsv", "parquet"]
_ENDINGS: dict[str, FileFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_OTHERS = {
    b"PK\x03\x04": "a zip file or a spreadsheet",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"ARROW1": "an Arrow file",
}


@dataclass(frozen=True, slots=True)
class RowFile:
    """An open file of rows.

    Attributes:
        format: what it is read as.
        typed: whether values have types of their own; a CSV's are all strings.
        rows: (line, value) from the first row on. The value is what the format holds there or, for a row that cannot be
            read, a :class:`hubrank.target.problems.RowError`.
    """

    format: FileFormat
    typed: bool
    rows: Iterator[tuple[int, object]]


@contextmanager
def opened(path: str | Path) -> Iterator[RowFile]:
    """Open a target file; ``-`` is stdin.

    Raises:
        TargetError: it is missing, cannot be read, is empty or of no kind that is understood; while rows are read, that it
            is damaged, not UTF-8 or beyond the limits.
    """
    shown = "stdin" if str(path) == "-" else str(path)
    stream = _stdin() if shown == "stdin" else _open(Path(path))
    with stream, _told(shown):
        plain = _decompressed(shown, stream)
        kind = _kind(shown, plain)
        with closing(_rows(shown, plain, kind)) as rows:
            yield RowFile(kind, kind not in ("csv", "tsv"), rows)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What goes wrong while a file is read, as a TargetError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TargetError(path, "the gzip file is damaged or cut short; compress it again") from None
    except OSError as error:
        raise TargetError(path, f"cannot be read ({error.strerror or error})") from None


def _rows(path: str, stream: io.BufferedReader, kind: FileFormat) -> Generator[tuple[int, object], None, None]:
    with _told(path):
        match kind:
            case "jsonl":
                yield from json_lines(_lines(path, stream))
            case "json":
                yield from json_array(path, _whole_text(path, stream))
            case "csv" | "tsv":
                yield from csv_rows(path, _lines(path, stream), "," if kind == "csv" else "\t", limit=MAX_LINE)
            case "parquet":
                file: BinaryIO = stream
                if not stream.seekable() or isinstance(stream.raw, gzip.GzipFile):
                    file = io.BytesIO(stream.read(_MAX_WHOLE + 1))
                    if file.seek(0, io.SEEK_END) > _MAX_WHOLE:
                        message = f"more than {_MAX_WHOLE >> 20} MiB of Parquet through a pipe; give the file itself"
                        raise TargetError(path, message)
                    file.seek(0)
                yield from parquet_rows(path, file, max_rows=MAX_ROWS, max_bytes=MAX_BYTES)


def _whole_text(path: str, stream: io.BufferedReader) -> str:
    raw = stream.read(_MAX_WHOLE + 1)
    if len(raw) > _MAX_WHOLE:
        raise TargetError(path, f"a JSON array of more than {_MAX_WHOLE >> 20} MiB; write one object a line (`jq -c .[]`)")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TargetError(path, _NOT_UTF8, line=error.object.count(b"\n", 0, error.start) + 1) from None
    if "\0" in text:
        raise TargetError(path, _NULS, line=text.count("\n", 0, text.index("\0")) + 1)
    return text


def _lines(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, str]]:
    """(number, line with its end), split at line feeds only: JSON allows U+2028 and its like inside a string."""
    total = number = 0
    read = stream.readline
    while raw := read(MAX_LINE + 1):
        number += 1
        total += len(raw)
        if len(raw) > MAX_LINE:
            raise TargetError(path, f"a line of more than {MAX_LINE >> 20} MiB; is this a file of rows?", line=number)
        if total > MAX_BYTES or number > 2 * MAX_ROWS:
            message = (
                f"more than {MAX_BYTES >> 20:,} MiB or {2 * MAX_ROWS:,} lines; a few thousand rows are plenty: `head -n 20000`"
            )
            raise TargetError(path, message, line=number)
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise TargetError(path, _NOT_UTF8, line=number) from None
        if "\0" in line:
            raise TargetError(path, _NULS, line=number)
        yield number, line


def _open(path: Path) -> io.BufferedReader:
    try:
        return io.BufferedReader(io.FileIO(path), _BUFFER)
    except FileNotFoundError:
        raise TargetError(path, "no such file") from None
    except IsADirectoryError:
        raise TargetError(path, "is a folder; give a file of rows: JSONL, CSV, TSV or Parquet") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise TargetError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _stdin() -> io.BufferedReader:
    # A buffer of its own, so that closing it leaves the process its stdin.
    return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), _BUFFER)


def _decompressed(path: str, stream: io.BufferedReader) -> io.BufferedReader:
    head = stream.peek(8)
    if head[:2] == b"\x1f\x8b":
        stream = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=stream)), _BUFFER)
        head = stream.peek(8)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise TargetError(path, f"is {what}; unpack it, or save the rows as JSONL, CSV or Parquet")
    return stream


def _kind(path: str, stream: io.BufferedReader) -> FileFormat:
    head = stream.peek(1 << 16).removeprefix(b"\xef\xbb\xbf")
    if head.startswith(b"PAR1"):
        return "parquet"
    name = path.lower().removesuffix(".gz")
    kind = _ENDINGS.get(Path(name).suffix)
    text = head.lstrip(b" \t\r\n")
    if kind is None:
        first = head.partition(b"\n")[0]
        kind = "jsonl" if text[:1] in (b"{", b"[") or not text else "tsv" if b"\t" in first else "csv"
    if kind in ("jsonl", "json"):
        # An array by its first character. Under .json, an object whose line ends with it and is not the last is a row.
        first, _, rest = text.partition(b"\n")
        whole = text[:1] == b"[" or (kind == "json" and not (first.rstrip().endswith(b"}") and rest.strip()))
        kind = "json" if whole and text else "jsonl"
    return kind
