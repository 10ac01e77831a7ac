"""docs/bench.md names what there is: every rival, every measure, every field that is read, and no option that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubrank.benchmark.rivals import RIVALS
from hubrank.benchmark.transfer import read_transfer

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "bench.md").read_text("utf-8")


@pytest.mark.parametrize("name", sorted({name.partition(",")[0] for name in RIVALS}))
def test_every_rival_has_its_row(name):
    assert re.search(rf"^\| {re.escape(name)} \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize(
    "field",
    [
        "source",
        "target",
        "value",
        "seed",
        "adapter",
        "kin",
        "metric",
        "rows",
        "method",
        "sites",
        "rank",
        "alpha",
        "source_rows",
        "source_family",
    ],
)
def test_every_field_that_is_read_is_told(field):
    assert f"`{field}`" in TEXT


def test_options_are_those_of_the_command():
    known = (DOCS / "cli.md").read_text("utf-8").split("## `hubrank bench`")[1]
    for option in set(re.findall(r"`(--[a-z-]+)", TEXT)):
        assert option in known, option


def test_the_example_can_be_read(tmp_path):
    file = tmp_path / "measured.jsonl"
    file.write_text("\n".join(line.strip() for line in TEXT.splitlines() if line.startswith('    {"source"')), "utf-8")
    found = read_transfer(file)
    assert found.sources == ("org/adapter",)
    assert found.targets[0].scratch[0] == 0.79
