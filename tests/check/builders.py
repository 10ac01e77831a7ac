"""Adapters with cards, good and bad, on disk; a zoo of them; a report full of hostile text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from hubrank.api import sync
from hubrank.check.findings import CheckReport, Finding, Judged, Lead, Neighbour, Suppressed, TargetStanding
from hubrank.zoo.store import Zoo
from tests.builders import BASE, write_lora

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)

CARD = {
    "base_model": BASE,
    "library_name": "peft",
    "license": "apache-2.0",
    "language": "en",
    "datasets": ["glue"],
    "tags": ["lora", "peft"],
    "model-index": [
        {
            "name": "x",
            "results": [
                {
                    "task": {"type": "text-classification"},
                    "dataset": {"name": "sst2", "type": "glue"},
                    "metrics": [{"type": "accuracy", "value": 0.9}],
                }
            ],
        }
    ],
}


def card(changes: Mapping[str, Any] | None = None, *, without: Sequence[str] = ()) -> str:
    """A README.md with front matter."""
    front = {key: value for key, value in {**CARD, **(changes or {})}.items() if key not in without}
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\nAn adapter.\n"


def good_adapter(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """An adapter that no rule has anything against."""
    config = {"revision": "a" * 40, **changes.pop("config", {})}
    return write_lora(folder, seed=seed, config=config, card=changes.pop("card", card()), **changes)


def make_zoo(folder: Path, count: int = 10, *, start: int = 0, **changes: Any) -> Path:
    """A cache whose zoo holds good adapters ``zoo/a0``, ``zoo/a1``, ... that were synced from ``folder/hub``."""
    for i in range(start, start + count):
        good_adapter(folder / "hub" / "zoo" / f"a{i}", seed=100 + i, **changes)
    sync([folder / "hub"], cache_dir=folder / "cache")
    return folder / "cache"


def open_zoo(folder: Path, count: int = 10, **changes: Any) -> Zoo:
    """The same, opened."""
    return Zoo(make_zoo(folder, count, **changes))


HOSTILE = {
    "terminal": "evil\x1b[31m\x1b]0;owned\x07\x9b2J\u202egnp",
    "rich": "[bold red]markup[/] [link=http://evil.example]x[/link]",
    "markdown": "| a | ![x](http://evil.example/x.png) `code` **bold** <script>alert(1)</script>\n# head",
    "html": "<img src=x onerror=alert(1)>\"'><svg onload=alert(1)></style></title><script>alert(1)</script>",
    "formula": '=HYPERLINK("http://evil.example";"x")',
    "command": "::error file=a,line=1::owned%0A::set-output name=x::y\n::error::two\r::warning::three",
    "legacy": "##[error]owned ##vso[task.setvariable variable=x]y",
    "xml": "]]><!-- &lt; \x00\x0b\ufffe & <a>",
}


def hostile_report(text: str, *, file: str | None = None) -> CheckReport:
    """A report in which everything that a stranger can write is ``text``."""
    finding = Finding("card-license", "error", text, text, "add license: to the card's front matter", file or text, local=True)
    target = TargetStanding("t.jsonl", text, text, 3.2, Lead(text, 3.2, text, 1.0), ((1, text, text, 3.2, True),))
    judged = Judged(
        name=text,
        revision=text,
        base=text,
        method=text,
        task=text,
        findings=(finding,),
        suppressed=(Suppressed(finding, text, "2027-01-01"),),
        strength=1.0,
        usual_strength=2.0,
        nearest=(Neighbour(text, text, 0.5),),
    )
    new_best = Finding("new-best", "note", text, text, "measure it", "t.jsonl", local=True)
    return CheckReport(
        adapters=(judged,),
        general=(new_best,),
        targets=(target,),
        new=(text,),
        policy=text,
        notes=(text,),
        sources=1,
        started="2026-11-24T02:00:00+00:00",
        seconds=0.5,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of an adapter."""
    value: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return value
