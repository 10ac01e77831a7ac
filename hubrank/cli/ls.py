"""``hubrank ls``."""

from __future__ import annotations

from typing import Annotated

import typer

from hubrank.cli.options import BaseFilter, CacheDir, Format, FormatOption, MethodFilter, Quiet, Verbose
from hubrank.cli.output import Output

__all__ = ["ls"]


def ls(
    base: BaseFilter = None,
    method: MethodFilter = None,
    task: Annotated[str | None, typer.Option("--task", metavar="TEXT", help="Only sources whose task contains this.")] = None,
    gone: Annotated[bool, typer.Option("--gone", help="Also those that left their hub.")] = False,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the zoo."""
    from hubrank.checkpoints.base_names import canonical_name
    from hubrank.report.listing import sources_csv, sources_json, sources_markdown, sources_table
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    bases = {*(base or ()), *map(canonical_name, base or ())}
    with Zoo(cache_dir) as zoo:
        found = [
            source
            for source in zoo.sources(method=method, gone=gone)
            if (not bases or source.base in bases) and (task is None or task.lower() in (source.task or "").lower())
        ]
        folder = zoo.folder
    match format:
        case Format.json:
            output.text(sources_json(found))
        case Format.csv:
            output.text(sources_csv(found))
        case Format.md:
            output.text(sources_markdown(found))
        case Format.table:
            output.render(sources_table(found))
    if not found:
        output.note(f"no such source in {folder}; `hubrank sync` fills the zoo")
