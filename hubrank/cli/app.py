"""The typer application; each command lives in a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from hubrank._version import VERSION
from hubrank.cli import bench, cache, check, doctor, ls, search, show, sync, target

__all__ = ["app"]

app = typer.Typer(
    name="hubrank",
    help="Find the published adapter that transfers best to your task: sync a zoo once, then search it with a few rows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("sync")(sync.sync)
app.command("search")(search.search)
app.command("target")(target.target)
app.command("check")(check.check)
app.command("bench")(bench.bench)
app.command("ls")(ls.ls)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)
app.add_typer(cache.app, name="cache")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hubrank {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass
