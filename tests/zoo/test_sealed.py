"""Sealed records: every flipped bit is noticed, and what older versions stored is still read."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import StoreDamagedError
from hubrank.signatures.encoding import encode_signature
from hubrank.zoo.codec import encode_source
from hubrank.zoo.sealed import seal, unseal
from hubrank.zoo.store import Zoo
from tests.builders import make_source, random_signature


@given(st.binary(max_size=200), st.data())
def test_every_bit_counts(data, draw):
    sealed = seal(data)
    assert unseal(sealed) == data
    at, bit = draw.draw(st.integers(8, len(sealed) - 1)), draw.draw(st.integers(0, 7))
    with pytest.raises(StoreDamagedError, match="checksum"):
        unseal(sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :])


@pytest.mark.parametrize("data", [encode_source(make_source()), encode_signature(random_signature(0)), b"", b"{}"])
def test_what_was_stored_without_a_seal_is_read_as_it_is(data):
    assert unseal(data) == data


def change(zoo: Zoo, key: str, data: bytes) -> None:
    with sqlite3.connect(zoo.folder / "zoo" / "cache.db") as connection:
        assert connection.execute("UPDATE Cache SET value = ? WHERE key LIKE ?", (data, f"{key}%")).rowcount == 1
    connection.close()


def stored(zoo: Zoo, key: str) -> bytes:
    with sqlite3.connect(zoo.folder / "zoo" / "cache.db") as connection:
        ((data,),) = connection.execute("SELECT value FROM Cache WHERE key LIKE ?", (f"{key}%",))
    connection.close()
    return data


@pytest.mark.parametrize("key", ["source/", "signature/"])
def test_a_flipped_bit_in_the_database_is_found_by_verify_and_by_reading(tmp_path, key):
    with Zoo(tmp_path, create=True) as zoo:
        source = make_source()
        zoo.put(source, random_signature(0))
        data = stored(zoo, key)
        for at in range(0, len(data), max(1, len(data) // 50)):
            change(zoo, key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert zoo.verify()
            with Zoo(tmp_path) as other, pytest.raises(StoreDamagedError, match="hubrank cache clear"):
                [other.signature(found) for found in other.sources()]
        change(zoo, key, data)
        assert zoo.verify() == []


def test_a_store_of_an_older_version_is_read_and_written_on(tmp_path):
    with Zoo(tmp_path, create=True) as zoo:
        zoo.put(make_source(), random_signature(0))
        for key in ("source/", "signature/"):
            change(zoo, key, unseal(stored(zoo, key)))
        with Zoo(tmp_path) as other:
            (source,) = other.sources()
            assert other.signature(source).factors
            assert other.verify() == []
            other.mark(source, gone=True)
        assert stored(zoo, "source/").startswith(b"hubrank")
