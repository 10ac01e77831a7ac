"""One source in full: what its card says, what is stored of it, and how strongly it changes each layer."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from hubrank.report.explain import explanation_markdown, explanation_table, explanation_value
from hubrank.report.listing import source_value
from hubrank.report.profile import profile_sentences, profile_value
from hubrank.report.text import Cell, bar, csv_table, markdown_table, markdown_text, plain
from hubrank.report.words import in_ascii
from hubrank.types import Signature, Source

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hubrank.ranking.explain import Explanation
    from hubrank.ranking.profile import Profile

__all__ = ["LayerNorm", "layer_norms", "source_csv", "source_json", "source_markdown", "source_table"]

_COLUMNS = ("stack", "layer", "sites", "norm")
_BAR = 24


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """How strongly an adapter changes one layer: the Frobenius norm of its updates at all ``sites`` of the layer together."""

    stack: str
    layer: int
    sites: int
    norm: float

    @property
    def label(self) -> str:
        """``encoder 3``, or ``outside the layers`` for embeddings and the like."""
        where = str(self.layer) if self.layer >= 0 else "outside the layers"
        return f"{self.stack} {where}".strip()


def layer_norms(signature: Signature) -> list[LayerNorm]:
    """One norm a layer, in the order of the layers: the root of the sum of all squared singular values of its sites."""
    squares: dict[tuple[str, int], list[float]] = defaultdict(list)
    for factors in signature.factors:
        squares[factors.site.stack, factors.site.layer].append(float(np.sum(factors.spectrum.astype(np.float64) ** 2)))
    return [LayerNorm(*where, len(parts), float(np.sqrt(sum(parts)))) for where, parts in sorted(squares.items())]


def source_json(
    source: Source,
    signature: Signature,
    stored: int,
    *,
    profile: Profile | None = None,
    explanation: Explanation | None = None,
) -> str:
    """One object, with the norm of each layer and each site. ``stored`` is how many bytes the zoo keeps of it."""
    layers = [{"stack": n.stack, "layer": n.layer, "sites": n.sites, "norm": round(n.norm, 5)} for n in layer_norms(signature)]
    sites = [
        {"site": str(factors.site), "rank": len(factors.spectrum), "norm": round(float(np.linalg.norm(factors.spectrum)), 5)}
        for factors in signature.factors
    ]
    value = {
        **source_value(source),
        "read": _when(source),
        "files": dict(_hashes(source)),
        "stored_bytes": stored,
        "layers": layers,
        "sites": sites,
        "standing": None if profile is None else {**profile_value(profile), "sentences": profile_sentences(profile)},
        "explanation": None if explanation is None else explanation_value(explanation),
    }
    return json.dumps(value, indent=2)


def source_csv(source: Source, signature: Signature) -> str:
    """A line a layer."""
    return csv_table(("source", *_COLUMNS), ((source.name, *_cells(norm)) for norm in layer_norms(signature)))


def source_markdown(
    source: Source,
    signature: Signature,
    stored: int,
    *,
    profile: Profile | None = None,
    explanation: Explanation | None = None,
) -> str:
    """The facts, then the layers, where it stands, then the warnings."""
    facts = markdown_table(("what", "value"), _facts(source, signature, stored))
    warnings = [("warning", warning) for warning in source.warnings]
    parts = [facts, markdown_table(_COLUMNS, map(_cells, layer_norms(signature)))]
    said = profile_sentences(profile, brief=explanation is not None) if profile is not None else []
    parts += ["\n".join(f"- {markdown_text(sentence, 1000)}" for sentence in said)] if said else []
    parts += [explanation_markdown(explanation)] if explanation is not None else []
    return "\n\n".join([*parts, *([markdown_table(("what", "value"), warnings)] if warnings else [])])


def source_table(
    source: Source,
    signature: Signature,
    stored: int,
    *,
    profile: Profile | None = None,
    explanation: Explanation | None = None,
    unicode: bool = True,
) -> list[RenderableType]:
    """The facts, then a small plot of the layers' norms, where it stands in the zoo and for a target, then the warnings."""
    from rich.table import Table
    from rich.text import Text

    facts = Table(box=None, pad_edge=False, show_header=False)
    for fact, value in _facts(source, signature, stored):
        facts.add_row(Text(str(fact), style="bold"), Text(plain(str(value), 300)))
    plot = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "sites", "norm", ""):
        plot.add_column(name, justify="right" if name else "left")
    norms = layer_norms(signature)
    # An adapter that changes nothing is stored, too: its bars are empty.
    most = max((norm.norm for norm in norms), default=0.0) or 1.0
    for norm in norms:
        drawn = Text(bar(norm.norm / most, _BAR, unicode=unicode), style="cyan")
        plot.add_row(Text(plain(norm.label, 40)), str(norm.sites), f"{norm.norm:.3f}", drawn)
    warnings = [Text(plain(f"warning: {warning}", 300), style="yellow") for warning in source.warnings]
    sentences = profile_sentences(profile, brief=explanation is not None) if profile is not None else []
    said = [Text(in_ascii(sentence, unicode=unicode)) for sentence in sentences]
    why = explanation_table(explanation, unicode=unicode) if explanation is not None else []
    return [facts, Text(), plot, *([Text(), *said] if said else []), *why, *([Text(), *warnings] if warnings else [])]


def _cells(norm: LayerNorm) -> tuple[Cell, ...]:
    return norm.stack, norm.layer, norm.sites, round(norm.norm, 5)


def _facts(source: Source, signature: Signature, stored: int) -> list[tuple[Cell, ...]]:
    card = source.card
    values = {
        "source": source.name,
        "hub": source.hub,
        "revision": source.revision + (" (no longer on its hub)" if source.gone else ""),
        "base model": source.base,
        "method": f"{source.full_method}, rank {source.rank}, {_counted(len(signature.factors), 'site')}",
        "task": card.task,
        "datasets": ", ".join(card.datasets),
        "language": ", ".join(card.languages),
        "license": card.license,
        "metrics (as its card states)": ", ".join(f"{metric.name} {metric.value:g}" for metric in card.metrics),
        "tags": ", ".join(card.tags),
        "stored": f"{stored:,} bytes",
        "read": _when(source),
    }
    files: list[tuple[Cell, ...]] = [("file", f"{name} {digest}") for name, digest in _hashes(source)]
    return [*((name, value) for name, value in values.items() if value), *files]


def _hashes(source: Source) -> list[tuple[str, str]]:
    """What was read, without the files that were looked for and are not there."""
    return [(name, digest) for name, digest in source.files if digest]


def _when(source: Source) -> str | None:
    """When it was read, in UTC; older records do not say."""
    try:
        return datetime.fromtimestamp(source.read_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if source.read_at else None
    except (OverflowError, ValueError, OSError):  # no date that there is
        return None


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
