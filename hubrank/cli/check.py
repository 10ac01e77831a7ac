"""``hubrank check``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubrank.cli.options import CacheDir, Quiet, Verbose
from hubrank.cli.output import Output
from hubrank.cli.progress import SearchProgress

if TYPE_CHECKING:
    from hubrank.check.findings import CheckReport

__all__ = ["check"]


class CheckFormat(StrEnum):
    """How the findings are printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"
    github = "github"
    junit = "junit"
    sarif = "sarif"


def check(
    adapters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIR|REPO]...", help="Folders of adapters, or org/name[@revision]."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Judge what entered the zoo since the last check.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="With --new: since a day, or 36h, 7d, 2w ago, instead.")
    ] = None,
    target: Annotated[
        list[Path] | None,
        typer.Option("--target", "-t", metavar="FILE.jsonl", help="Say which newcomer would lead it; may be repeated."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Default: hubrank.toml, or [tool.hubrank] in pyproject.toml, here."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="Base model of the targets: id, folder, or ID=FOLDER.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to tune the targets.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Ask no hub.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write one self-contained page.")
    ] = None,
    cache_dir: CacheDir = None,
    format: Annotated[  # noqa: A002 -- the option's name
        CheckFormat | None,
        typer.Option("--format", "-f", help="Default: github under GitHub Actions, else table.", show_default=False),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge adapters by rules; exits with 1 if something counts.

    hubrank check out/my-adapter

    hubrank check --new --target banking.jsonl --format junit
    """
    from hubrank.check.run import CheckSettings
    from hubrank.check.run import check as run

    output = Output(quiet=quiet, verbose=verbose)
    settings = CheckSettings(
        new=new, since=since, targets=tuple(target or ()), policy=policy, base=base, offline=offline, device=device
    )
    with SearchProgress(output) as progress:
        found = run(adapters or (), cache_dir=cache_dir, listener=progress, settings=settings)
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    _print(found, format or (CheckFormat.github if on_github else CheckFormat.table), output)
    if report is not None:
        _page(found, report, cache_dir)
    if on_github:
        _tell_github(found, annotate=format not in (None, CheckFormat.github), output=output)
    if found.failed:
        raise typer.Exit(1)


def _print(found: CheckReport, style: CheckFormat, output: Output) -> None:
    from hubrank.report import annotations, checking, junit, sarif

    match style:
        case CheckFormat.table:
            output.render(checking.check_table(found, verbose=output.verbose))
        case CheckFormat.json:
            output.text(checking.check_json(found))
        case CheckFormat.csv:
            output.text(checking.check_csv(found))
        case CheckFormat.md:
            output.text(checking.check_markdown(found))
        case CheckFormat.github:
            output.text(annotations.github_annotations(found))
        case CheckFormat.junit:
            output.text(junit.check_junit(found))
        case CheckFormat.sarif:
            output.text(sarif.check_sarif(found))


def _tell_github(found: CheckReport, *, annotate: bool, output: Output) -> None:
    """The job's summary and the step's outputs; annotations on stderr where stdout holds another format."""
    from hubrank.errors import UsageError
    from hubrank.report.annotations import SUMMARY_BYTES, github_annotations, github_outputs, github_summary, outputs_text

    summary, outputs = os.environ.get("GITHUB_STEP_SUMMARY"), os.environ.get("GITHUB_OUTPUT")
    try:
        if summary:
            file = Path(summary)
            room = SUMMARY_BYTES - (file.stat().st_size if file.exists() else 0)
            with file.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(github_summary(found, room=room))
        if outputs:
            with Path(outputs).open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(outputs_text(github_outputs(found)))
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written ({error.strerror}); GitHub names it for this step") from error
    if annotate:
        output.command_lines(github_annotations(found))


def _page(found: CheckReport, path: Path, cache_dir: Path | None) -> None:
    from hubrank.cli.page import command_line, versions, write_page
    from hubrank.report.check_page import check_page
    from hubrank.report.zoo_maps import map_of_check
    from hubrank.zoo.store import Zoo

    with Zoo(cache_dir) as zoo:
        drawn = map_of_check(zoo, found)
    write_page(path, check_page(found, drawn, command=command_line(), versions=versions()))
