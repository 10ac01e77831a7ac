"""``hubrank show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubrank.cli.options import CacheDir, Format, FormatOption, Quiet, Verbose
from hubrank.cli.output import Output

if TYPE_CHECKING:
    from hubrank.ranking.explain import Explanation
    from hubrank.types import Source
    from hubrank.zoo.store import Zoo

__all__ = ["show"]


def show(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Its name as `hubrank ls` prints it, or a unique part of it.")
    ],
    target: Annotated[
        Path | None,
        typer.Option(
            "--target", "-t", metavar="FILE", help="Say why it stands where it stands for these rows, as `search` does."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="With --target: the folder of its base model, or ID=FOLDER."),
    ] = None,
    cache_dir: CacheDir = None,
    format: FormatOption = Format.table,  # noqa: A002 -- the option's name
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show one source: what its card says, where it changes the model, how strongly, and what lies near it in the zoo.

    hubrank show AdapterHub/roberta-base-pf-sick

    hubrank show AdapterHub/roberta-base-pf-sick --target mydata.jsonl

    The norm of a layer is the Frobenius norm of all that the adapter adds to the weights of that layer.
    """
    from hubrank.ranking.profile import profile_source
    from hubrank.report.source import source_csv, source_json, source_markdown, source_table
    from hubrank.zoo.codec import encode_source
    from hubrank.zoo.lookup import find_source
    from hubrank.zoo.store import Zoo

    output = Output(quiet=quiet, verbose=verbose)
    with Zoo(cache_dir) as zoo:
        found = find_source(zoo, source)
        signature = zoo.signature(found)
        stored = len(encode_source(found)) + len(zoo.record(found).signature)
        profile = profile_source(zoo, found, signature) if format != Format.csv else None
        explanation = _explained(output, zoo, found, target, base) if target is not None else None
    match format:
        case Format.json:
            output.text(source_json(found, signature, stored, profile=profile, explanation=explanation))
        case Format.csv:
            output.text(source_csv(found, signature))
        case Format.md:
            output.text(source_markdown(found, signature, stored, profile=profile, explanation=explanation))
        case Format.table:
            unicode = output.unicode
            output.render(source_table(found, signature, stored, profile=profile, explanation=explanation, unicode=unicode))


def _explained(output: Output, zoo: Zoo, source: Source, target: Path, base: str | None) -> Explanation | None:
    """Why the source stands where it stands among those of its base and method; None, and a note, where it was not compared."""
    from hubrank.cli.progress import SearchProgress
    from hubrank.ranking.search import SearchSettings
    from hubrank.ranking.search import search as run

    settings = SearchSettings(base=base or source.base, methods=(source.method,), top=1, gone=source.gone, explain=source.name)
    with SearchProgress(output) as progress:
        ranking = run(target, zoo=zoo, listener=progress, settings=settings)
    for explanation in ranking.explanations:
        if explanation.row.source == source:
            return explanation
    output.note(f"{source.name} shares no site with the target as it was tuned: it has no place for it")
    return None
