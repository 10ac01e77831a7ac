"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "BaseFilter",
    "CacheDir",
    "FieldsOption",
    "Format",
    "FormatOption",
    "MethodFilter",
    "Quiet",
    "TaskOption",
    "Verbose",
    "WaitOption",
]


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


CacheDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Where the zoo is kept. Default: $HUBRANK_CACHE, else ./cache if it holds a CACHEDIR.TAG, else your cache folder.",
    ),
]
FormatOption: TypeAlias = Annotated[Format, typer.Option("--format", "-f", help="How to print the result.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no hints on stderr.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; add tracebacks to errors.")]
WaitOption: TypeAlias = Annotated[
    bool, typer.Option("--wait", help="Where another process is changing the zoo, wait until it is done.")
]
BaseFilter: TypeAlias = Annotated[
    list[str] | None, typer.Option("--base", metavar="MODEL", help="Only adapters of this base; may be repeated.")
]
MethodFilter: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="METHOD", help="Only adapters of this method, such as lora; may be repeated."),
]
TaskOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="classification, multi-label, regression, multiple-choice, tagging, qa, causal-lm or seq2seq. Default: inferred.",
    ),
]
FieldsOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--fields", metavar="ROLE=FIELD,...", help="Which field is which, such as text=headline,label=class."),
]
