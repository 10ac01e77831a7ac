"""``hubrank cache``."""

from __future__ import annotations

from typing import Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose
from hubrank.cli.output import Output

__all__ = ["app"]

app = typer.Typer(help="The zoo on disk: where it is, whether it is sound, and how to start over.", invoke_without_command=True)


@app.callback()
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        info()


@app.command("info")
def info(
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print the path, the size and what the zoo holds."""
    from hubrank.report.listing import facts_text
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    with Zoo(cache_dir) as zoo:
        sources = zoo.sources(gone=True)
        bases = zoo.bases()
        facts = {
            "path": str(zoo.folder),
            "bytes": zoo.size(),
            "sources": sum(not source.gone for source in sources),
            "gone": sum(source.gone for source in sources),
            "bases": bases,
        }
    output.text(facts_text(facts, format.value))


@app.command("verify")
def verify(cache_dir: CacheDir = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Read every record; exit with 5 if any is damaged."""
    from hubrank.errors import StoreDamagedError
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    with Zoo(cache_dir) as zoo:
        wrong = zoo.verify()
        count = len(zoo.sources(gone=True)) if not wrong else 0
        folder = zoo.folder
    for line in wrong:
        output.text(line)
    if wrong:
        way_out = f"`hubrank cache clear --cache-dir {folder}` and `hubrank sync` rebuild it"
        raise StoreDamagedError(f"{folder}: {len(wrong)} records are damaged; {way_out}")
    output.note(f"{folder}: all {count} sources can be read")


@app.command("clear")
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Delete the zoo, damaged or not; the next sync rebuilds it."""
    import sys

    from hubrank.errors import UsageError
    from hubrank.zoo.store import cache_folder, clear_store

    output = Output(quiet=quiet, verbose=verbose)
    folder = cache_folder(cache_dir)
    if not yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError("clearing the zoo cannot be undone; say --yes")
        typer.confirm(f"Delete the zoo in {folder}?", abort=True)
    freed = clear_store(folder)
    output.note(f"{folder}: cleared, {freed:,} bytes freed")
