"""The disk without pickle: whatever a row claims to be, nothing of it is ever unpickled and no file it names is opened."""

from __future__ import annotations

import pickle
import sqlite3
import stat
from pathlib import Path

import diskcache
import pytest

from hubrank.errors import StoreDamagedError
from hubrank.zoo.disk import IN_DATABASE, BytesDisk
from hubrank.zoo.store import Zoo, source_id
from tests.builders import make_source, random_signature


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "unpickled")


@pytest.fixture
def cache(tmp_path):
    with diskcache.Cache(str(tmp_path / "db"), disk=BytesDisk, disk_min_file_size=IN_DATABASE, eviction_policy="none") as cache:
        cache.set("good", b"bytes")
        yield cache


def insert(database, *, key="bad", raw=1, mode=1, filename=None, value=b"x") -> None:
    """A row as diskcache writes them, straight into the database."""
    with sqlite3.connect(database / "cache.db") as connection:
        connection.execute(
            "INSERT OR REPLACE INTO Cache(key, raw, store_time, access_time, access_count, size, mode, filename, value)"
            " VALUES (?, ?, 0, 0, 0, 0, ?, ?, ?)",
            (key, raw, mode, filename, value),
        )
    connection.close()


def test_the_canary_sings_where_pickle_is_not_refused(tmp_path):
    canary = tmp_path / "canary"
    with diskcache.Cache(str(tmp_path / "plain")) as cache:
        insert(tmp_path / "plain", mode=4, value=pickle.dumps(Canary(canary)))
        cache.get("bad")
    assert canary.exists(), "the attack below would not work even on diskcache's own disk"


@pytest.mark.parametrize("mode", [0, 2, 3, 4, 5, -1, None, "4"])
def test_a_row_of_any_mode_but_plain_bytes_is_damage(cache, tmp_path, mode):
    canary = tmp_path / "canary"
    insert(tmp_path / "db", mode=mode, value=pickle.dumps(Canary(canary)))
    with pytest.raises(StoreDamagedError, match="did not write"):
        cache.get("bad")
    assert not canary.exists()
    assert cache.get("good") == b"bytes"


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_row_that_names_a_file_is_damage_and_the_file_is_not_opened(cache, tmp_path, mode):
    canary = tmp_path / "canary"
    (tmp_path / "db" / "file.val").write_bytes(pickle.dumps(Canary(canary)))
    for name in ("file.val", "../db/file.val", "/etc/passwd"):
        for value in (None, b"x"):
            insert(tmp_path / "db", mode=mode, filename=name, value=value)
            with pytest.raises(StoreDamagedError):
                cache.get("bad")
    assert not canary.exists()


@pytest.mark.parametrize("value", ["text", 5, 1.5, None])
def test_a_value_that_is_no_bytes_is_damage(cache, tmp_path, value):
    insert(tmp_path / "db", value=value)
    with pytest.raises(StoreDamagedError):
        cache.get("bad")


def test_a_pickled_key_is_damage(cache, tmp_path):
    canary = tmp_path / "canary"
    insert(tmp_path / "db", key=pickle.dumps(Canary(canary)), raw=0)
    with pytest.raises(StoreDamagedError, match="key"):
        list(cache.iterkeys())
    assert not canary.exists()


def test_a_key_that_says_it_is_pickled_is_damage(cache, tmp_path):
    insert(tmp_path / "db", key="text", raw=0)
    with pytest.raises(StoreDamagedError, match="key"):
        list(cache.iterkeys())


@pytest.mark.parametrize("key", [5, b"bytes", 1.5])
def test_a_key_that_is_no_text_is_damage(cache, tmp_path, key):
    insert(tmp_path / "db", key=key)
    with pytest.raises(StoreDamagedError):
        list(cache.iterkeys())


@pytest.mark.parametrize("value", ["text", 5, None, ["list"], {"a": 1}, bytearray(b"x")])
def test_only_bytes_are_stored(cache, value):
    with pytest.raises(TypeError):
        cache.set("key", value)


@pytest.mark.parametrize("key", [5, b"bytes", ("a", "b"), None])
def test_only_text_is_a_key(cache, key):
    with pytest.raises(TypeError):
        cache.set(key, b"x")


def test_a_large_value_stays_in_the_database(cache, tmp_path):
    large = bytes(1_000_000)
    cache.set("large", large)
    assert cache.get("large") == large
    assert {path.name.partition("-")[0] for path in (tmp_path / "db").rglob("*")} == {"cache.db"}


@pytest.mark.parametrize("prefix", ["source/", "signature/", "skip/", ""])
def test_the_zoo_refuses_a_pickle_under_each_of_its_own_keys(tmp_path, prefix):
    canary = tmp_path / "canary"
    source = make_source()
    with Zoo(tmp_path / "cache", create=True) as zoo:
        zoo.put(source, random_signature(0))
        key = prefix + source_id(source.hub, source.repo, source.subfolder) if prefix else "generation"
        insert(tmp_path / "cache" / "zoo", key=key, mode=4, value=pickle.dumps(Canary(canary)))
        read = {
            "source/": zoo.sources,
            "signature/": lambda: zoo.signature(source),
            "skip/": lambda: zoo.get_skip("hf", "org/one", None),
            "": lambda: zoo.generation,
        }[prefix]
        with pytest.raises(StoreDamagedError, match="hubrank cache clear"):
            read()
        wrong = zoo.verify()
        assert wrong
        assert all("did not write" in line for line in wrong)
    assert not canary.exists()


def test_the_zoo_refuses_a_pickled_key(tmp_path):
    canary = tmp_path / "canary"
    with Zoo(tmp_path / "cache", create=True) as zoo:
        zoo.put(make_source(), random_signature(0))
        insert(tmp_path / "cache" / "zoo", key=pickle.dumps(Canary(canary)), raw=0)
        with pytest.raises(StoreDamagedError, match="hubrank cache clear"):
            zoo.sources()
        assert len(zoo.verify()) == 1
    assert not canary.exists()


def test_the_database_s_folder_is_the_user_s_own(tmp_path):
    with Zoo(tmp_path / "cache", create=True):
        assert stat.S_IMODE((tmp_path / "cache" / "zoo").stat().st_mode) == 0o700
    (tmp_path / "cache" / "zoo").chmod(0o755)
    with Zoo(tmp_path / "cache"):
        assert stat.S_IMODE((tmp_path / "cache" / "zoo").stat().st_mode) == 0o700
