"""``hubrank ls``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hubrank.cli.options import BaseFilter, CacheDir, Format, FormatOption, MethodFilter, Quiet, Verbose
from hubrank.cli.output import Output

__all__ = ["Order", "ls"]


class Order(StrEnum):
    """What the list is sorted by."""

    name = "name"
    task = "task"
    base = "base"
    method = "method"
    rank = "rank"


def ls(
    base: BaseFilter = None,
    method: MethodFilter = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="TEXT", help="Only sources whose task, dataset or AdapterHub task contains this; may be repeated."
        ),
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option("--language", metavar="CODE", help="Only of this language; may be repeated.")
    ] = None,
    license_: Annotated[
        list[str] | None, typer.Option("--license", metavar="ID", help="Only under this licence; may be repeated.")
    ] = None,
    gone: Annotated[bool, typer.Option("--gone", help="Also those that left their hub, marked.")] = False,
    sort: Annotated[Order, typer.Option("--sort", help="What to sort by.")] = Order.name,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the zoo.

    hubrank ls --base FacebookAI/roberta-base --task nli

    hubrank ls --sort rank --format csv
    """
    from hubrank.report.listing import sources_csv, sources_json, sources_markdown, sources_table
    from hubrank.zoo.selection import Selection, select_sources
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    wanted = Selection(
        bases=tuple(base or ()),
        methods=tuple(method or ()),
        tasks=tuple(task or ()),
        languages=tuple(language or ()),
        licenses=tuple(license_ or ()),
        gone=gone,
    )
    with Zoo(cache_dir) as zoo:
        stored = zoo.sources(gone=True)
        folder = zoo.folder
    found = select_sources(stored, wanted, order=sort)
    match format:
        case Format.json:
            output.text(sources_json(found))
        case Format.csv:
            output.text(sources_csv(found))
        case Format.md:
            output.text(sources_markdown(found))
        case Format.table:
            output.render(sources_table(found))
    if not stored:
        output.note(f"{folder}: the zoo is empty; `hubrank sync` fills it")
    elif not found:
        output.note(f"none of the {len(stored)} sources in {folder} fits; `hubrank ls` without options lists them")
