"""What a sync would do, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubrank.report.text import Cell, csv_table, markdown_table, plain, spoken_bytes
from hubrank.types import SyncPlan

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["plan_csv", "plan_json", "plan_line", "plan_markdown", "plan_table"]

_COLUMNS = ("what", "count")
_SHOWN = 20  # names of each kind, unless all are asked for


def plan_line(plan: SyncPlan) -> str:
    """How many adapters would be read, bytes and requests, in a few words."""
    count = len(plan.new) + len(plan.changed)
    adapters = "1 adapter" if count == 1 else f"{count:,} adapters"
    unsized = f" and {plan.unsized:,} of unknown size" if plan.unsized else ""
    return f"{adapters}, at most {spoken_bytes(plan.bytes)}{unsized}, about {plan.requests:,} requests"


def plan_json(plan: SyncPlan) -> str:
    """Counts, bytes and requests, then the names of what would change."""
    value = {
        **dict(_counts(plan)),
        "failed": dict(plan.failed),
        "not_asked": list(plan.not_asked),
        "adapters": {"new": list(plan.new), "changed": list(plan.changed), "gone": list(plan.gone)},
    }
    return json.dumps(value, indent=2)


def plan_csv(plan: SyncPlan) -> str:
    """One line a count."""
    return csv_table(_COLUMNS, _counts(plan))


def plan_markdown(plan: SyncPlan) -> str:
    """One row a count."""
    return markdown_table(_COLUMNS, _counts(plan))


def plan_table(plan: SyncPlan, *, every: bool = False) -> list[RenderableType]:
    """What it comes to, then the adapters that would be read or marked: the first of each kind, or ``every`` one."""
    from rich.table import Table
    from rich.text import Text

    rest = ((plan.unchanged, "unchanged"), (plan.skipped, "to be skipped"))
    others = "".join(f"; {len(names):,} {what}" for names, what in rest if names)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for kind, names in (("new", plan.new), ("changed", plan.changed), ("gone", plan.gone)):
        shown = names if every else names[:_SHOWN]
        for name in shown:
            table.add_row(kind, Text(plain(name, 160)))
        if len(names) > len(shown):
            table.add_row(kind, Text(f"... and {len(names) - len(shown):,} more; -v names them"))
    return [Text(f"would read {plan_line(plan)}{others}"), *([table] if table.row_count else [])]


def _counts(plan: SyncPlan) -> list[tuple[str, Cell]]:
    kinds = {
        "new": plan.new,
        "changed": plan.changed,
        "gone": plan.gone,
        "unchanged": plan.unchanged,
        "skipped": plan.skipped,
    }
    counts: list[tuple[str, Cell]] = [(kind, len(names)) for kind, names in kinds.items()]
    return [*counts, ("requests", plan.requests), ("bytes", plan.bytes), ("unsized", plan.unsized)]
