"""The store: what goes in comes out, whatever process dies or writes beside it, and damage says the way out."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from hubrank.errors import StoreDamagedError, StoreError, StoreLockedError, UsageError
from hubrank.zoo import database, store
from hubrank.zoo.place import clear_store, tag_folder
from hubrank.zoo.store import CACHE_TAG, Skip, Zoo, cache_folder, source_id
from tests.builders import dense, make_source, random_signature

ROOT = Path(__file__).parents[2]


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        yield zoo


def edit(zoo: Zoo, statement: str, *values: object) -> None:
    """Change the database behind the store's back."""
    with sqlite3.connect(zoo.folder / "zoo" / "cache.db") as connection:
        connection.execute(statement, values)
    connection.close()


def test_what_is_put_comes_back(zoo):
    source, signature = make_source(), random_signature(0)
    zoo.put(source, signature)
    assert zoo.get("hf", "org/one", None) == source
    assert zoo.sources() == [source]
    back = zoo.signature(source)
    assert back.sites == signature.sites
    for mine, stored in zip(signature.factors, back.factors, strict=True):
        np.testing.assert_allclose(dense(stored), dense(mine), atol=0.02 * np.linalg.norm(mine.s))
    assert zoo.verify() == []


def test_a_large_signature_stays_in_the_database(zoo):
    zoo.put(make_source(), random_signature(0, rank=16, d_out=2000, d_in=2000))
    assert zoo.size() > 250_000
    assert {path.name for path in (zoo.folder / "zoo").rglob("*")} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
    assert zoo.verify() == []


def test_it_is_still_there_after_reopening(zoo, tmp_path):
    zoo.put(make_source(), random_signature(0))
    zoo.close()
    with Zoo(tmp_path / "cache") as again:
        assert again.sources() == [make_source()]
        assert again.generation == 1


def test_hub_repo_and_subfolder_together_name_a_source(zoo):
    sources = [
        make_source(),
        make_source(hub="adapterhub"),
        make_source("org/two"),
        make_source(subfolder="a"),
        make_source(subfolder="b"),
    ]
    for i, source in enumerate(sources):
        zoo.put(source, random_signature(i))
    assert {zoo.get(s.hub, s.repo, s.subfolder) for s in sources} == set(sources)
    assert zoo.get("hf", "org/three", None) is None
    assert [s.name for s in zoo.sources()] == ["org/one", "org/one", "org/one/a", "org/one/b", "org/two"]
    assert zoo.verify() == []
    zoo.put(make_source(revision="b" * 40), random_signature(9))
    assert len(zoo.sources()) == 5
    assert zoo.get("hf", "org/one", None).revision == "b" * 40


def test_ids_do_not_collide_where_names_run_together():
    ids = {
        source_id(*names)
        for names in [
            ("hf", "a/b", "c"),
            ("hf", "a", "b/c"),
            ("hf", "a/b", None),
            ("h", "fa/b", None),
            ("hf", "a/\udce9", None),
            ("hf", "a/?", None),
        ]
    }
    assert len(ids) == 6


def test_sources_by_base_and_method(zoo):
    a, b, c = make_source("o/a"), make_source("o/b", base="org/other"), make_source("o/c", method="ia3")
    for source in (a, b, c):
        zoo.put(source, random_signature(0))
    assert zoo.sources(base="org/base") == [a, c]
    assert zoo.sources(method="lora") == [a, b]
    assert zoo.sources(base="org/base", method="lora") == [a]
    assert zoo.sources(base="org/none") == []
    assert zoo.bases() == {"org/base": 2, "org/other": 1}
    assert list(zoo.bases()) == ["org/base", "org/other"]


def test_gone_sources_are_kept_but_not_shown(zoo):
    source = make_source()
    zoo.put(source, random_signature(0))
    zoo.mark(source, gone=True)
    assert zoo.sources() == []
    assert zoo.bases() == {}
    (gone,) = zoo.sources(gone=True)
    assert gone.gone
    assert zoo.signature(gone).factors
    zoo.mark(gone, gone=False)
    assert zoo.sources() == [source]


def test_every_change_of_the_sources_raises_the_generation_and_a_skip_does_not(zoo):
    source = make_source()
    seen = [zoo.generation]
    for change in (
        lambda: zoo.put(source, random_signature(0)),
        lambda: zoo.put(source, random_signature(0)),
        lambda: zoo.mark(source, gone=True),
        lambda: zoo.mark(source, gone=False),
    ):
        change()
        seen.append(zoo.generation)
    assert seen == [0, 1, 2, 3, 4]
    zoo.put_skip("hf", "org/bad", None, Skip("org/bad", "r1", "not finite", "NaN"))
    assert zoo.generation == 4


def test_skips_are_remembered_until_the_adapter_is_read_or_the_reader_is_better(zoo, monkeypatch):
    skip = Skip("org/one", "r1", "not finite", "layer 3 holds NaN")
    assert zoo.get_skip("hf", "org/one", None) is None
    zoo.put_skip("hf", "org/one", None, skip)
    assert zoo.get_skip("hf", "org/one", None) == skip
    assert zoo.get_skip("hf", "org/one", "sub") is None
    monkeypatch.setattr(store, "READER_VERSION", store.READER_VERSION + 1)
    assert zoo.get_skip("hf", "org/one", None) is None
    monkeypatch.undo()
    zoo.put(make_source(), random_signature(0))
    assert zoo.get_skip("hf", "org/one", None) is None


def test_a_put_on_a_full_disk_leaves_what_was_there(zoo):
    zoo.put(make_source(), random_signature(0))
    execute = zoo._database._cache._sql
    ((pages,),) = execute("PRAGMA page_count").fetchall()
    execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(StoreError, match="free some space"):
        zoo.put(make_source("org/two"), random_signature(1, d_out=4000))
    execute("PRAGMA max_page_count = 100000").fetchall()
    assert [s.name for s in zoo.sources()] == ["org/one"]
    assert zoo.generation == 1
    assert zoo.verify() == []


# Where the store is


def test_the_folder_comes_from_the_argument_then_the_environment_then_here_then_the_user_s_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Path(platformdirs.user_cache_dir("hubrank"))
    assert cache_folder() == own
    (tmp_path / "cache").mkdir()
    assert cache_folder() == own  # any folder may be called cache
    (tmp_path / "cache" / CACHE_TAG).write_text("Signature: 8a477f597d28d172789f06886806bc55")
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("HUBRANK_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(tmp_path / "given") == cache_folder("given") == tmp_path / "given"
    monkeypatch.setenv("HUBRANK_CACHE", "")
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("~/zoo") == tmp_path / "home" / "zoo"


def test_a_missing_store_reads_empty_and_nothing_is_made(tmp_path):
    with Zoo(tmp_path / "nowhere") as zoo:
        assert zoo.sources() == []
        assert zoo.bases() == {}
        assert zoo.get("hf", "org/one", None) is None
        assert zoo.get_skip("hf", "org/one", None) is None
        assert (zoo.generation, zoo.size()) == (0, 0)
        assert zoo.verify() == []
        with pytest.raises(StoreError, match="not open"):
            zoo.put(make_source(), random_signature(0))
    assert list(tmp_path.iterdir()) == []


def test_a_new_store_is_tagged_as_a_cache(zoo):
    assert (zoo.folder / CACHE_TAG).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    zoo.put(make_source(), random_signature(0))
    assert zoo.size() > 1000


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "cache").write_text("a file")
    for create in (True, False):
        with pytest.raises(UsageError, match="is not a folder; --cache-dir"):
            Zoo(tmp_path / "cache", create=create)
    with pytest.raises(StoreError, match="--cache-dir"):
        Zoo(tmp_path / "cache" / "below", create=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zoo").write_text("a file")
    with pytest.raises(StoreError, match="--cache-dir"):
        Zoo(tmp_path / "other", create=True)


# Damage


def damaged_store(tmp_path, data: bytes) -> Path:
    (tmp_path / "cache" / "zoo").mkdir(parents=True)
    (tmp_path / "cache" / "zoo" / "cache.db").write_bytes(data)
    return tmp_path / "cache"


@pytest.mark.parametrize("size", [100, 4096, 50_000])
@pytest.mark.parametrize("create", [True, False])
def test_random_bytes_are_damage_with_the_way_out(tmp_path, size, create):
    folder = damaged_store(tmp_path, random.Random(0).randbytes(size))
    with pytest.raises(StoreDamagedError, match=f"hubrank cache clear --cache-dir {folder}"):
        Zoo(folder, create=create)


def test_another_program_s_database_is_damage(tmp_path):
    folder = damaged_store(tmp_path, b"")
    with sqlite3.connect(folder / "zoo" / "cache.db") as connection:
        connection.execute("CREATE TABLE Settings (a, b, c)")
        connection.execute("INSERT INTO Settings VALUES (1, 2, 3)")
    connection.close()
    with pytest.raises(StoreDamagedError, match="hubrank cache clear"):
        Zoo(folder)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_database_is_damage(zoo, tmp_path, part):
    for i in range(30):
        zoo.put(make_source(f"org/{i}"), random_signature(i, d_out=64))
    zoo.close()
    path = tmp_path / "cache" / "zoo" / "cache.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])

    def read_all():
        with Zoo(tmp_path / "cache") as again:
            wrong = again.verify()
            if wrong:
                raise StoreDamagedError(f"{wrong[0]}: hubrank cache clear")

    with pytest.raises(StoreDamagedError, match="hubrank cache clear"):
        read_all()


@pytest.mark.parametrize(
    ("statement", "value", "complaint"),
    [
        ("UPDATE Cache SET value = ? WHERE key LIKE 'source/%'", b"{}", "cannot be read"),
        ("UPDATE Cache SET value = ? WHERE key LIKE 'signature/%'", b"junk", "cannot be read"),
        ("DELETE FROM Cache WHERE key LIKE 'signature/%' AND ? = 1", 1, "has no signature"),
        ("DELETE FROM Cache WHERE key LIKE 'source/%' AND ? = 1", 1, "belongs to no source"),
        ("UPDATE Cache SET key = 'source/' || ? WHERE key LIKE 'source/%'", "0" * 32, "belongs elsewhere"),
    ],
)
def test_verify_finds_records_that_are_damaged_missing_or_astray(zoo, statement, value, complaint):
    zoo.put(make_source(), random_signature(0))
    edit(zoo, statement, value)
    assert any(complaint in line for line in zoo.verify())


def test_reading_a_damaged_record_says_the_way_out(zoo):
    zoo.put(make_source(), random_signature(0))
    edit(zoo, "UPDATE Cache SET value = ? WHERE key != 'generation'", b"[]")
    edit(zoo, "UPDATE Cache SET value = ? WHERE key = 'generation'", b"many")
    for read in (
        zoo.sources,
        lambda: zoo.signature(make_source()),
        lambda: zoo.generation,
        lambda: zoo.get("hf", "org/one", None),
    ):
        with pytest.raises(StoreDamagedError) as caught:
            read()
        message = str(caught.value)
        assert message.count("hubrank cache clear") == 1
        assert message.count("\n") == 0


def test_a_damaged_skip_says_the_way_out(zoo):
    zoo.put_skip("hf", "org/one", None, Skip("org/one", "r1", "not finite", "NaN"))
    for data in (b"", b"[]", b'{"reader": %d}' % store.READER_VERSION):
        edit(zoo, "UPDATE Cache SET value = ?", data)
        with pytest.raises(StoreDamagedError, match="hubrank cache clear"):
            zoo.get_skip("hf", "org/one", None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_store_says_so(zoo, tmp_path):
    zoo.put(make_source(), random_signature(0))
    zoo.close()
    (tmp_path / "cache" / "zoo" / "cache.db").chmod(0o444)
    with pytest.raises(StoreError, match="permissions") as caught:
        Zoo(tmp_path / "cache")
    assert not isinstance(caught.value, StoreDamagedError)
    (tmp_path / "cache").chmod(0)
    try:
        with pytest.raises(StoreError, match="--cache-dir"):
            Zoo(tmp_path / "cache")
    finally:
        (tmp_path / "cache").chmod(0o700)


# Beside other processes

WRITER = """
import sys
sys.path.insert(0, {root!r})
from hubrank.zoo.store import Zoo
from tests.builders import make_source, random_signature
name, count = sys.argv[2], int(sys.argv[3])
with Zoo(sys.argv[1], create=True) as zoo:
    signature = random_signature(0)
    for i in range(count):
        zoo.put(make_source(f"{{name}}/{{i}}"), signature)
        print(i, flush=True)
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen:
    code = WRITER.format(root=str(ROOT))
    command = [sys.executable, "-c", code, str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_write_at_once_both_succeed(tmp_path):
    with writer(tmp_path / "cache", "a", 20) as a, writer(tmp_path / "cache", "b", 20) as b:
        for process in (a, b):
            _, complaint = process.communicate(timeout=60)
            assert process.returncode == 0, complaint
    with Zoo(tmp_path / "cache") as zoo:
        assert len(zoo.sources()) == 40
        assert zoo.generation == 40
        assert zoo.verify() == []


def test_a_killed_process_leaves_what_it_had_stored(tmp_path):
    with writer(tmp_path / "cache", "a", 100_000) as process:
        for _ in range(5):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait(timeout=60)
    last = int(rest[-1]) if rest else last
    with Zoo(tmp_path / "cache") as zoo:
        stored = len(zoo.sources())
        assert last + 1 <= stored <= last + 2  # one more may have been committed, but not yet printed
        assert zoo.generation == stored
        assert zoo.verify() == []
        zoo.put(make_source("org/new"), random_signature(0))
        assert len(zoo.sources()) == stored + 1


def test_a_store_that_another_holds_is_locked_not_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    with Zoo(tmp_path / "cache", create=True) as zoo:
        zoo.put(make_source(), random_signature(0))
        other = sqlite3.connect(tmp_path / "cache" / "zoo" / "cache.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StoreLockedError, match="another process holds the store"):
                zoo.put(make_source("org/two"), random_signature(1))
            with pytest.raises(StoreLockedError):
                zoo.put_skip("hf", "org/two", None, Skip("org/two", "r", "x", "y"))
            assert [s.name for s in zoo.sources()] == ["org/one"]  # reading goes on
        finally:
            other.execute("ROLLBACK")
            other.close()
        zoo.put(make_source("org/two"), random_signature(1))
        assert len(zoo.sources()) == 2


def test_clearing_takes_all_that_was_kept_of_targets_and_nothing_of_the_user_s(tmp_path):
    tag_folder(tmp_path)
    for name in ("packed", "tuned", "placed", "evidence", "measured", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"12345")
    assert clear_store(tmp_path) == 25
    assert sorted(path.name for path in tmp_path.iterdir()) == [CACHE_TAG, "mine"]
