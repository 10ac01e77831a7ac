"""``hubrank show``."""

from __future__ import annotations

from typing import Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose
from hubrank.cli.output import Output

__all__ = ["show"]


def show(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Its name as `hubrank ls` prints it, or a unique part of it.")
    ],
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show one source: what its card says, where it changes the model and how strongly.

    hubrank show AdapterHub/roberta-base-pf-sick

    The norm of a layer is the Frobenius norm of all that the adapter adds to the weights of that layer.
    """
    from hubrank.report.source import source_csv, source_json, source_markdown, source_table
    from hubrank.zoo.codec import encode_source
    from hubrank.zoo.lookup import find_source
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    with Zoo(cache_dir) as zoo:
        found = find_source(zoo, source)
        signature = zoo.signature(found)
        stored = len(encode_source(found)) + len(zoo.record(found).signature)
    match format:
        case Format.json:
            output.text(source_json(found, signature, stored))
        case Format.csv:
            output.text(source_csv(found, signature))
        case Format.md:
            output.text(source_markdown(found, signature, stored))
        case Format.table:
            output.render(source_table(found, signature, stored, unicode=output.unicode))
