"""hubrank: find the published adapter that transfers best to your task.

>>> from hubrank import search, sync            # doctest: +SKIP
>>> sync(["examples/zoo"])                      # doctest: +SKIP
>>> search("examples/banking.jsonl").rows[0].source.name   # doctest: +SKIP

What is imported here is loaded on first use: ``import hubrank`` itself is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubrank._version import VERSION

if TYPE_CHECKING:
    from hubrank.api import sync
    from hubrank.benchmark.facts import BenchReport
    from hubrank.benchmark.run import bench
    from hubrank.check.findings import CheckReport, Finding
    from hubrank.check.run import check
    from hubrank.ranking.search import search
    from hubrank.target.rows import Examination, examine_target, read_target
    from hubrank.target.task import Target
    from hubrank.types import Ranking, Scored, Source, SyncReport
    from hubrank.zoo.store import Zoo

__version__ = VERSION

__all__ = [
    "BenchReport",
    "CheckReport",
    "Examination",
    "Finding",
    "Ranking",
    "Scored",
    "Source",
    "SyncReport",
    "Target",
    "Zoo",
    "__version__",
    "bench",
    "check",
    "examine_target",
    "read_target",
    "search",
    "sync",
]

_WHERE = {
    "BenchReport": "hubrank.benchmark.facts",
    "Examination": "hubrank.target.rows",
    "CheckReport": "hubrank.check.findings",
    "Finding": "hubrank.check.findings",
    "Ranking": "hubrank.types",
    "Scored": "hubrank.types",
    "Source": "hubrank.types",
    "SyncReport": "hubrank.types",
    "Target": "hubrank.target.task",
    "Zoo": "hubrank.zoo.store",
    "examine_target": "hubrank.target.rows",
    "bench": "hubrank.benchmark.run",
    "check": "hubrank.check.run",
    "read_target": "hubrank.target.rows",
    "search": "hubrank.ranking.search",
    "sync": "hubrank.api",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
