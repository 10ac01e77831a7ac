"""``hubrank cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose, WaitOption
from hubrank.cli.output import Output

__all__ = ["app"]

app = typer.Typer(
    help="The zoo on disk: where it is, whether it is sound, how to hand it on, make it smaller, and start over.",
    invoke_without_command=True,
)


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


@app.command("path")
def path(cache_dir: CacheDir = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print where the zoo is, and nothing else; it need not be there yet."""
    from hubrank.zoo.store import cache_folder

    Output(quiet=quiet, verbose=verbose).text(str(cache_folder(cache_dir)))


@app.command("size")
def size(cache_dir: CacheDir = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print how many bytes the zoo takes on disk, and nothing else."""
    from hubrank.zoo.store import Zoo

    with Zoo(cache_dir) as zoo:
        Output(quiet=quiet, verbose=verbose).text(str(zoo.size()))


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


@app.command("prune")
def prune(
    gone: Annotated[bool, typer.Option("--gone", help="Forget what is no longer on its hub.")] = False,
    base: Annotated[
        list[str] | None, typer.Option("--base", metavar="MODEL", help="Forget what belongs to this base; may be repeated.")
    ] = None,
    older: Annotated[
        bool, typer.Option("--older", help="Forget what an older hubrank read, where this one may see more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be forgotten.")] = False,
    wait: WaitOption = False,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the zoo smaller; the next sync reads again what is still on its hub and is asked for.

    hubrank cache prune --gone --dry-run
    """
    from hubrank.report.upkeep import pruned_text
    from hubrank.zoo.store import Zoo
    from hubrank.zoo.upkeep import prune as run

    output = Output(quiet=quiet, verbose=verbose)
    with Zoo(cache_dir) as zoo:
        done = run(zoo, gone=gone, bases=tuple(base or ()), older_reader=older, dry_run=dry_run, wait=wait)
    output.text(pruned_text(done, format.value, dry_run=dry_run))


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the zoo into one file, so that a team syncs once and shares it.

    hubrank cache export zoo.zip
    """
    from hubrank.errors import EmptyZooError, UsageError
    from hubrank.zoo.archive import export_zoo
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    if not force and file.expanduser().exists():
        raise UsageError(f"{file}: is there already; --force writes over it")
    with Zoo(cache_dir) as zoo:
        if not zoo.sources(gone=True):
            raise EmptyZooError(f"{zoo.folder}: the zoo is empty; `hubrank sync` fills it")
        count = export_zoo(zoo, file)
    written = file.expanduser().stat().st_size
    output.note(f"{file}: {count:,} sources, {written:,} bytes; `hubrank cache import {file}` takes them in")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `hubrank cache export` wrote.")],
    wait: WaitOption = False,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take in a zoo that another exported: all of it, or nothing where anything is wrong with the file.

    What is here already stays, unless the file's was read later, at another revision.
    """
    from hubrank.zoo.archive import import_zoo
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    with Zoo(cache_dir, create=True) as zoo:
        done = import_zoo(zoo, file, wait=wait)
        folder = zoo.folder
    output.note(f"{folder}: {done.added:,} sources added, {done.replaced:,} replaced, {done.kept:,} kept as they were")


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
