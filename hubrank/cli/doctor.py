"""``hubrank doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose
from hubrank.cli.output import Output

__all__ = ["doctor"]


def doctor(
    base: Annotated[
        list[str] | None,
        typer.Option("--base", metavar="MODEL", help="Look for this base model; may be repeated. Default: those of the zoo."),
    ] = None,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check what hubrank needs: packages, device, cache, hub, token, base models. Exits with 1 if something is missing."""
    from hubrank.diagnosis import diagnose
    from hubrank.report.findings import findings_text

    output = Output(quiet=quiet, verbose=verbose)
    findings = diagnose(cache_dir, bases=base or ())
    output.text(findings_text(findings, format.value))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)
