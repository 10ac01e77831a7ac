"""A folder as a hub: which folders are adapters, what they are called, and what is never opened."""

from __future__ import annotations

import hashlib
import os
import sys

import pytest

import hubrank.hubs.folder
from hubrank.errors import AdapterError, HubError
from hubrank.hubs.folder import FolderBundle, FolderHub
from hubrank.hubs.protocol import Listing, Query
from tests.builders import write_lora


def listed(root, **query) -> list[tuple[str, str | None]]:
    return [(listing.repo, listing.subfolder) for listing in FolderHub(root).discover(Query(**query))]


def revisions(root) -> dict[str, str]:
    return {listing.repo: listing.revision for listing in FolderHub(root).discover(Query())}


def mark(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")


def test_names_follow_the_layout(tmp_path):
    root = tmp_path / "zoo"
    for path in ("org/b", "org/a", "org/a/sub", "org/a/sub/deeper", "alone"):
        mark(root / path)
    assert listed(root) == [("zoo/alone", None), ("org/a", None), ("org/a", "sub"), ("org/a", "sub/deeper"), ("org/b", None)]


def test_the_root_itself_is_an_adapter_with_its_named_siblings_below(tmp_path):
    root = tmp_path / "runs" / "out"
    mark(root)
    mark(root / "second")
    assert listed(root) == [("runs/out", None), ("out/second", None)]


def test_states_and_hidden_folders_of_a_training_output_are_not_looked_at(tmp_path):
    mark(tmp_path / "org" / "run")
    for name in ("checkpoint-500", ".cache", "__pycache__", "copy.partial"):
        mark(tmp_path / "org" / "run" / name)
        mark(tmp_path / "org" / name)
    assert listed(tmp_path) == [("org/run", None)]


def test_links_to_folders_are_not_followed(tmp_path):
    mark(tmp_path / "zoo" / "org" / "a")
    mark(tmp_path / "outside" / "b")
    (tmp_path / "zoo" / "org" / "b").symlink_to(tmp_path / "outside" / "b")
    (tmp_path / "zoo" / "org" / "loop").symlink_to(tmp_path / "zoo")
    assert listed(tmp_path / "zoo") == [("org/a", None)]


def test_very_deep_folders_are_not_searched(tmp_path):
    mark(tmp_path.joinpath(*"abcdef"))
    mark(tmp_path.joinpath(*"abcdefg"))
    assert listed(tmp_path) == [("a/b", "c/d/e/f")]


def test_a_limit_counts_repositories_not_adapters(tmp_path):
    for path in ("org/a/x", "org/a/y", "org/b/x", "org/c"):
        mark(tmp_path / path)
    assert listed(tmp_path, limit=2) == [("org/a", "x"), ("org/a", "y"), ("org/b", "x")]
    assert listed(tmp_path, limit=1) == [("org/a", "x"), ("org/a", "y")]
    assert listed(tmp_path, limit=0) == []


def test_a_pipe_is_no_file(tmp_path):
    folder = write_lora(tmp_path / "org" / "a")
    os.mkfifo(folder / "README.md")
    (listing,) = FolderHub(tmp_path).discover(Query())
    assert sorted(listing.files) == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_revision_changes_with_any_file_that_matters_and_only_then(tmp_path):
    folder = write_lora(tmp_path / "org" / "a")
    write_lora(tmp_path / "org" / "b", seed=1)
    first = revisions(tmp_path)
    assert first["org/a"] != first["org/b"]
    assert revisions(tmp_path) == first
    (folder / "events.out").write_text("a log")
    os.utime(folder / "adapter_config.json", (1, 1))
    assert revisions(tmp_path) == first
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(weights)
    second = revisions(tmp_path)
    assert second["org/a"] != first["org/a"]
    assert second["org/b"] == first["org/b"]
    (folder / "README.md").write_text("card")
    assert revisions(tmp_path)["org/a"] not in (first["org/a"], second["org/a"])


def test_a_copy_elsewhere_has_the_same_revision(tmp_path):
    write_lora(tmp_path / "one" / "org" / "a")
    write_lora(tmp_path / "two" / "org" / "a")
    assert revisions(tmp_path / "one") == revisions(tmp_path / "two")


@pytest.fixture
def hashed(monkeypatch):
    """The files that are read to be hashed, in order."""
    seen = []
    whole = hubrank.hubs.folder._hashed
    monkeypatch.setattr("hubrank.hubs.folder._hashed", lambda path: seen.append(path.name) or whole(path))
    return seen


def test_what_a_listing_hashed_is_hashed_again_only_where_the_file_may_be_another(tmp_path, hashed, monkeypatch):
    folder = write_lora(tmp_path / "org" / "a")
    weights = folder / "adapter_model.safetensors"
    hub = FolderHub(tmp_path)

    def current() -> str:
        (listing,) = hub.discover(Query())
        del hashed[:]
        return hub.open(listing).current_hashes([weights.name])[weights.name]

    first = current()
    assert first == f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    assert hashed == [weights.name], "written a moment ago: it may be written again without its times telling"
    monkeypatch.setattr("hubrank.hubs.folder._SETTLED", -1)
    assert current() == first
    assert hashed == []
    (listing,) = hub.discover(Query())
    times = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)  # as long as before
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # and as old, as far as its author says
    del hashed[:]
    second = hub.open(listing).current_hashes([weights.name])[weights.name]
    assert second == f"sha256:{hashlib.sha256(data).hexdigest()}" != first
    assert hashed == [weights.name]


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_a_file_longer_than_a_block_is_hashed_whole(tmp_path, monkeypatch, block):
    monkeypatch.setattr("hubrank.hubs.folder._BLOCK", block)
    for size in (0, 6, 7, 8, 100):
        (tmp_path / "w.bin").write_bytes(bytes(range(size)))
        (found,) = FolderBundle(tmp_path).current_hashes(["w.bin"]).values()
        assert found == f"sha256:{hashlib.sha256(bytes(range(size))).hexdigest()}"


def test_a_marker_that_is_a_folder_marks_nothing(tmp_path):
    mark(tmp_path / "org" / "a")
    (tmp_path / "org" / "b" / "adapter_config.json").mkdir(parents=True)
    (tmp_path / "org" / "c").mkdir()
    (tmp_path / "org" / "c" / "hubrank.json").symlink_to(tmp_path / "org")
    assert listed(tmp_path) == [("org/a", None)]


def test_a_listing_says_sizes_and_where(tmp_path):
    folder = write_lora(tmp_path / "org" / "a")
    hub = FolderHub(tmp_path)
    (listing,) = hub.discover(Query())
    size = (folder / "adapter_config.json").stat().st_size
    assert listing.files["adapter_config.json"] == size
    assert listing.location == str(folder)
    assert hub.name == f"folder:{tmp_path}"
    bundle = hub.open(listing)
    assert bundle.size("adapter_config.json") == size
    assert bundle.read("adapter_config.json", limit=size) == (folder / "adapter_config.json").read_bytes()
    assert bundle.read_range("adapter_config.json", 1, 4) == (folder / "adapter_config.json").read_bytes()[1:4]


def test_a_missing_folder_is_a_hub_error_with_the_way_out(tmp_path):
    with pytest.raises(HubError, match=r"nowhere: no such folder; give hf, adapterhub, zips or a folder of adapters"):
        FolderHub(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match="no such folder"):
        FolderHub(tmp_path / "file")


def test_an_empty_folder_lists_nothing(tmp_path):
    assert listed(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../secret", "/etc/passwd", "sub/file", "sub\\file", "a\0b"])
def test_only_plain_names_are_opened(tmp_path, name):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "adapter").mkdir()
    bundle = FolderBundle(tmp_path / "adapter")
    for attempt in (
        lambda: bundle.size(name),
        lambda: bundle.read(name, limit=100),
        lambda: bundle.read_range(name, 0, 1),
    ):
        with pytest.raises(AdapterError) as caught:
            attempt()
        assert caught.value.reason == "unsafe path"


def test_missing_long_and_short_files_say_so(tmp_path):
    (tmp_path / "ten").write_bytes(bytes(10))
    bundle = FolderBundle(tmp_path)
    cases = {
        "file missing": lambda: bundle.read("none", limit=10),
        "file too large": lambda: bundle.read("ten", limit=9),
        "file truncated": lambda: bundle.read_range("ten", 5, 11),
        "file unreadable": lambda: FolderBundle(tmp_path.parent).read_range(tmp_path.name, 0, 1),
    }
    for reason, attempt in cases.items():
        with pytest.raises(AdapterError) as caught:
            attempt()
        assert caught.value.reason == reason
    assert bundle.read("ten", limit=10) == bytes(10)


def test_a_listing_of_another_hub_is_not_opened(tmp_path):
    with pytest.raises(HubError, match="not from a folder"):
        FolderHub(tmp_path).open(Listing("org/a", "r", None, {}))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a file name be any bytes")
def test_a_name_that_is_no_text_can_be_printed_and_opened(tmp_path):
    folder = tmp_path / "org" / os.fsdecode(b"caf\xe9")
    write_lora(folder)
    hub = FolderHub(tmp_path)
    (listing,) = hub.discover(Query())
    assert listing.repo == "org/caf\\xe9"
    assert hub.open(listing).size("adapter_config.json") > 0


def test_weights_with_a_note_are_found_like_those_with_a_config(tmp_path):
    folder = tmp_path / "org" / "bare"
    folder.mkdir(parents=True)
    (folder / "hubrank.json").write_text("{}")
    (folder / "prompt.npz").write_bytes(b"one")
    assert listed(tmp_path) == [("org/bare", None)]
    first = revisions(tmp_path)
    (folder / "prompt.npz").write_bytes(b"two")
    assert revisions(tmp_path) != first


def test_what_training_leaves_beside_an_adapter_is_not_read_and_changes_nothing(tmp_path, monkeypatch):
    folder = write_lora(tmp_path / "org" / "a")
    read = []
    hashed = hubrank.hubs.folder._hashed
    monkeypatch.setattr(hubrank.hubs.folder, "_hashed", lambda path: (read.append(path.name), hashed(path))[1])
    (before,) = FolderHub(tmp_path).discover(Query())
    for name in ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state_0.pth", "rng_state.pth", "training_args.bin"):
        (folder / name).write_bytes(b"state")
    (after,) = FolderHub(tmp_path).discover(Query())
    assert after.revision == before.revision
    assert read == ["adapter_config.json", "adapter_model.safetensors"] * 2
    (folder / "pytorch_model.bin").write_bytes(b"weights?")
    assert next(FolderHub(tmp_path).discover(Query())).revision != before.revision


def test_weights_without_a_config_may_be_called_anything(tmp_path):
    folder = tmp_path / "org" / "a"
    folder.mkdir(parents=True)
    (folder / "hubrank.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"one")
    (before,) = FolderHub(tmp_path).discover(Query())
    (folder / "optimizer.pt").write_bytes(b"two")
    assert next(FolderHub(tmp_path).discover(Query())).revision != before.revision
