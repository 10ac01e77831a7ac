"""Tuned signatures on disk: what decides that two runs are the same, and what is done about damaged files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hubrank.target import tuned_files
from hubrank.target.base import BaseModel
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.tuned_files import TunedRecord, base_identity, read_tuned, run_key, write_tuned
from hubrank.target.tuning import TuningPlan
from tests.builders import random_signature
from tests.ranking.builders import toy_rows, write_lines

KEY = "a" * 40
PLAN = TuningPlan(Placement("lora", ("a", "b")), steps=10)
RECORD = TunedRecord(random_signature(1), 10, "steps", 1.5)


def same(one, other):
    pairs = list(zip(one.factors, other.factors, strict=True))
    return all(a.site == b.site and np.array_equal(a.u, b.u) and np.array_equal(a.s, b.s) for a, b in pairs)


def test_what_is_written_is_what_will_be_read(tmp_path):
    written = write_tuned(tmp_path, KEY, RECORD)
    read = read_tuned(tmp_path, KEY)
    assert (read.steps, read.stopped, read.seconds) == (10, "steps", 1.5)
    assert same(written.signature, read.signature)
    assert not same(RECORD.signature, read.signature)  # rounded as the store does
    assert [file.name for file in (tmp_path / "tuned").iterdir()] == [f"{KEY}.bin"]
    assert read_tuned(tmp_path, "b" * 40) is None


def damaged():
    yield "empty", lambda data: b""
    yield "cut", lambda data: data[: len(data) // 2]
    yield "a byte turned", lambda data: data[:-1] + bytes([data[-1] ^ 1])
    yield "no newline", lambda data: data.replace(b"\n", b" ")
    yield "not JSON", lambda data: b"{\n" + data.partition(b"\n")[2]
    yield "a list", lambda data: b"[1]\n" + data.partition(b"\n")[2]
    yield "nested", lambda data: b"[" * 100_000 + b"\n"
    yield "huge number", lambda data: data.replace(b'"steps": 10', b'"steps": 1e999')
    yield "no steps", lambda data: data.replace(b'"steps": 10', b'"steps": 0')
    yield "another's", lambda data: data.replace(b"a" * 40, b"b" * 40)


@pytest.mark.parametrize("damage", [damage for _, damage in damaged()], ids=[name for name, _ in damaged()])
def test_a_damaged_file_is_as_good_as_none(tmp_path, damage):
    write_tuned(tmp_path, KEY, RECORD)
    file = tmp_path / "tuned" / f"{KEY}.bin"
    file.write_bytes(damage(file.read_bytes()))
    assert read_tuned(tmp_path, KEY) is None
    write_tuned(tmp_path, KEY, RECORD)
    assert read_tuned(tmp_path, KEY) is not None


def test_a_body_that_is_no_signature(tmp_path):
    import hashlib

    write_tuned(tmp_path, KEY, RECORD)
    body = b"not a signature"
    head = {"key": KEY, "sha256": hashlib.sha256(body).hexdigest(), "steps": 10, "stopped": "steps", "seconds": 1.0}
    (tmp_path / "tuned" / f"{KEY}.bin").write_bytes(json.dumps(head).encode() + b"\n" + body)
    assert read_tuned(tmp_path, KEY) is None


def test_where_nothing_can_be_written_the_run_is_kept_in_memory(tmp_path):
    (tmp_path / "tuned").write_text("a file where the folder should be")
    assert write_tuned(tmp_path, KEY, RECORD).steps == 10
    assert read_tuned(tmp_path, KEY) is None


def test_the_oldest_go_first(tmp_path, monkeypatch):
    import os

    for i in range(4):
        write_tuned(tmp_path, f"{i}" * 40, RECORD)
        os.utime(tmp_path / "tuned" / (f"{i}" * 40 + ".bin"), (i, i))
    size = (tmp_path / "tuned" / ("0" * 40 + ".bin")).stat().st_size
    read_tuned(tmp_path, "0" * 40)  # used just now
    monkeypatch.setattr(tuned_files, "_MOST_BYTES", 3 * size)
    write_tuned(tmp_path, KEY, RECORD)
    left = {file.name[0] for file in (tmp_path / "tuned").iterdir()}
    assert left == {"a", "0", "3"}


def test_what_makes_a_run_another(tmp_path):
    target = read_target(write_lines(tmp_path / "one.jsonl", toy_rows()))
    moved = read_target(write_lines(tmp_path / "two.jsonl", toy_rows()))
    other = read_target(write_lines(tmp_path / "three.jsonl", toy_rows(seed=1)))

    def key(target=target, base="base", plan=PLAN, device="cpu", early=True):
        return run_key(target, base, plan, device=device, early=early)

    assert key() == key(target=moved) == key(device="cpu")
    changed = [
        key(target=other),
        key(base="base2"),
        key(plan=replace(PLAN, seed=1)),
        key(plan=replace(PLAN, steps=11)),
        key(plan=replace(PLAN, placement=replace(PLAN.placement, size=4))),
        key(device="cuda:1"),
        key(early=False),
    ]
    assert len({key(), *changed}) == 8


def test_a_base_is_its_revision_or_its_files(tmp_path):
    cached = tmp_path / "models--a--b" / "snapshots" / ("c" * 40)
    cached.mkdir(parents=True)
    assert base_identity(BaseModel("a/b", cached, "cache")) == f"a/b@{'c' * 40}"
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    first = base_identity(BaseModel("a/b", folder, "folder"))
    (folder / "model.safetensors").write_bytes(b"Weights")
    assert base_identity(BaseModel("a/b", folder, "folder")) != first
    assert first.startswith("a/b#")
