"""``hubrank sync``."""

from __future__ import annotations

from typing import Annotated

import typer

from hubrank.cli.options import BaseFilter, CacheDir, Format, FormatOption, Quiet, Verbose
from hubrank.cli.output import Output
from hubrank.cli.progress import SyncProgress

__all__ = ["sync"]


def sync(
    hub: Annotated[
        list[str] | None, typer.Option("--hub", metavar="hf|DIR", help="Where to look; may be repeated. Default: the HF Hub.")
    ] = None,
    base: BaseFilter = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most N repositories per hub.")] = None,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring the zoo up to date: read new and changed adapters into per-layer vectors.

    hubrank sync --hub examples/zoo

    hubrank sync --base FacebookAI/roberta-base --limit 500
    """
    from hubrank.api import sync as run
    from hubrank.report.syncing import sync_csv, sync_json, sync_markdown, sync_table
    from hubrank.zoo.sync import Event

    output = Output(quiet=quiet, verbose=verbose)
    with SyncProgress(output) as progress:

        def on_event(event: Event) -> None:
            progress.event(event.name, event.outcome, event.detail)

        report = run(hub or ["hf"], bases=base or (), limit=limit, cache_dir=cache_dir, on_event=on_event)
    match format:
        case Format.json:
            output.text(sync_json(report))
        case Format.csv:
            output.text(sync_csv(report))
        case Format.md:
            output.text(sync_markdown(report))
        case Format.table:
            output.render(sync_table(report))
    if report.skipped and not verbose:
        output.note("-v names each skipped adapter and why")
