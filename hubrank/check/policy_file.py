"""``hubrank.toml``, or ``[tool.hubrank]`` in a ``pyproject.toml``: read strictly, so that a typing error is no silent gap.

::

    fail-on = "error"                  # or "warning", "note", "never"

    [rules]
    card-license = "error"             # or "warning", "note", "off"

    [allow]
    licenses = ["apache-2.0", "mit"]
    bases = ["FacebookAI/roberta-*"]
    orgs = ["my-team"]

    [[ignore]]
    rule = "card-metrics"              # or "*"
    adapter = "my-team/old-*"
    until = 2027-01-31
    reason = "retrained in January"

    [targets."banking.jsonl"]
    min-score = 3.0
    margin = 0.5
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, cast

from hubrank.check.findings import LEVELS, Level
from hubrank.check.policy import Ignore, Policy, TargetPolicy
from hubrank.errors import InputError

__all__ = ["FILE", "find_policy", "read_policy"]

FILE = "hubrank.toml"
_PROJECT = "pyproject.toml"
_MAX_BYTES = 1_000_000
_TABLES = ("fail-on", "rules", "allow", "ignore", "targets")
_ALLOW = ("licenses", "bases", "orgs")
_IGNORE = ("rule", "adapter", "until", "reason")
_TARGET = ("min-score", "margin")


def find_policy(rules: Collection[str], folder: Path | None = None) -> Policy:
    """The policy of a folder: its hubrank.toml, else ``[tool.hubrank]`` of its pyproject.toml, else the defaults.

    Raises:
        InputError: the file is not what it should be.
    """
    folder = folder or Path()
    if (folder / FILE).is_file():
        return read_policy(folder / FILE, rules)
    project = folder / _PROJECT
    if project.is_file():
        tool = _load(project)[0].get("tool")
        if isinstance(tool, dict) and "hubrank" in tool:
            return read_policy(project, rules)
    return Policy()


def read_policy(path: str | Path, rules: Collection[str]) -> Policy:
    """Read a policy file; a ``pyproject.toml`` has it under ``[tool.hubrank]``.

    Args:
        rules: the ids that there are.

    Raises:
        InputError: it is missing, no TOML, or holds a key or value that means nothing; the message says the file, the line
            where it can be told, and what may have been meant.
    """
    path = Path(path)
    value, text = _load(path)
    if path.name == _PROJECT:
        tool = value.get("tool")
        own = tool.get("hubrank") if isinstance(tool, dict) else None
        if not isinstance(own, dict):
            raise InputError(f"{path}: has no [tool.hubrank]")
        value = own
    return _Reader(path, text, rules).policy(value)


def _load(path: Path) -> tuple[dict[str, Any], str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); --policy takes a TOML file") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: {len(data):,} bytes; a policy has at most {_MAX_BYTES:,}")
    try:
        text = data.decode("utf-8")
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML ({error})") from error


class _Reader:
    def __init__(self, path: Path, text: str, rules: Collection[str]) -> None:
        self.path, self.text, self.rules = path, text, sorted(rules)

    def policy(self, value: Mapping[str, Any]) -> Policy:
        self._known(value, _TABLES, "")
        allow = self._table(value, "allow")
        self._known(allow, _ALLOW, "[allow] ")
        levels = {name: self._level(name, level) for name, level in self._rules(self._table(value, "rules")).items()}
        targets = self._table(value, "targets")
        return Policy(
            path=str(self.path),
            fail_on=self._fail_on(value.get("fail-on", "error")),
            levels=levels,
            licenses=self._texts(allow, "licenses"),
            bases=self._texts(allow, "bases"),
            orgs=self._texts(allow, "orgs"),
            ignores=self._ignores(value.get("ignore", [])),
            targets={name: self._target(name, table) for name, table in targets.items()},
        )

    def _rules(self, table: Mapping[str, Any]) -> Mapping[str, Any]:
        self._known(table, self.rules, "[rules] ", what="rule")
        return table

    def _level(self, name: str, level: object) -> Level:
        if level not in (*LEVELS, "off"):
            raise self._wrong(name, f"[rules] {name} is {_shown(level)}; levels are error, warning, note and off")
        return level

    def _fail_on(self, value: object) -> Level:
        if value not in (*LEVELS, "never"):
            raise self._wrong("fail-on", f"fail-on is {_shown(value)}; it takes error, warning, note or never")
        return "off" if value == "never" else cast("Level", value)

    def _ignores(self, entries: object) -> tuple[Ignore, ...]:
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._wrong("ignore", "ignore is a list of tables, written [[ignore]]")
        return tuple(self._ignore(number, entry) for number, entry in enumerate(entries, 1))

    def _ignore(self, number: int, entry: Mapping[str, Any]) -> Ignore:
        where = f"[[ignore]] no. {number}: "
        self._known(entry, _IGNORE, where)
        missing = [name for name in ("rule", "until", "reason") if name not in entry]
        if missing:
            raise self._wrong(None, f"{where}{missing[0]} is missing; an exception has a rule, a last day and a reason")
        rule, reason, adapter = (entry.get(name, "*") for name in ("rule", "reason", "adapter"))
        if rule != "*":
            self._known({str(rule): None}, self.rules, where, what="rule")
        if not isinstance(reason, str) or not reason.strip():
            raise self._wrong("reason", f"{where}reason is empty; say why it is accepted")
        if not isinstance(adapter, str):
            raise self._wrong("adapter", f"{where}adapter is {_shown(adapter)}, not a text")
        until = entry["until"]
        until = until.date() if isinstance(until, datetime) else until
        if not isinstance(until, date):
            raise self._wrong("until", f"{where}until is {_shown(until)}, not a date such as 2027-01-31 (without quotes)")
        return Ignore(str(rule), adapter, until, reason.strip())

    def _target(self, name: str, table: object) -> TargetPolicy:
        where = f'[targets."{name}"] '
        if not isinstance(table, dict):
            raise self._wrong(name, f"{where}is not a table")
        self._known(table, _TARGET, where)
        numbers = {}
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise self._wrong(key, f"{where}{key} is {_shown(value)}, not a number")
            numbers[key] = float(value)
        return TargetPolicy(numbers.get("min-score"), numbers.get("margin", 0.0))

    def _table(self, value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        table = value.get(name, {})
        if not isinstance(table, dict):
            raise self._wrong(name, f"{name} is {_shown(table)}, not a table, which is written [{name}]")
        return table

    def _texts(self, table: Mapping[str, Any], name: str) -> tuple[str, ...]:
        value = table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, f"[allow] {name} is {_shown(value)}, not a list of texts")
        return tuple(value)

    def _known(self, table: Mapping[str, Any], names: Collection[str], where: str, *, what: str = "key") -> None:
        for key in table:
            if key not in names:
                close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                known = ", ".join(names) if len(names) <= 8 else "docs/rules.md lists them"
                hint = f"did you mean {close[0]}?" if close else f"there is {known}" if len(names) <= 8 else known
                raise self._wrong(key, f"{where}{_shown(key)}: no such {what}; {hint}")

    def _wrong(self, key: str | None, message: str) -> InputError:
        line = _line_of(self.text, key) if key is not None else None
        return InputError(f"{self.path}{f':{line}' if line else ''}: {message}")


def _line_of(text: str, key: str) -> int | None:
    """The only line that begins with a key or a table's name; None where it cannot be told."""
    pattern: Callable[[str], re.Match[str] | None] = re.compile(
        rf"\s*(?:\[+[^\]]*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]"
    ).match
    lines = [number for number, line in enumerate(text.splitlines(), 1) if pattern(line)]
    return lines[0] if len(lines) == 1 else None


def _shown(value: object) -> str:
    return repr(value)[:60]
