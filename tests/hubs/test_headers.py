"""What headers say, and what hostile ones must not do."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.hubs import headers as h

ANY = st.text(max_size=200)


def test_an_origin_is_scheme_host_and_port():
    assert h.origin("HTTPS://HuggingFace.co/api?x=http://other") == ("https", "huggingface.co", 443)
    assert h.origin("http://localhost:8080") == ("http", "localhost", 8080)
    assert h.origin("https://huggingface.co") != h.origin("http://huggingface.co")
    assert h.origin("https://huggingface.co:444") != h.origin("https://huggingface.co")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://x/y", "//x", "x", "", "http://", "https://me:secret@host/", "http://h:99999/", "http://[x"],
)
def test_what_is_no_address_of_the_web(url):
    with pytest.raises(ValueError, match=r".*"):
        h.origin(url)


def test_what_is_shown_of_an_address_holds_no_query_and_no_escape():
    assert h.shown("https://cdn/a b/c?Signature=secret#x") == "/a%20b/c"
    assert h.shown("https://h/%1b[31mred%0a") == "/%1B%5B31mred%0A"
    assert len(h.shown("https://h/" + "a" * 10_000)) <= 160


def test_content_range():
    assert h.content_range({"content-range": "bytes 5-9/10"}) == h.Extent(5, 10, 10)
    for bad in ("bytes 5-10/10", "bytes 9-5/20", "bytes */10", "bytes 0-1/*", "lines 0-1/2", "bytes -1-2/3", ""):
        assert h.content_range({"content-range": bad}) is None


def test_retry_after_in_seconds_or_as_a_date():
    assert h.retry_after({"retry-after": "7"}) == 7
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < h.retry_after({"retry-after": format_datetime(soon, usegmt=True)}) <= 90
    assert h.retry_after({"retry-after": format_datetime(soon - timedelta(days=1))}) == 0
    for bad in ("", "soon", "-5", "1e9", "99999999999999999999"):
        assert h.retry_after({"retry-after": bad}) is None


def test_the_rate_limit_as_the_hub_writes_it():
    given_ = {"ratelimit": '"api";r=489;t=189', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    assert h.rate_limit(given_) == h.RateLimit(489, 189, 500, 300)
    assert h.rate_limit({"ratelimit": '"api"; r=0; t=12'}) == h.RateLimit(0, 12, None, None)
    assert h.rate_limit({"ratelimit": "limit=100"}) is None
    assert h.rate_limit({}) is None


def test_the_next_page():
    base = "https://hub/api/models?a=1"
    link = '<https://hub/api/models?cursor=x&a=1>; rel="next"'
    assert h.next_link({"link": link}, base) == "https://hub/api/models?cursor=x&a=1"
    assert h.next_link({"link": f'<https://hub/first>; rel="prev", {link}'}, base) == "https://hub/api/models?cursor=x&a=1"
    assert h.next_link({"link": "</api/models?cursor=y>; rel=next"}, base) == "https://hub/api/models?cursor=y"
    assert h.next_link({"link": '<https://hub/x>; rel="prev"'}, base) is None
    assert h.next_link({}, base) is None


def test_an_entity_tag_without_its_quotes():
    assert h.etag({"etag": 'W/"abc"'}) == "abc"
    assert h.etag({"x-linked-etag": '"f00"'}, "x-linked-etag") == "f00"
    assert h.etag({"etag": '"a\x1b[2J"'}) is None
    assert h.etag({}) is None


@given(ANY | st.text(alphabet=string.digits + ' ;="rtqw<>,/-bytes', max_size=400))
def test_no_header_breaks_anything(value):
    names = ("content-length", "content-range", "etag", "retry-after", "ratelimit", "ratelimit-policy", "link")
    headers = dict.fromkeys(names, value)
    length, wait, limit = h.content_length(headers), h.retry_after(headers), h.rate_limit(headers)
    assert length is None or 0 <= length < 10**18
    assert wait is None or wait >= 0
    assert limit is None or all(n is None or 0 <= n < 10**9 for n in (limit.remaining, limit.reset, limit.quota, limit.window))
    extent = h.content_range(headers)
    assert extent is None or 0 <= extent.start < extent.stop <= extent.total
    h.etag(headers)
    try:
        assert h.shown(value).isascii()
    except ValueError:
        return
