"""Commands run in this process, and a small zoo for them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hubrank.cli import run
from hubrank.types import CardFacts, Metric
from hubrank.zoo.store import Zoo
from tests.builders import make_source, random_signature

HOSTILE = "=cmd|' /C calc'!A0 [red]x[/red] \x1b[31m|\u202e<script>`*_\n::error::boo"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def hubrank(capsys):
    """Run a command and give its exit code and what it printed."""

    def command(*arguments) -> Done:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return command


@pytest.fixture
def small_zoo(tmp_path):
    """A cache with five sources: two bases, two methods, one gone, one with a hostile card."""
    folder = tmp_path / "cache"
    full = CardFacts(
        task="sick",
        datasets=("sick", "glue"),
        license="apache-2.0",
        languages=("en", "de"),
        tags=("peft", "adapterhub:nli/sick"),
        metrics=(Metric("accuracy", 0.875),),
    )
    hostile = CardFacts(task=HOSTILE, datasets=(HOSTILE,), license=HOSTILE, languages=(HOSTILE,), tags=(HOSTILE,))
    with Zoo(folder, create=True) as zoo:
        read = {"files": (("adapter_config.json", f"git:{'b' * 40}"), ("head.bin", "")), "read_at": 1_700_000_000}
        zoo.put(make_source("org/full", card=full, warnings=("it has a head of its own",), **read), random_signature(1))
        zoo.put(make_source("org/other", base="FacebookAI/roberta-base", variant="loha"), random_signature(2))
        zoo.put(make_source("org/prefix", method="prefix", subfolder="nli", branch="v2", rank=30), random_signature(3))
        zoo.put(make_source("org/left", gone=True), random_signature(4))
        zoo.put(make_source("org/bad\x1b[31m", card=hostile, warnings=(HOSTILE,), hub=f"folder:{HOSTILE}"), random_signature(5))
    return folder
