"""``hubrank search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubrank.cli.first_sync import sync_what_is_missing
from hubrank.cli.options import CacheDir, FieldsOption, Format, FormatOption, Quiet, TaskOption, Verbose
from hubrank.cli.output import Output
from hubrank.cli.progress import SearchProgress

if TYPE_CHECKING:
    from hubrank.types import Ranking

__all__ = ["search"]


def search(
    target: Annotated[
        Path,
        typer.Option(
            "--target", "-t", metavar="FILE", help="Your labelled rows (JSONL, CSV, ...); `hubrank target` shows them."
        ),
    ],
    task: TaskOption = None,
    fields: FieldsOption = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="MODEL", help="Model id, folder, or ID=FOLDER. Default: the base with most sources in the zoo."
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-n", metavar="N", min=1, help="Rows to show.")] = 10,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Tuning steps on the target.")] = 75,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to tune.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of initialisation and row order.")] = 0,
    estimator: Annotated[str, typer.Option("--estimator", metavar="NAME", help="What orders the sources.")] = "three-views",
    no_sync: Annotated[
        bool,
        typer.Option("--no-sync", help="Where the zoo has nothing for the base, do not read its adapters from the HF Hub."),
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask a hub, for adapters or for the base model.")] = False,
    gone: Annotated[bool, typer.Option("--gone", help="Rank what left its hub, too, marked.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write one self-contained page.")
    ] = None,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Rank the zoo by predicted transfer to your task.

    Tunes a small LoRA on your rows for a few steps, on this machine; your file never leaves it, and no source is run. Where
    the zoo has nothing for the base yet, its adapters are read from the HF Hub first.

    hubrank search --target mydata.jsonl

    hubrank search --target mydata.jsonl --format json
    """
    from hubrank.ranking.search import SearchSettings
    from hubrank.ranking.search import search as run
    from hubrank.report.ranking import ranking_csv, ranking_json, ranking_markdown, ranking_table
    from hubrank.target.rows import read_target

    output = Output(quiet=quiet, verbose=verbose)
    settings = SearchSettings(
        base=base, top=top, steps=steps, seed=seed, device=device, estimator=estimator, offline=offline, gone=gone
    )
    rows = read_target(target, task=task, fields=fields)
    if not no_sync:
        sync_what_is_missing(output, settings, cache_dir)
    with SearchProgress(output) as progress:
        ranking = run(rows, cache_dir=cache_dir, listener=progress, settings=settings)
    if report is not None:
        _page(ranking, report, cache_dir)
    match format:
        case Format.json:
            output.text(ranking_json(ranking))
        case Format.csv:
            output.text(ranking_csv(ranking))
        case Format.md:
            output.text(ranking_markdown(ranking))
        case Format.table:
            output.render(ranking_table(ranking, unicode=output.unicode))
    tuned = f"tuned {ranking.target.steps} steps in {ranking.target.seconds:.1f} s on {ranking.target.device}"
    skipped = ", ".join(f"{n} {reason}" for reason, n in ranking.skipped.items())
    output.note(
        f"{tuned}; compared {ranking.compared} of {ranking.sources} sources" + (f" (not: {skipped})" if skipped else "")
    )


def _page(ranking: Ranking, path: Path, cache_dir: Path | None) -> None:
    from hubrank.cli.page import command_line, versions, write_page
    from hubrank.report.search_page import search_page
    from hubrank.report.zoo_maps import map_of_search
    from hubrank.zoo.store import Zoo

    with Zoo(cache_dir) as zoo:
        drawn = map_of_search(zoo, ranking)
    write_page(path, search_page(ranking, drawn, command=command_line(), versions=versions()))
