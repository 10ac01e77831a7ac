"""``hubrank sync``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose, WaitOption
from hubrank.cli.output import Output
from hubrank.cli.progress import Interrupted, SyncProgress

if TYPE_CHECKING:
    from hubrank.api import SyncSettings
    from hubrank.types import SyncPlan, SyncReport

__all__ = ["sync"]

Several = list[str] | None


def sync(
    hub: Annotated[
        Several,
        typer.Option(
            "--hub",
            metavar="hf|adapterhub|zips|zips:INDEX|DIR",
            help="Where to look; may be repeated. INDEX is a checkout or address of AdapterHub's archive. Default: the HF Hub.",
        ),
    ] = None,
    base: Annotated[
        Several,
        typer.Option(
            "--base",
            metavar="MODEL|all",
            help="Only adapters of this base; may be repeated. Default: the bases in the zoo, or a short list if it is empty.",
        ),
    ] = None,
    method: Annotated[
        Several,
        typer.Option(
            "--method", metavar="METHOD", help="Only lora, bottleneck, prefix, prompt, bias, ia3, ...; may be repeated."
        ),
    ] = None,
    task: Annotated[
        Several, typer.Option("--task", metavar="TASK", help="Only this task, such as nli/multinli; may be repeated.")
    ] = None,
    language: Annotated[
        Several, typer.Option("--language", metavar="CODE", help="Only this language, such as en; may be repeated.")
    ] = None,
    license_: Annotated[
        Several, typer.Option("--license", metavar="ID", help="Only this licence, such as apache-2.0; may be repeated.")
    ] = None,
    author: Annotated[
        Several, typer.Option("--author", metavar="NAME", help="Only this organisation or user; may be repeated.")
    ] = None,
    min_downloads: Annotated[
        int | None,
        typer.Option("--min-downloads", metavar="N", min=0, help="Only what was downloaded so often, where counted."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most N repositories per hub.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", metavar="N", min=1, help="Adapters read at once. Default: 8 from a network, 1 from a folder."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="auto|local|HOST:PORT", help="Read on this Ray cluster; wants the extra hubrank[ray]."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List only; say what would be read, with its bytes and requests.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no hub on the network; folders are read.")] = False,
    wait: WaitOption = False,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring the zoo up to date: read new and changed adapters into per-layer vectors, mark what is gone.

    hubrank sync --hub examples/zoo

    hubrank sync --base FacebookAI/roberta-base --limit 500

    hubrank sync --base all --task sentiment --dry-run

    What was read is kept whatever stops it; the same command goes on from there.
    """
    from hubrank.api import SyncSettings

    output = Output(quiet=quiet, verbose=verbose)
    settings = SyncSettings(
        bases=tuple(base or ()),
        methods=tuple(method or ()),
        tasks=tuple(task or ()),
        languages=tuple(language or ()),
        licenses=tuple(license_ or ()),
        authors=tuple(author or ()),
        min_downloads=min_downloads,
        limit=limit,
        jobs=jobs,
        ray=ray,
        offline=offline,
        wait=wait,
    )
    if dry_run:
        _plan(output, hub or ["hf"], settings, cache_dir, format)
    else:
        _sync(output, hub or ["hf"], settings, cache_dir, format)


def _sync(output: Output, hubs: list[str], settings: SyncSettings, cache_dir: CacheDir, style: Format) -> None:
    from hubrank.api import sync as run
    from hubrank.errors import SyncIncompleteError

    with SyncProgress(output) as progress:
        try:
            report = run(hubs, cache_dir=cache_dir, settings=settings, on_event=progress.event, on_wait=progress.note)
        except SyncIncompleteError as error:
            report = error.report
        except KeyboardInterrupt:
            raise Interrupted(progress.kept()) from None
    _print_report(output, report, style)
    _end(output, report.failed, report.not_asked)


def _plan(output: Output, hubs: list[str], settings: SyncSettings, cache_dir: CacheDir, style: Format) -> None:
    from hubrank.api import plan as run

    with SyncProgress(output):
        plan = run(hubs, cache_dir=cache_dir, settings=settings)
    _print_plan(output, plan, style)
    _end(output, plan.failed, plan.not_asked)


def _print_report(output: Output, report: SyncReport, style: Format) -> None:
    from hubrank.report.syncing import sync_csv, sync_json, sync_markdown, sync_table

    match style:
        case Format.json:
            output.text(sync_json(report))
        case Format.csv:
            output.text(sync_csv(report))
        case Format.md:
            output.text(sync_markdown(report))
        case Format.table:
            output.render(sync_table(report))
    if report.skipped and not output.verbose:
        output.note("-v names each skipped adapter and why")


def _print_plan(output: Output, plan: SyncPlan, style: Format) -> None:
    from hubrank.report.plan import plan_csv, plan_json, plan_markdown, plan_table

    match style:
        case Format.json:
            output.text(plan_json(plan))
        case Format.csv:
            output.text(plan_csv(plan))
        case Format.md:
            output.text(plan_markdown(plan))
        case Format.table:
            output.render(plan_table(plan, every=output.verbose))


def _end(output: Output, failed: tuple[tuple[str, str], ...], not_asked: tuple[str, ...]) -> None:
    """Name the hubs that were not asked, and those that failed, one line each; after a failure the exit code is 4."""
    from hubrank.errors import HubError

    for name in not_asked:
        output.note(f"{name} was not asked: --offline")
    for name, why in failed:
        output.fault(f"{name}: {why}")
    if failed:
        raise typer.Exit(HubError.exit_code)
