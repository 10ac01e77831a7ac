"""Where targets were tuned: kept for just that base and zoo, and never believed."""

from __future__ import annotations

import json

import pytest

from hubrank.target import placed_files
from hubrank.target.methods import Placement
from hubrank.target.placed_files import is_placed, placed_key, read_placed, write_placed
from hubrank.target.rows import read_target
from tests.ranking.builders import modules, toy_rows, write_lines

PLACEMENTS = (
    Placement("lora", tuple(modules()), 4, 8.0),
    Placement("bottleneck", size=24, variant="seq_bn", left_out=(0, 3)),
    Placement("prompt", size=20, both_stacks=True),
)


@pytest.fixture
def target(tmp_path):
    return read_target(write_lines(tmp_path / "toy.jsonl", toy_rows()))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_is_kept_is_read_back(tmp_path, target, placement):
    key = placed_key(target.digest(), "org/base", placement.method)
    assert read_placed(tmp_path, key, "given") is None
    assert not is_placed(tmp_path, key, 3)
    write_placed(tmp_path, key, "given", placement, generation=3)
    assert read_placed(tmp_path, key, "given") == placement
    assert read_placed(tmp_path, key, "another zoo") is None
    assert (is_placed(tmp_path, key, 3), is_placed(tmp_path, key, 4)) == (True, False)
    assert (tmp_path / "placed").stat().st_mode & 0o077 == 0


def test_a_file_is_of_one_target_base_and_method(tmp_path, target):
    other = read_target(write_lines(tmp_path / "other.jsonl", toy_rows(seed=9)))
    one, two = target.digest(), other.digest()
    keys = [placed_key(*of) for of in ((one, "a", "lora"), (two, "a", "lora"), (one, "b", "lora"), (one, "a", "ia3"))]
    assert len(set(keys)) == 4


def deep(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"key": KEY, "given": "given"}',
        '{"key": KEY, "given": "given", "placement": 3}',
        '{"key": KEY, "given": "given", "placement": {}}',
        '{"key": KEY, "given": "given", "placement": {"method": "lora"}}',
        '{"key": "other", "given": "given", "placement": WHOLE}',
        '{"key": KEY, "given": "given", "placement": WHOLE, "more": ' + deep(100_000) + "}",
        *(
            '{"key": KEY, "given": "given", "placement": ' + json.dumps({"of": name, "is": value}) + "}"
            for name, value in (("method", 3), ("modules", "query"), ("modules", [["query"]]), ("size", "8"), ("size", 8.5),
                                ("alpha", None), ("both_stacks", 1), ("left_out", [0.5]))
        ),
    ],
)  # fmt: skip
def test_what_is_damaged_or_made_up_is_not_there(tmp_path, target, body):
    key = placed_key(target.digest(), "org/base", "lora")
    write_placed(tmp_path, key, "given", PLACEMENTS[0], generation=1)
    file = tmp_path / "placed" / f"{key}.json"
    whole = json.loads(file.read_text())["placement"]
    if '"of"' in body:
        changed = json.loads(body.replace("KEY", json.dumps(key)))
        change = changed["placement"]
        body = json.dumps(changed | {"placement": whole | {change["of"]: change["is"]}})
    file.write_text(body.replace("KEY", json.dumps(key)).replace("WHOLE", json.dumps(whole)))
    assert read_placed(tmp_path, key, "given") is None


def test_nesting_that_json_reads_and_a_key_cannot_hash_is_not_believed(tmp_path, target):
    key = placed_key(target.digest(), "org/base", "lora")
    write_placed(tmp_path, key, "given", PLACEMENTS[0], generation=1)
    file = tmp_path / "placed" / f"{key}.json"
    fields = json.loads(file.read_text())
    for levels in (1, 700):
        text = json.dumps(fields | {"placement": fields["placement"] | {"modules": ["NEST"]}})
        file.write_text(text.replace('"NEST"', deep(levels)))
        assert read_placed(tmp_path, key, "given") is None


def test_what_is_too_large_or_cannot_be_written_is_done_without(tmp_path, target, monkeypatch):
    key = placed_key(target.digest(), "org/base", "lora")
    write_placed(tmp_path, key, "given", PLACEMENTS[0], generation=1)
    monkeypatch.setattr(placed_files, "_LARGEST", 10)
    assert read_placed(tmp_path, key, "given") is None
    (tmp_path / "file").write_text("")
    write_placed(tmp_path / "file", key, "given", PLACEMENTS[0], generation=1)  # no folder can be made there


def test_the_oldest_go_first(tmp_path, target, monkeypatch):
    monkeypatch.setattr(placed_files, "_MOST_BYTES", 1500)
    for name in "abcdef":
        write_placed(tmp_path, placed_key(target.digest(), name, "lora"), "given", PLACEMENTS[0], generation=1)
    left = list((tmp_path / "placed").glob("*.json"))
    assert 1 <= len(left) < 6
