"""Write docs/cli.md from the commands themselves, so that it says what ``--help`` says; ``make docs`` runs it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from hubrank.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
_COMMON = ("--cache-dir", "--format", "--quiet", "--verbose")
_HEAD = """\
# The command line

Rendered from the commands by `make docs`; a test fails when it is out of date. Results go to stdout, everything else to
stderr. Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 bad input, 4 hub trouble, 5 store trouble (or nothing in it
to compare), 70 a bug of ours, 130 interrupted.
"""


def rendered() -> str:
    """The page, from every command and option that is not hidden."""
    commands = dict(_commands(typer.main.get_command(app), "hubrank"))
    common = {
        option.opts[0]: _row(option) for command in commands.values() for option in command.params if option.opts[0] in _COMMON
    }
    parts = [_HEAD, "## Options of most commands\n", _table(common[name] for name in _COMMON)]
    for name, command in commands.items():
        parts += _section(name, command)
    return "\n".join(parts)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    # A group is named where it does something of its own.
    if inner is None or name == "hubrank" or command.invoke_without_command:
        yield name, command
    for word, one in (inner or {}).items():
        if not one.hidden:
            yield from _commands(one, f"{name} {word}")


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## `{name}`\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        yield f"    {text}\n" if text.startswith("hubrank ") else f"{text}\n"
    rows = [_row(option) for option in command.params if option.opts[0] not in (*_COMMON, "--help")]
    if rows:
        yield _table(rows)
    taken = [f"`{option.opts[0]}`" for option in command.params if option.opts[0] in _COMMON]
    if taken:
        yield f"{'Also' if rows else 'Options:'} {', '.join(taken)}.\n"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {words} | {what} |" for words, what in rows]
    return "\n".join(["| option | what it does |", "|---|---|", *lines, ""])


def _row(option: Any) -> tuple[str, str]:
    """(how it is written, what it does and its default)."""
    takes_value = not getattr(option, "is_flag", False)
    # Which class holds the choices differs between versions of typer; the default is one of them in all.
    choices = type(option.default) if isinstance(option.default, Enum) else ()
    value = option.metavar or "|".join(choice.value for choice in choices)
    if option.param_type_name == "argument":
        words = f"`{value}`"
    else:
        words = ", ".join(f"`{word}`" for word in (*option.opts, *option.secondary_opts))
        words += f" `{value}`" if takes_value and value else ""
    what = re.sub(r"\s+", " ", option.help or "")
    default = getattr(option.default, "value", option.default)
    if takes_value and isinstance(default, str | int | float) and not isinstance(default, bool) and not option.required:
        what += f" Default: `{default}`."
    if option.required:
        what += " Required."
    return words.replace("|", "\\|"), what.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
