"""``hubrank target``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubrank.cli.options import FieldsOption, Format, FormatOption, Quiet, TaskOption, Verbose
from hubrank.cli.output import Output
from hubrank.errors import TargetError

__all__ = ["target"]


def target(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, JSON, CSV, TSV or Parquet, also gzipped; - for stdin.")],
    task: TaskOption = None,
    fields: FieldsOption = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what hubrank understands of a target file, without tuning. Exits with 3 if it cannot be used.

    hubrank target mydata.jsonl

    hubrank target news.csv --fields text=headline,label=desk
    """
    from hubrank.report.target import target_csv, target_json, target_markdown, target_table
    from hubrank.target.rows import examine_target
    from hubrank.target.summary import summarise

    output = Output(quiet=quiet, verbose=verbose)
    summary = summarise(examine_target(file, task=task, fields=fields))
    match format:
        case Format.json:
            output.text(target_json(summary))
        case Format.csv:
            output.text(target_csv(summary))
        case Format.md:
            output.text(target_markdown(summary))
        case Format.table:
            output.render(target_table(summary, unicode=output.unicode))
    examined = summary.examination
    first = next((problem for problem in examined.problems if problem.fatal), None)
    if first is not None:
        raise TargetError(examined.path, first.message, line=first.line)
