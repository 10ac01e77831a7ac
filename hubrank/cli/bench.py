"""``hubrank bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose
from hubrank.cli.output import Output
from hubrank.cli.progress import SearchProgress

__all__ = ["bench"]


def bench(
    transfer: Annotated[
        Path,
        typer.Option("--transfer", metavar="FILE", help="Measured transfer, a run a line of JSON; docs/bench.md says how."),
    ],
    zoo: Annotated[
        Path | None, typer.Option("--zoo", metavar="DIR", help="Folder of the adapters. Default: the zoo in the cache.")
    ] = None,
    targets: Annotated[
        Path | None, typer.Option("--targets", metavar="DIR", help="Folder with the rows of each target, NAME.jsonl.")
    ] = None,
    estimator: Annotated[
        list[str] | None, typer.Option("--estimator", metavar="NAME", help="Only these; may be repeated. Default: all.")
    ] = None,
    rivals: Annotated[
        bool, typer.Option("--rivals", help="Judge rivals too; some run every source on every target's rows.")
    ] = False,
    source_rows: Annotated[
        Path | None,
        typer.Option("--source-rows", metavar="DIR", help="With --rivals: rows of each source's task, SOURCE.jsonl."),
    ] = None,
    kin: Annotated[bool, typer.Option("--kin/--no-kin", help="Keep sources that a row calls kin of its target.")] = True,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="FIELD=VALUE", help="Only sources' rows that say so; may be repeated."),
    ] = None,
    least: Annotated[
        int, typer.Option("--least", metavar="N", min=2, help="Leave out targets with fewer measured sources.")
    ] = 3,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="Model id, folder, or ID=FOLDER. Default: the sources'.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Tuning steps on a target, at most.")] = 75,
    full: Annotated[bool, typer.Option("--full", help="Do all steps, even where the ranking stands earlier.")] = False,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", min=1, help="Tune with so many seeds; figures are means over them.")
    ] = 1,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to tune.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of initialisation and row order.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask a hub for the base model.")] = False,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge rankings by transfer that you measured: regret, NDCG, Spearman and gain of estimators and rivals.

    hubrank bench --zoo adapters --transfer measured.jsonl --targets rows --rivals

    Targets are tuned as a search tunes them, and kept, so that a second run tunes nothing.
    """
    from hubrank.benchmark.facts import BenchSettings
    from hubrank.benchmark.run import bench as run
    from hubrank.report.benchmark import bench_csv, bench_json, bench_markdown, bench_table

    output = Output(quiet=quiet, verbose=verbose)
    settings = BenchSettings(
        zoo=zoo,
        targets=targets,
        estimators=tuple(dict.fromkeys(estimator or ())),
        rivals=rivals,
        source_rows=source_rows,
        kin=kin,
        where=tuple(where or ()),
        least=least,
        base=base,
        steps=steps,
        seed=seed,
        repeats=repeats,
        device=device,
        early=not full,
        offline=offline,
    )
    with SearchProgress(output) as progress:
        report = run(transfer, cache_dir=cache_dir, listener=progress, settings=settings)
    match format:
        case Format.json:
            output.text(bench_json(report))
        case Format.csv:
            output.text(bench_csv(report))
        case Format.md:
            output.text(bench_markdown(report))
        case Format.table:
            output.render(bench_table(report))
