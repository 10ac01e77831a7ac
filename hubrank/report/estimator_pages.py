"""docs/estimators.md, from the docstrings of the estimators."""

from __future__ import annotations

import inspect
import re

from hubrank.ranking.estimators import DEFAULTS, ESTIMATORS, Estimator, default_estimator, wanted

__all__ = ["estimators_markdown"]

_HEAD = """# What orders the sources

Written from the code by `python docs/render_estimators.py`; a test fails where the two differ.

An estimator turns the cosines of your target with each source into one value a source; the order of the values is the ranking.
`hubrank search --estimator NAME` picks one for all methods; without it each method has its own.
"""
_ROLE = re.compile(r":(?:func|data|class|mod|attr|meth):`~?([^`]+)`")


def estimators_markdown() -> str:
    """Which method has which, then each estimator as its docstring tells it."""
    lines = [_HEAD, "| method | estimator |", "|---|---|"]
    lines += [f"| {method} | `{name}` |" for method, name in DEFAULTS.items()]
    lines += [f"| any other | `{default_estimator('')}` |"]
    for name, estimator in ESTIMATORS.items():
        lines += ["", f"## {name}", "", *_body(estimator)]
    return "\n".join(lines).rstrip() + "\n"


def _body(estimator: Estimator) -> list[str]:
    """The docstring's paragraphs, tables as they are drawn there, and what it looks at instead of its arguments."""
    said, _, _ = inspect.cleandoc(estimator.__doc__ or "").partition("\nArgs:\n")
    lines: list[str] = []
    for paragraph in said.strip().split("\n\n"):
        rows = paragraph.splitlines()
        drawn = all(row.startswith("    ") for row in rows)
        lines += (
            ["```", *(row[4:] for row in rows), "```"]
            if drawn
            else [_ROLE.sub(r"`\1`", row).replace("``", "`") for row in rows]
        )
        lines += [""]
    return [*lines, f"It looks at: {', '.join(f'`{name}`' for name in wanted(estimator))}."]
