"""``hubrank search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubrank.cli.first_sync import sync_what_is_missing
from hubrank.cli.options import CacheDir, FieldsOption, Format, FormatOption, Quiet, TaskOption, Verbose
from hubrank.cli.output import Output
from hubrank.cli.progress import Interrupted, SearchProgress

if TYPE_CHECKING:
    from hubrank.types import MethodRun, Ranking

__all__ = ["ESTIMATOR_HELP", "EXPLAINED", "search", "seconds_of"]


EXPLAINED = 3
ESTIMATOR_HELP = (
    "What orders the sources: four-views, three-views, read-write, compute-std, tokens-std; docs/estimators.md. "
    "Default: the method's own."
)


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
            "--base",
            metavar="MODEL",
            help="Model id, folder, ID=FOLDER, or auto: the base with most sources in the zoo that fits task and device.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="lora, bottleneck, prefix, prompt, bias or ia3; may be repeated. Default: all with enough sources.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-n", metavar="N", min=1, help="Rows to show.")] = 10,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Tuning steps on the target, at most.")] = 75,
    full: Annotated[bool, typer.Option("--full", help="Do all steps, even where the ranking stands earlier.")] = False,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help="At most so much time for tuning, such as 90s or 2m.")
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", min=1, help="Tune with so many seeds: every place gets an interval.")
    ] = 1,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to tune.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of initialisation and row order.")] = 0,
    estimator: Annotated[str | None, typer.Option("--estimator", metavar="NAME", help=ESTIMATOR_HELP)] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help=f"Say of the first {EXPLAINED} why they stand where they stand.")
    ] = False,
    retune: Annotated[bool, typer.Option("--retune", help="Tune again, even what was tuned before.")] = False,
    no_sync: Annotated[
        bool,
        typer.Option("--no-sync", help="Where the zoo has nothing for the base, do not read its adapters from the HF Hub."),
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask a hub, for adapters or for the base model.")] = False,
    gone: Annotated[bool, typer.Option("--gone", help="Rank what left its hub, too, marked.")] = False,
    rerank: Annotated[
        int | None,
        typer.Option(
            "--rerank", metavar="N", min=1, help="Run the first N sources on your rows, and order them by LogME, too."
        ),
    ] = None,
    verify: Annotated[
        int | None,
        typer.Option(
            "--verify", metavar="K", min=1, help="Tune from the first K sources and from scratch, and measure the gain."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write one self-contained page.")
    ] = None,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Rank the zoo by predicted transfer to your task.

    Tunes each method of the zoo on your rows, on this machine, until the ranking stands; your file never leaves it, and no
    source is run. Where the zoo has nothing for the base yet, its adapters are read from the HF Hub first.

    Only --rerank and --verify fetch published weights and run them, as numbers and never as code; first they say what it costs.

    hubrank search --target mydata.jsonl

    hubrank search --target mydata.jsonl --format json
    """
    from hubrank.ranking.search import SearchInterrupted, SearchSettings
    from hubrank.ranking.search import search as run
    from hubrank.target.rows import read_target

    output = Output(quiet=quiet, verbose=verbose)
    settings = SearchSettings(
        base=base,
        methods=tuple(dict.fromkeys(method or ())),
        top=top,
        steps=steps,
        seed=seed,
        device=device,
        early=not full,
        budget=None if budget is None else seconds_of(budget),
        repeats=repeats,
        estimator=estimator,
        explain=min(top, EXPLAINED) if explain else 0,
        offline=offline,
        gone=gone,
        reuse=not retune,
        rerank=rerank,
        verify=verify,
    )
    rows = read_target(target, task=task, fields=fields)
    if not no_sync:
        sync_what_is_missing(output, settings, cache_dir)
    stopped = None
    with SearchProgress(output) as progress:
        try:
            ranking = run(rows, cache_dir=cache_dir, listener=progress, settings=settings)
        except SearchInterrupted as interrupt:
            ranking, stopped = interrupt.ranking, Interrupted(f"{interrupt}; what was measured is kept")
    if report is not None:
        _page(ranking, report, cache_dir)
    _print(ranking, format, output, explain=explain)
    for one in ranking.runs:
        output.note(_run_line(one, ranking.target.device))
    skipped = ", ".join(f"{n} {reason}" for reason, n in ranking.skipped.items())
    output.note(f"compared {ranking.compared} of {ranking.sources} sources" + (f" (not: {skipped})" if skipped else ""))
    if stopped is not None:
        raise stopped


def _print(ranking: Ranking, form: Format, output: Output, *, explain: bool) -> None:
    from hubrank.report.ranking import ranking_csv, ranking_json, ranking_markdown, ranking_table

    match form:
        case Format.json:
            output.text(ranking_json(ranking))
        case Format.csv:
            output.text(ranking_csv(ranking))
            if explain:
                output.note("--explain: CSV has no room for it; take another --format")
        case Format.md:
            output.text(ranking_markdown(ranking))
        case Format.table:
            output.render(ranking_table(ranking, unicode=output.unicode))


def _page(ranking: Ranking, path: Path, cache_dir: Path | None) -> None:
    from hubrank.cli.page import command_line, versions, write_page
    from hubrank.report.search_page import search_page
    from hubrank.report.zoo_maps import map_of_search
    from hubrank.zoo.store import Zoo

    with Zoo(cache_dir) as zoo:
        drawn = map_of_search(zoo, ranking)
    write_page(path, search_page(ranking, drawn, command=command_line(), versions=versions()))


_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_WHY = {"stable": "the ranking stands", "steps": "all steps done", "budget": "the time was up"}


def seconds_of(text: str) -> float:
    """``90``, ``90s``, ``2m`` or ``1.5h`` in seconds.

    Raises:
        UsageError: it is none of these.
    """
    from hubrank.errors import UsageError

    number = text.rstrip("smh")
    unit = text[len(number) :]
    try:
        return float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise UsageError(f"--budget {text}: give a time such as 90s or 2m") from None


def _run_line(run: MethodRun, device: str) -> str:
    if run.cached:
        return f"{run.method}: tuned before ({run.steps} steps, seed {run.seed})"
    why = _WHY.get(run.stopped, run.stopped)
    return f"{run.method}: tuned {run.steps} of {run.planned} steps in {run.seconds:.1f} s on {device} ({why})"
