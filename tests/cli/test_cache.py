"""``hubrank cache``: where the zoo is, what it takes, what of it is forgotten, and how it travels."""

from __future__ import annotations

import csv
import io
import json

import pytest

from hubrank.zoo.store import Zoo


def names(folder):
    with Zoo(folder) as zoo:
        return [source.repo for source in zoo.sources(gone=True)]


def test_path_and_size_print_nothing_else(hubrank, small_zoo, tmp_path):
    assert hubrank("cache", "path", "--cache-dir", small_zoo).out == f"{small_zoo}\n"
    assert hubrank("cache", "path", "--cache-dir", tmp_path / "none").out == f"{tmp_path / 'none'}\n"
    assert not (tmp_path / "none").exists()
    assert int(hubrank("cache", "size", "--cache-dir", small_zoo).out) > 10_000
    assert hubrank("cache", "size", "--cache-dir", tmp_path / "none").out == "0\n"


def test_info_counts_and_verify_reads(hubrank, small_zoo):
    facts = json.loads(hubrank("cache", "info", "--cache-dir", small_zoo, "--format", "json").out)
    assert (facts["sources"], facts["gone"]) == (4, 1)
    assert facts["bases"]["FacebookAI/roberta-base"] == 1
    done = hubrank("cache", "verify", "--cache-dir", small_zoo)
    assert done.code == 0
    assert "all 5 sources" in done.err


def test_pruning_what_is_gone(hubrank, small_zoo):
    planned = hubrank("cache", "prune", "--gone", "--dry-run", "--cache-dir", small_zoo)
    assert (planned.code, planned.out) == (0, "would forget 1 source\n  org/left\n")
    assert "org/left" in names(small_zoo)
    done = hubrank("cache", "prune", "--gone", "--cache-dir", small_zoo)
    assert done.out.startswith("forgot 1 source; ")
    assert "org/left" not in names(small_zoo)
    assert len(names(small_zoo)) == 4
    assert hubrank("cache", "verify", "--cache-dir", small_zoo).code == 0


def test_pruning_a_base(hubrank, small_zoo):
    done = hubrank("cache", "prune", "--base", "roberta-base", "--cache-dir", small_zoo, "--format", "json")
    assert json.loads(done.out)["sources"] == ["org/other"]
    assert json.loads(done.out)["dry_run"] is False
    assert "org/other" not in names(small_zoo)


def test_pruning_for_no_reason(hubrank, small_zoo, tmp_path):
    done = hubrank("cache", "prune", "--cache-dir", small_zoo)
    assert done.code == 2
    assert "--gone" in done.err
    assert len(names(small_zoo)) == 5
    nowhere = hubrank("cache", "prune", "--gone", "--dry-run", "--cache-dir", tmp_path / "none")
    assert nowhere.out == "would forget 0 sources\n"


def test_a_zoo_travels_as_one_file(hubrank, small_zoo, tmp_path):
    file, other = tmp_path / "zoo.zip", tmp_path / "other"
    done = hubrank("cache", "export", file, "--cache-dir", small_zoo)
    assert done.code == 0
    assert "5 sources" in done.err
    assert "already" in hubrank("cache", "export", file, "--cache-dir", small_zoo).err
    assert hubrank("cache", "export", file, "--force", "--cache-dir", small_zoo).code == 0
    taken = hubrank("cache", "import", file, "--cache-dir", other)
    assert taken.code == 0, taken.err
    assert "5 sources added, 0 replaced, 0 kept" in taken.err
    assert names(other) == names(small_zoo)
    assert "0 sources added, 0 replaced, 5 kept" in hubrank("cache", "import", file, "--cache-dir", other).err
    first, second = (json.loads(hubrank("ls", "--gone", "--cache-dir", z, "--format", "json").out) for z in (small_zoo, other))
    assert first == second


def test_a_file_that_is_no_export(hubrank, small_zoo, tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 nothing")
    for name in ("bad.zip", "missing.zip"):
        done = hubrank("cache", "import", tmp_path / name, "--cache-dir", small_zoo)
        assert done.code == 3
        assert len(done.err.splitlines()) == 1
        assert name in done.err
    assert len(names(small_zoo)) == 5


def test_nothing_to_export(hubrank, tmp_path):
    done = hubrank("cache", "export", tmp_path / "zoo.zip", "--cache-dir", tmp_path / "none")
    assert done.code == 5
    assert "hubrank sync" in done.err
    assert not (tmp_path / "zoo.zip").exists()


@pytest.mark.parametrize("style", ["table", "json", "csv", "md"])
def test_hostile_names_are_inert(hubrank, small_zoo, style):
    done = hubrank("cache", "prune", "--base", "org/base", "--dry-run", "--cache-dir", small_zoo, "--format", style)
    assert "org/bad" in done.out
    assert "\x1b" not in done.out
    if style == "csv":
        assert len(list(csv.reader(io.StringIO(done.out)))) == 1 + 4
