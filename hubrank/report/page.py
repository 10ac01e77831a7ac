"""One self-contained HTML page: no script, no address, a policy that forbids both, and text of strangers as text.

Styles are one inline sheet that the policy admits by its hash; figures are inline SVG that takes its colours from the sheet,
so that light and dark are the reader's choice.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from hubrank.report.text import plain

__all__ = ["Section", "facts", "page", "table", "text"]

_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: its anchor, its heading, and its body in HTML."""

    anchor: str
    title: str
    body: str


def text(value: object, limit: int = _LONGEST) -> str:
    """Anything as inert HTML text, on one line."""
    return html.escape(plain(str(value), limit), quote=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, right: Iterable[str] = ()) -> str:
    """A table that scrolls by itself where it is too wide, also by keyboard. Cells are HTML already.

    Args:
        label: says what the table is, to those who hear it.
        right: the columns that hold numbers.
    """
    numbers = set(right)
    kinds = ['<th scope="col" class="n">' if column in numbers else '<th scope="col">' for column in columns]
    head = "".join(f"{kind}{text(column)}</th>" for kind, column in zip(kinds, columns, strict=True))
    body = []
    for row in rows:
        cells = zip(columns, row, strict=True)
        body.append(
            "<tr>" + "".join(f'<td class="n">{c}</td>' if n in numbers else f"<td>{c}</td>" for n, c in cells) + "</tr>"
        )
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">{whole}</div>'


def facts(values: Mapping[str, object]) -> str:
    """Named values, one a line."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items()) + "</dl>"


def page(title: str, lead: str, sections: Sequence[Section], *, footer: str) -> str:
    """The whole document.

    Args:
        title: plain text.
        lead: HTML under the title.
        footer: plain text.
    """
    style = (files(__package__) / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    links = "".join(f'<li><a href="#{section.anchor}">{text(section.title)}</a></li>' for section in sections)
    parts = "".join(
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">'
        f'<h2 id="{section.anchor}-title">{text(section.title)}</h2>{section.body}</section>'
        for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{text(title)}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#content">Skip to the content</a>\n<header><h1>{text(title)}</h1>{lead}'
        f'<nav aria-label="Contents"><ol>{links}</ol></nav></header>\n'
        f'<main id="content" tabindex="-1">{parts}</main>\n<footer>{text(footer)}</footer>\n</body>\n</html>\n'
    )
