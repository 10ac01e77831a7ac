"""Export and import: another zoo gets all of it, or nothing where the file is not what hubrank wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from hubrank.errors import InputError, StoreError
from hubrank.signatures.encoding import encode_signature
from hubrank.zoo.archive import export_zoo, import_zoo
from hubrank.zoo.store import Zoo
from tests.builders import make_source, random_signature
from tests.zoo.hub_repos import contents


def fill(zoo: Zoo, count: int = 3) -> None:
    for i in range(count):
        zoo.put(make_source(f"org/{i}", read_at=1000), random_signature(i))


@pytest.fixture
def exported(tmp_path):
    with Zoo(tmp_path / "first", create=True) as zoo:
        fill(zoo)
        zoo.mark(zoo.get("hf", "org/2", None), gone=True)
        export_zoo(zoo, tmp_path / "zoo.zip")
    return tmp_path / "zoo.zip"


@pytest.fixture
def second(tmp_path):
    with Zoo(tmp_path / "second", create=True) as zoo:
        yield zoo


def test_another_zoo_gets_all_of_it(exported, second, tmp_path):
    done = import_zoo(second, exported)
    assert (done.added, done.replaced, done.kept) == (3, 0, 0)
    with Zoo(tmp_path / "first") as first:
        assert contents(second) == contents(first)
    assert second.verify() == []
    assert [source.name for source in second.sources()] == ["org/0", "org/1"]
    again = import_zoo(second, exported)
    assert (again.added, again.replaced, again.kept) == (0, 0, 3)
    assert export_zoo(second, tmp_path / "again.zip") == 3
    assert (tmp_path / "again.zip").read_bytes().count(b"sources/") == 6


def test_what_is_newer_here_stays_and_what_is_older_is_replaced(exported, second):
    second.put(make_source("org/0", revision="b" * 40, read_at=2000), random_signature(10))
    second.put(make_source("org/1", revision="c" * 40, read_at=500), random_signature(11))
    done = import_zoo(second, exported)
    assert (done.added, done.replaced, done.kept) == (1, 1, 1)
    assert [source.revision[0] for source in second.sources()] == ["b", "a"]


def test_a_time_in_the_future_wins_nothing_for_ever(second, tmp_path):
    with Zoo(tmp_path / "first", create=True) as zoo:
        zoo.put(make_source(read_at=1 << 39), random_signature(0))
        export_zoo(zoo, tmp_path / "zoo.zip")
    import_zoo(second, tmp_path / "zoo.zip")
    assert second.sources()[0].read_at < 1 << 32


def test_no_place_on_another_s_disk_comes_along(second, tmp_path):
    with Zoo(tmp_path / "first", create=True) as zoo:
        zoo.put(make_source(hub="folder:/home/me", location="/etc"), random_signature(0))
        export_zoo(zoo, tmp_path / "zoo.zip")
    import_zoo(second, tmp_path / "zoo.zip")
    assert second.sources()[0].location is None


def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path):
    with Zoo(tmp_path / "first", create=True) as zoo:
        fill(zoo)
        with pytest.raises(StoreError, match="another file"):
            export_zoo(zoo, tmp_path / "nowhere" / "zoo.zip")
        with pytest.raises(StoreError, match="another file"):
            export_zoo(zoo, tmp_path / "first")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def rebuilt(exported: Path, change: Callable[[dict[str, bytes]], None], *, honest: bool = True) -> Path:
    """The same file with its members changed, and a manifest that agrees with them."""
    with zipfile.ZipFile(exported) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if honest and "manifest.json" in members:
        count = sum(name.startswith("sources/") for name in members)
        pairs = [(members[f"sources/{i}.json"], members[f"signatures/{i}.safetensors"]) for i in range(count)]
        manifest = json.loads(members["manifest.json"])
        manifest["sha256"] = [[hashlib.sha256(data).hexdigest() for data in pair] for pair in pairs]
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(exported, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return exported


def field(name: str, value: object) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["sources/2.json"] = json.dumps({**json.loads(members["sources/2.json"]), name: value}).encode()

    return change


def tensor(name: str, value: float) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        data = members["signatures/2.safetensors"]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = load(data)
        tensors[name][0] = value
        members["signatures/2.safetensors"] = save(tensors, metadata=header["__metadata__"])

    return change


def twice(members: dict[str, bytes]) -> None:
    members["sources/2.json"] = members["sources/1.json"]


HOSTILE = {
    "hub": field("hub", ""),
    "hub-type": field("hub", 5),
    "text": field("repo", "x" * 10_000),
    "part": field("part", "../../etc"),
    "rank": field("rank", -1),
    "read_at": field("read_at", 1 << 50),
    "unknown": field("more", 1),
    "warnings": field("warnings", ["x"] * 5000),
    "metric": field(
        "card",
        {
            "task": None,
            "datasets": [],
            "license": None,
            "languages": [],
            "tags": [],
            "metrics": [{"name": "f1", "value": float("nan")}],
        },
    ),
    "nan": tensor("s", np.nan),
    "negative": tensor("spectrum", -1.0),
    "scale": tensor("u_scale", 1e30),
    "twice": twice,
    "no-signature": lambda members: members.update({"signatures/2.safetensors": b""}),
    "pickle": lambda members: members.update({"signatures/2.safetensors": b"\x80\x04N."}),
    "one-more": lambda members: members.update({"../../evil": b"x"}),
    "no-manifest": lambda members: members.pop("manifest.json"),
    "format": lambda members: members.update({"manifest.json": b'{"format": 99, "sha256": []}'}),
    "list": lambda members: members.update({"manifest.json": b"[]"}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_one_bad_record_and_nothing_is_taken_in(exported, second, change):
    second.put(make_source("org/own"), random_signature(5))
    before = contents(second), second.generation
    honest = change not in (HOSTILE["format"], HOSTILE["list"])
    with pytest.raises(InputError, match="nothing was taken in"):
        import_zoo(second, rebuilt(exported, change, honest=honest))
    assert (contents(second), second.generation) == before


def test_a_record_that_is_not_the_manifest_s_is_refused(exported, second):
    with pytest.raises(InputError, match="not what the manifest says"):
        import_zoo(second, rebuilt(exported, field("rank", 3), honest=False))


def test_a_bomb_is_refused_unread(exported, second):
    with zipfile.ZipFile(exported) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["signatures/0.safetensors"] = bytes(300_000_000)
    with zipfile.ZipFile(exported, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    del members
    with pytest.raises(InputError, match="packed"):
        import_zoo(second, exported)


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip", bytes(1000), b"SQLite format 3\0" + bytes(100)])
def test_another_file_is_no_export(second, tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(InputError, match="not an export"):
        import_zoo(second, tmp_path / "file")
    with pytest.raises(InputError, match="not an export"):
        import_zoo(second, tmp_path / "nowhere")
    with pytest.raises(InputError, match="not an export"):
        import_zoo(second, tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an export, a place for spoiled ones, and a zoo to bring them into."""
    folder = tmp_path_factory.mktemp("flips")
    with Zoo(folder / "first", create=True) as zoo:
        fill(zoo, 2)
        export_zoo(zoo, folder / "zoo.zip")
        known = contents(zoo)
    with Zoo(folder / "second", create=True) as zoo:
        yield (folder / "zoo.zip").read_bytes(), folder / "spoiled.zip", zoo, known


@given(st.data())
def test_a_spoiled_byte_is_refused_or_changes_nothing(whole, data):
    good, path, zoo, known = whole
    at = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
    with contextlib.suppress(InputError):
        import_zoo(zoo, path)
    assert all(known[name] == value for name, value in contents(zoo).items())


def test_a_signature_of_another_shape_is_refused(exported, second):
    def change(members: dict[str, bytes]) -> None:
        signature = random_signature(0)
        long = tuple(replace(factors, u=3 * factors.u) for factors in signature.factors)
        members["signatures/1.safetensors"] = encode_signature(replace(signature, factors=long))

    with pytest.raises(InputError, match="not one of ours"):
        import_zoo(second, rebuilt(exported, change))
