"""A file of measured transfer: what a target's metric was after tuning from each source, and from none.

One JSON object a line: ``source`` (null: tuned from no source), ``target``, ``value``; docs/bench.md has the other fields.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["MeasuredTarget", "Transfer", "parse_where", "read_transfer"]

_SHAPE = ("method", "sites", "rank", "alpha", "rows")
"""What a no-transfer row may share with a source's row: both start from an adapter of one shape, on as many rows."""

_MOST_ROWS = 1_000_000
_TEXT = 300


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTarget:
    """One target; n counts all sources of the file.

    Attributes:
        seeds: [seeds, n] the metric by source, NaN where it was not measured; from 0 to 1, the higher the better.
        scratch: [n] the same from no source, from an adapter of the source's shape where that was measured; else NaN.
        kin: [n] whether the source is of the target's own task or corpus.
        metric: its name; empty where the file does not say.
    """

    name: str
    metric: str
    seeds: Numbers
    scratch: Numbers
    kin: NDArray[np.bool_]

    @property
    def there(self) -> NDArray[np.bool_]:
        """[n] whether the source was measured at all."""
        return np.asarray(np.isfinite(self.seeds).any(axis=0))

    @property
    def complete(self) -> Numbers:
        """[complete seeds, n]: those in which every source of the target was measured; all where none is."""
        whole = np.isfinite(self.seeds[:, self.there]).all(axis=1)
        return self.seeds[whole] if whole.any() else self.seeds

    @property
    def truth(self) -> Numbers:
        """[n] mean over the complete seeds."""
        found = self.complete
        counts = np.isfinite(found).sum(axis=0)
        means: Numbers = np.nansum(found, axis=0) / np.where(counts, counts, 1)
        return np.where(counts > 0, means, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """The whole file.

    Attributes:
        sources: names as the rows give them; ``adapters``: the folder or repository of each, its name where none is given.
        source_rows: [n] how many rows each was trained on, NaN where that is not told.
        families: what kind of task each was trained on, as the rows say; empty where they do not.
        notes: what was made of the values, one sentence each.
    """

    path: str
    sources: tuple[str, ...]
    adapters: tuple[str, ...]
    source_rows: Numbers
    families: tuple[str, ...]
    targets: tuple[MeasuredTarget, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    source: str | None
    target: str
    value: float
    seed: str
    fields: Mapping[str, Any]

    def shape(self, name: str) -> object:
        return self.fields.get(name)


def parse_where(given: Sequence[str]) -> dict[str, str]:
    """``FIELD=VALUE`` conditions on a row.

    Raises:
        UsageError: one has no ``=``.
    """
    conditions = {}
    for text in given:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise UsageError(f"--where {text}: give FIELD=VALUE, such as --where rows=200")
        conditions[field] = value
    return conditions


def read_transfer(path: str | Path, *, where: Mapping[str, str] | None = None) -> Transfer:
    """Read a file of measured transfer.

    Args:
        where: only rows of sources whose fields have these values; what was tuned from no source is joined by shape.

    Raises:
        InputError: the file cannot be read, a row lacks something or says what another says otherwise, or none is left.
    """
    rows = list(_rows(Path(path)))
    conditions = where or {}
    chosen = [
        row
        for row in rows
        if row.source is not None and all(_said(row.fields.get(field)) == value for field, value in conditions.items())
    ]
    if not chosen:
        asked = " ".join(f"--where {field}={value}" for field, value in conditions.items())
        raise InputError(f"{path}: no row of a source{f' is left by {asked}' if asked else ''}; nothing can be judged")
    names = tuple(sorted({row.source for row in chosen if row.source is not None}))
    place = {name: i for i, name in enumerate(names)}
    scale, notes = _scale(path, rows)
    scratch = [row for row in rows if row.source is None]
    of_target: dict[str, list[_Row]] = defaultdict(list)
    for row in chosen:
        of_target[row.target].append(row)
    targets = [
        _target(path, found, [row for row in scratch if row.target == name], place, scale)
        for name, found in sorted(of_target.items())
    ]
    first = {row.source: row for row in reversed(chosen)}
    return Transfer(
        path=str(path),
        sources=names,
        adapters=tuple(str(first[name].fields.get("adapter") or name) for name in names),
        source_rows=np.array([_number(first[name].fields.get("source_rows")) for name in names]),
        families=tuple(str(first[name].fields.get("source_family") or "") for name in names),
        targets=tuple(targets),
        notes=notes,
    )


def _rows(path: Path) -> Iterator[_Row]:
    try:
        with path.open(encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                if line > _MOST_ROWS:
                    raise InputError(f"{path}: more than {_MOST_ROWS:,} lines; that is no table of measured transfer")
                if text.strip():
                    yield _row(path, line, text)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: cannot be read ({why}); --transfer takes a JSONL file") from error


def _row(path: Path, line: int, text: str) -> _Row:
    where = f"{path}:{line}"
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: is not JSON; each line is an object with source, target and value") from None
    if not isinstance(fields, dict):
        raise InputError(f"{where}: is no JSON object; each line is one with source, target and value")
    missing = next((name for name in ("source", "target", "value") if name not in fields), None)
    if missing is not None:
        raise InputError(f"{where}: has no {missing!r}; each row needs source (null for none), target and value")
    source, target, value = fields["source"], fields["target"], fields["value"]
    if not (source is None or (isinstance(source, str) and source.strip())):
        raise InputError(f"{where}: source is neither a name nor null")
    if not isinstance(target, str) or not target.strip():
        raise InputError(f"{where}: target is no name")
    number = _number(value)
    if math.isnan(number):
        raise InputError(f"{where}: value is no finite number; leave out runs that failed")
    return _Row(line, source, target, number, _said(fields.get("seed")), fields)


def _scale(path: str | Path, rows: Sequence[_Row]) -> tuple[float, tuple[str, ...]]:
    """What to multiply values by to have them from 0 to 1."""
    most = max(rows, key=lambda row: abs(row.value))
    if abs(most.value) <= 1:
        return 1.0, ()
    if abs(most.value) <= 100:
        return 0.01, ("values over 1 were found: all are taken as percent",)
    raise InputError(
        f"{path}:{most.line}: value {most.value:g} is neither a part of 1 nor a percentage; "
        "use a metric that is one and grows with quality"
    )


def _target(
    path: str | Path, rows: Sequence[_Row], scratch: Sequence[_Row], place: Mapping[str, int], scale: float
) -> MeasuredTarget:
    name = rows[0].target
    for field in ("rows", "metric"):
        other = next((row for row in rows if _said(row.fields.get(field)) != _said(rows[0].fields.get(field))), None)
        if other is not None:
            one, two = (_said(row.fields.get(field)) or "none" for row in (rows[0], other))
            raise InputError(
                f"{path}:{other.line}: {name} is measured with {field} {one} and {two}; choose with --where {field}={one}"
            )
    seeds = {seed: i for i, seed in enumerate(sorted({row.seed for row in rows}))}
    values = np.full((len(seeds), len(place)), np.nan)
    kin = np.zeros(len(place), dtype=bool)
    fresh = np.full(len(place), np.nan)
    lines: dict[tuple[str, str], int] = {}
    for row in rows:
        source = str(row.source)
        before = lines.setdefault((source, row.seed), row.line)
        if before != row.line:
            seed = f" with seed {row.seed}" if row.seed else ""
            raise InputError(
                f"{path}:{row.line}: {source} on {name}{seed} stands in line {before} too; "
                "give runs different seeds, or choose with --where FIELD=VALUE"
            )
        at = place[source]
        values[seeds[row.seed], at] = row.value * scale
        kin[at] |= bool(row.fields.get("kin"))
        fresh[at] = _scratch(row, scratch) * scale
    usual = np.nanmean(fresh) if np.isfinite(fresh).any() else np.nan
    fresh = np.where(np.isfinite(values).any(axis=0) & np.isnan(fresh), usual, fresh)
    return MeasuredTarget(name, _said(rows[0].fields.get("metric")), values, fresh, kin)


def _scratch(row: _Row, scratch: Sequence[_Row]) -> float:
    """Mean over the no-transfer rows of a source's shape: what both rows say of it is the same."""
    fitting = [
        other.value
        for other in scratch
        if all(
            row.shape(field) == other.shape(field)
            for field in _SHAPE
            if row.shape(field) is not None and other.shape(field) is not None
        )
    ]
    return float(np.mean(fitting)) if fitting else math.nan


def _said(value: object) -> str:
    """A field as text; nothing where the row does not have it."""
    return "" if value is None else str(value)[:_TEXT]


def _number(value: object) -> float:
    """A finite number as it is; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        return math.nan
    return number if math.isfinite(number) else math.nan
