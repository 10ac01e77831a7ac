"""Config fields from the internet: wrong types, impossible numbers, and patterns written to hang."""

from __future__ import annotations

import json
import math
import re
import time

import pytest

from hubrank.checkpoints import config as fields
from hubrank.errors import AdapterError


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe{}", b"{'r': 8}", b"[" * 200_000, b'{"r": ' + b"9" * 5000 + b"}"],
    ids=["empty", "cut", "null", "list", "text", "utf16", "python", "deep", "digits"],
)
def test_what_is_no_json_object_is_a_bad_config(raw):
    with pytest.raises(AdapterError, match=r"adapter_config\.json") as caught:
        fields.parse_config("adapter_config.json", raw)
    assert caught.value.reason == "bad config"


def test_a_byte_order_mark_is_read_over():
    assert fields.parse_config("c", b'\xef\xbb\xbf{"r": 4}') == {"r": 4}


@pytest.mark.parametrize(
    "value", ["8", "", True, False, math.nan, math.inf, -math.inf, 1e300, 10**400, -(10**30), [8], {"r": 8}]
)
def test_a_number_is_a_finite_number_and_nothing_else(value):
    with pytest.raises(AdapterError) as caught:
        fields.number({"a": value}, "a", default=1.0)
    assert caught.value.reason == "bad config"
    assert len(str(caught.value)) < 200


def test_json_nan_and_huge_exponents_are_refused():
    for text in ('{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": -1e999}'):
        with pytest.raises(AdapterError):
            fields.number(fields.parse_config("c", text.encode()), "a", default=1.0)


@pytest.mark.parametrize("value", [0, -1, 2.5, 2**20 + 1, 1e9, "8", True, math.nan, math.inf, 10**400])
def test_a_rank_is_a_whole_number_in_range(value):
    with pytest.raises(AdapterError) as caught:
        fields.integer({"r": value}, "r", default=8)
    assert caught.value.reason == "bad config"


def test_good_numbers_pass_and_null_is_the_default():
    assert fields.integer({"r": 16}, "r", default=8) == 16
    assert fields.integer({"r": 16.0}, "r", default=8) == 16
    assert isinstance(fields.integer({"r": 16.0}, "r", default=8), int)
    assert fields.integer({"r": None}, "r", default=8) == fields.integer({}, "r", default=8) == 8
    assert fields.number({"a": 0.5}, "a", default=1.0) == 0.5
    assert fields.number({"a": None}, "a", default=1.0) == 1.0
    assert fields.number({"a": 0}, "a", default=1.0) == 0


@pytest.mark.parametrize("value", [1, 0, "true", "false", "", [], {}])
def test_a_flag_is_true_or_false(value):
    with pytest.raises(AdapterError):
        fields.boolean({"use_rslora": value}, "use_rslora")


def test_good_flags():
    assert fields.boolean({"f": True}, "f") is True
    assert fields.boolean({"f": False}, "f") is fields.boolean({"f": None}, "f") is fields.boolean({}, "f") is False


def test_text_and_mapping():
    assert fields.text({"a": "b"}, "a") == "b"
    assert fields.text({"a": 5}, "a") is fields.text({"a": ""}, "a") is fields.text({}, "a") is None
    assert fields.mapping({"a": None}, "a") == fields.mapping({}, "a") == {}
    assert fields.mapping({"a": {"q": 4}}, "a") == {"q": 4}
    for value in ([], "q", 4, {str(i): 1 for i in range(10_001)}):
        with pytest.raises(AdapterError):
            fields.mapping({"a": value}, "a")


@pytest.mark.parametrize(
    "key",
    [
        "query",
        "self.query",
        "encoder.layer.1.attention.self.query",
        "layer.1.attention.self.query",
        "uery",
        "key",
        r".*\.query",
        r"encoder\.layer\.[01]\.attention\.self\.query",
        r"^encoder\.layer\.1\..*",
        r"^layer\.1\..*",
        r"query|value",
        r"(?:query|value)",
        r"layer\.\d\.attention\.self\.query",
        "query$",
        "quer[",
    ],
)
def test_keys_match_as_peft_matches_them(key):
    for module in ("encoder.layer.1.attention.self.query", "encoder.layer.0.attention.self.value", "query", "myquery"):
        try:
            theirs = re.match(rf"(.*\.)?({key})$", module) is not None
        except re.error:
            with pytest.raises(AdapterError):
                fields.match_pattern({key: 4}, module)
            continue
        assert (fields.match_pattern({key: 4}, module) == 4) == theirs, (key, module)


def test_the_first_key_that_matches_wins():
    assert fields.match_pattern({"key": 1, r".*query": 2, "query": 3}, "layer.0.query") == 2
    assert fields.match_pattern({"query": 3, r".*query": 2}, "layer.0.query") == 3
    assert fields.match_pattern({}, "layer.0.query") is None


@pytest.mark.parametrize(
    "key", ["(a|aa)+b", "(?R)*", "(a+)+b", "(a|a)*b", "(.*)*x", "((a*)*)*b", r"(\w+\s?)*!", "(x+x+)+y", r"(.+)\1+\1+b"]
)
def test_a_pattern_written_to_hang_ends(key):
    started = time.perf_counter()
    try:
        assert fields.match_pattern({key: 4}, "a" * 300) is None
    except AdapterError as error:
        assert error.reason == "unsafe pattern"  # noqa: PT017 -- an engine that sees through the pattern may also say no
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("key", ["(a|aa)+b", "(?R)*"])
def test_a_pattern_that_does_hang_is_refused(key):
    with pytest.raises(AdapterError) as caught:
        fields.match_pattern({key: 4}, "a" * 300)
    assert caught.value.reason == "unsafe pattern"


@pytest.mark.parametrize("key", ["(", "[a", "(?P<n>a)(?P=m)", "*", "a{1000}{1000}{1000}", "(a{9999}){9999}", "a?" * 200])
def test_a_pattern_that_cannot_or_must_not_be_compiled_is_refused(key):
    started = time.perf_counter()
    with pytest.raises(AdapterError) as caught:
        fields.match_pattern({key: 4}, "a" * 300)
    assert caught.value.reason == "unsafe pattern"
    assert len(str(caught.value)) < 200
    assert time.perf_counter() - started < 2


def test_many_patterns_share_one_budget():
    patterns = {f"(?:a|b)+{i}": 4 for i in range(10_000)}
    started = time.thread_time()
    with pytest.raises(AdapterError, match="too long"):
        fields.match_pattern(patterns, "a" * 300, until=started + 0.1)
    assert time.thread_time() - started < 2


def test_a_config_as_peft_writes_it_is_read_whole():
    config = {
        "r": 8,
        "lora_alpha": 16,
        "use_rslora": False,
        "rank_pattern": {},
        "target_modules": ["query"],
        "layer_replication": None,
    }
    assert fields.parse_config("c", json.dumps(config).encode()) == config
