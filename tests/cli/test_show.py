"""``hubrank show``: one source in full, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest

from hubrank.zoo.store import Zoo
from tests.builders import make_source, random_signature


def test_the_table_has_the_card_the_store_and_the_layers(hubrank, small_zoo):
    done = hubrank("show", "org/full", "--cache-dir", small_zoo)
    assert done.code == 0, done.err
    for text in ("sick, glue", "apache-2.0", "en, de", "accuracy 0.875", "adapterhub:nli/sick", "a" * 40, "hf"):
        assert text in done.out
    assert "lora, rank 2, 4 sites" in done.out
    assert "warning: it has a head of its own" in done.out
    assert f"adapter_config.json git:{'b' * 40}" in done.out
    assert "head.bin" not in done.out
    assert "2023-11-14T22:13:20Z" in done.out
    (stored,) = [line.split()[1] for line in done.out.splitlines() if line.startswith("stored")]
    assert 500 < int(stored.replace(",", "")) < 10_000
    plot = [line.split() for line in done.out.splitlines() if line.strip().startswith("encoder ")]
    assert [(line[1], line[2]) for line in plot] == [("0", "2"), ("1", "2")]
    # The strongest layer has the longest bar, of all 24 characters.
    strongest = max(plot, key=lambda line: float(line[3]))
    assert strongest[4] == "█" * 24
    assert "█" in plot[0][4]


def test_the_json_has_the_numbers_of_each_layer_and_site(hubrank, small_zoo):
    value = json.loads(hubrank("show", "org/full", "--cache-dir", small_zoo, "--format", "json").out)
    assert [(layer["stack"], layer["layer"], layer["sites"]) for layer in value["layers"]] == [
        ("encoder", 0, 2),
        ("encoder", 1, 2),
    ]
    first = [site["norm"] for site in value["sites"][:2]]
    assert value["layers"][0]["norm"] == pytest.approx(sum(norm**2 for norm in first) ** 0.5, rel=1e-4)
    assert [site["rank"] for site in value["sites"]] == [2, 2, 2, 2]
    assert value["sites"][0]["site"] == "encoder.0.attention.self.query"
    assert value["metrics"] == {"accuracy": 0.875}
    assert value["stored_bytes"] > 500
    assert value["files"] == {"adapter_config.json": f"git:{'b' * 40}"}
    assert value["read"] == "2023-11-14T22:13:20Z"


def test_the_zoo_around_it_is_told(hubrank, small_zoo):
    done = hubrank("show", "org/full", "--cache-dir", small_zoo)
    assert "Nearest to it in the zoo: org/bad" in done.out
    assert "the one other source looked at" in done.out
    value = json.loads(hubrank("show", "org/full", "--cache-dir", small_zoo, "--format", "json").out)
    assert value["standing"]["others"] == 1
    assert value["standing"]["nearest"][0]["source"].startswith("org/bad")
    assert len(value["standing"]["sentences"]) >= 2
    assert value["explanation"] is None
    alone = hubrank("show", "org/other", "--cache-dir", small_zoo)
    assert "there is nothing to compare" in alone.out


def test_csv_and_markdown(hubrank, small_zoo):
    rows = list(csv.DictReader(io.StringIO(hubrank("show", "org/full", "--cache-dir", small_zoo, "--format", "csv").out)))
    assert [(row["source"], row["layer"]) for row in rows] == [("org/full", "0"), ("org/full", "1")]
    markdown = hubrank("show", "org/full", "--cache-dir", small_zoo, "--format", "md").out
    assert "| stack | layer | sites | norm |" in markdown
    assert "it has a head of its own" in markdown


def test_a_branch_and_a_subfolder_are_part_of_the_name(hubrank, small_zoo):
    assert "org/prefix/nli@v2" in hubrank("show", "org/prefix/nli@v2", "--cache-dir", small_zoo).out
    assert "(no longer on its hub)" in hubrank("show", "org/left", "--cache-dir", small_zoo).out
    assert "lora (loha)" in hubrank("show", "org/other", "--cache-dir", small_zoo).out


def test_an_unknown_or_ambiguous_name_is_a_usage_error(hubrank, small_zoo, tmp_path):
    done = hubrank("show", "org/ful1", "--cache-dir", small_zoo)
    assert (done.code, done.out) == (2, "")
    assert "did you mean org/full?" in done.err
    assert "5 sources match" in hubrank("show", "org/", "--cache-dir", small_zoo).err
    assert hubrank("show", "org/full", "--cache-dir", tmp_path / "empty").code == 5


def test_a_terminal_without_unicode_gets_ascii(hubrank, small_zoo, monkeypatch):
    monkeypatch.setattr("hubrank.cli.output.Output.unicode", property(lambda output: False))
    done = hubrank("show", "org/full", "--cache-dir", small_zoo)
    assert "#" * 24 in done.out
    assert done.out.isascii()


def test_an_adapter_that_changes_nothing_has_empty_bars(hubrank, tmp_path):
    import numpy as np

    from hubrank.types import Factors, Signature

    (factors, *_) = random_signature(0).factors
    nothing = Factors(factors.site, factors.u, np.zeros_like(factors.s), factors.v, np.zeros_like(factors.spectrum))
    with Zoo(tmp_path, create=True) as zoo:
        zoo.put(make_source("org/zero"), Signature((nothing,)))
    done = hubrank("show", "zero", "--cache-dir", tmp_path)
    assert done.code == 0, done.err
    assert "0.000" in done.out
    assert "█" not in done.out


@pytest.mark.parametrize("style", ["table", "json", "csv", "md"])
def test_a_hostile_card_is_inert(hubrank, small_zoo, style):
    done = hubrank("show", "org/bad", "--cache-dir", small_zoo, "--format", style)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "\n::error" not in done.out
    if style == "csv":
        assert not any(cell.startswith(("=", "+", "@")) for row in csv.reader(io.StringIO(done.out)) for cell in row)
    if style == "md":
        assert "<script>" not in done.out
