"""CSV and TSV with a header line, and Parquet, as rows by field name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from hubrank.checkpoints.card import plain
from hubrank.errors import TargetError
from hubrank.target.problems import RowError

__all__ = ["csv_rows", "parquet_rows"]

_BATCH = 1024
_MAX_FIELDS = 10_000


def csv_rows(path: str, lines: Iterable[tuple[int, str]], delimiter: str, *, limit: int) -> Iterator[tuple[int, object]]:
    """(line a row begins at, row by the header's names); a row of another width gives a :class:`RowError`.

    Args:
        limit: characters of the longest cell.

    Raises:
        TargetError: no header, a header that names a column twice, or quotes that do not close.
    """
    # The limit is the csv module's own and for the whole process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    source = iter(lines)
    _, first = next(source, (1, ""))
    if delimiter == "," and "," not in first:
        # What spreadsheets write where the comma is the decimal sign, and tables that were merely named .csv.
        delimiter = next((other for other in (";", "\t") if other in first), delimiter)
    reader = csv.reader(_chained(first, source), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begins = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            message = (
                f"not {'TSV' if delimiter == chr(9) else 'CSV'} ({plain(str(error), 80)}); double the quotes inside a cell"
            )
            raise TargetError(path, message, line=begins) from None
        if cells is None:
            return
        line, begins = begins, reader.line_num + 1
        if header is None:
            header = _header(path, cells)
        elif len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:
            message = f"{len(cells)} cells, where the header has {len(header)}; put quotes around texts that hold the delimiter"
            yield line, RowError(message)


def _chained(first: str, rest: Iterator[tuple[int, str]]) -> Iterator[str]:
    yield first
    for _, line in rest:
        yield line


def _header(path: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(names) > _MAX_FIELDS:
        raise TargetError(path, f"the header has {len(names)} columns; at most {_MAX_FIELDS:,} are read", line=1)
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise TargetError(path, f'the header names "{plain(twice, 60)}" twice; rename one of them', line=1)
    return names


def parquet_rows(path: str, file: BinaryIO, *, max_rows: int, max_bytes: int) -> Iterator[tuple[int, object]]:
    """(row number from 1, row by column name).

    Raises:
        TargetError: pyarrow is not installed, or the file is damaged or too large.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        message = "Parquet needs pyarrow: `pip install 'hubrank[parquet]'`, or save the rows as JSONL or CSV"
        raise TargetError(path, message) from None
    number = size = 0
    try:
        table = parquet.ParquetFile(file)
        if table.metadata.num_rows > max_rows:
            raise TargetError(path, f"more than {max_rows:,} rows; a few thousand are plenty: keep some of them")
        for batch in table.iter_batches(batch_size=_BATCH):
            size += batch.nbytes
            if size > max_bytes:
                raise TargetError(path, f"more than {max_bytes >> 20:,} MiB of rows; a few thousand rows are plenty")
            for row in batch.to_pylist():
                number += 1
                yield number, row
    # pyarrow raises its own errors, and plain ones where a file lies about itself.
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise TargetError(path, f"not a Parquet file that can be read ({plain(str(error), 120)})") from None
