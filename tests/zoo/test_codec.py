"""Sources as JSON and back, and what is no source."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import StoreDamagedError
from hubrank.types import CardFacts, Metric, Source
from hubrank.zoo.codec import decode_source, encode_source
from tests.builders import make_source

texts = st.text(alphabet=st.characters(), max_size=8)  # surrogates too, as file names that are no text have them
lists = st.lists(texts, max_size=3).map(tuple)
metrics = st.lists(st.builds(Metric, texts, st.floats(allow_nan=False)), max_size=2).map(tuple)
cards = st.builds(CardFacts, st.none() | texts, lists, st.none() | texts, lists, lists, metrics)
sources = st.builds(
    Source,
    texts,
    texts,
    texts,
    st.none() | texts,
    texts,
    texts,
    st.integers(0, 10**6),
    cards,
    lists,
    st.none() | texts,
    st.booleans(),
)


@given(sources)
def test_a_source_comes_back_as_it_was(source):
    back = decode_source(encode_source(source))
    assert back == source
    assert hash(back) == hash(source)


GOOD = json.loads(encode_source(make_source(card=CardFacts(metrics=(Metric("f1", 0.5),)))))


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


BAD = {
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b'"\xff"',
    "deep nesting": b"[" * 200_000,
    "a list": [],
    "null": None,
    "an unknown field": {**GOOD, "new": 1},
    "no card": without("card"),
    "no repo": without("repo"),
    "a list for a text": {**GOOD, "repo": []},
    "null for a text": {**GOOD, "base": None},
    "a number for a subfolder": {**GOOD, "subfolder": 5},
    "text for a rank": {**GOOD, "rank": "2"},
    "a number for gone": {**GOOD, "gone": 1},
    "a list for a card": {**GOOD, "card": [1]},
    "text for a card": {**GOOD, "card": "card"},
    "an unknown card field": {**GOOD, "card": {**GOOD["card"], "new": 1}},
    "a number for tags": {**GOOD, "card": {**GOOD["card"], "tags": 5}},
    "a number for the task": {**GOOD, "card": {**GOOD["card"], "task": 5}},
    "text for a metric": {**GOOD, "card": {**GOOD["card"], "metrics": ["f1"]}},
    "a metric without value": {**GOOD, "card": {**GOOD["card"], "metrics": [{"name": "f1"}]}},
    "a metric of 400 digits": {**GOOD, "card": {**GOOD["card"], "metrics": [{"name": "f1", "value": 10**400}]}},
    "a number for warnings": {**GOOD, "warnings": 5},
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_what_is_no_source_is_damage(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(StoreDamagedError, match="source cannot be read"):
        decode_source(data)


def test_what_the_bad_sources_were_made_from_is_fine():
    assert decode_source(json.dumps(GOOD).encode()).card.metrics == (Metric("f1", 0.5),)


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_mutated_source_is_read_or_damaged_never_anything_else(flips):
    raw = bytearray(json.dumps(GOOD).encode())
    for position, value in flips:
        raw[position % len(raw)] = value
    with contextlib.suppress(StoreDamagedError):
        assert isinstance(decode_source(bytes(raw)), Source)
