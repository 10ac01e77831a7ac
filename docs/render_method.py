"""Write docs/method.md from its template and the results in bench/: ``python docs/render_method.py``; ``make docs`` runs it.

In docs/method.template.md ``{{table NAME}}`` stands for a table of bench/method_tables.py, ``{{PATH}}`` for a figure by its
way through bench/results, as in ``{{verdict/bar}}``, with a format after a bar: ``{{PATH | interval}}`` for a mean with bounds
in percent (``{{PATH | plain interval}}`` where the results are in percent already), ``{{PATH | .1%}}`` or ``{{PATH | .2f}}``
for a number, ``{{PATH | len}}`` for how many there are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / "bench"), str(HERE.parent / "bench" / "transfer")]

from method_tables import TABLES, Evidence, interval  # noqa: E402
from plots import plots  # noqa: E402

PAGE, TEMPLATE = HERE / "method.md", HERE / "method.template.md"
_FIELD = re.compile(r"\{\{([^{}]+)\}\}")


def rendered(template: str, evidence: Evidence) -> str:
    """The page."""
    return _FIELD.sub(lambda match: _filled(match[1].strip(), evidence), template)


def _filled(field: str, evidence: Evidence) -> str:
    if field.startswith("table "):
        return TABLES[field.removeprefix("table ")](evidence)
    path, _, form = (part.strip() for part in field.partition("|"))
    found: Any = evidence.at(path)
    match form:
        case "interval":
            return interval(found)
        case "plain interval":
            return interval([value / 100 for value in found])
        case "len":
            return str(len(found))
        case _:
            return format(found[0] if isinstance(found, list) else found, form)


if __name__ == "__main__":
    PAGE.write_text(rendered(TEMPLATE.read_text("utf-8"), Evidence.read()), encoding="utf-8")
    for name, drawn in plots().items():
        (HERE / name).write_text(drawn, encoding="utf-8")
