"""A file by ranges: the right bytes whatever goes wrong on the way, few requests, and proof that they are the file's."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import AdapterError, HubAnswerError
from hubrank.hubs import ranged_files
from hubrank.hubs.protocol import Traffic
from hubrank.hubs.ranged_files import FIRST, GAP, RangedFile
from tests.hubs.quick import online, quick
from tests.standin import Fault, Repo, blob_sha1, digest, stand_in_hub

DATA = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(scope="module")
def running():
    with pytest.MonkeyPatch.context() as patch:
        online(patch)
        with stand_in_hub() as hub:
            yield hub


@pytest.fixture
def hub(running):
    running.repos = {}
    running.add(Repo("a/one", {"large.safetensors": DATA, "small.safetensors": DATA[:1000], "card.md": DATA[:500]}))
    running.fault = lambda method, path: None
    running.expires = 3600.0
    running.clear()
    return running


def opened(hub, name="large.safetensors", **options):
    repo = hub.repos["a/one"]
    options = {"revision": repo.sha, "traffic": Traffic(), **options}
    transport = options.pop("transport", None) or quick(hub.url)
    return RangedFile(transport, f"{hub.url}/a/one/resolve/{repo.sha}/{name}", **options)


def cdn_fault(*faults, start=0):
    """Spoil what the CDN answers, from the request of a number on."""
    seen, left = [0], list(faults)

    def fault(method, path):
        if not path.startswith("/cdn/"):
            return None
        seen[0] += 1
        return left.pop(0) if left and seen[0] > start else None

    return fault


def test_a_small_file_takes_one_request_and_is_checked(hub):
    traffic = Traffic()
    file = opened(hub, "small.safetensors", traffic=traffic)
    assert (file.size, file.hash) == (1000, f"sha256:{digest(DATA[:1000])}")
    assert file.read_range(0, 8) == DATA[:8]
    assert list(file.read_ranges([(5, 10), (900, 1000), (7, 7)])) == [DATA[5:10], DATA[900:1000], b""]
    assert traffic == Traffic(requests=1, bytes_read=1000, bytes_whole=1000)
    assert len(hub.seen) == 2  # the redirect is followed once


def test_a_file_of_the_repository_itself_has_a_git_hash(hub):
    file = opened(hub, "card.md")
    assert (file.size, file.hash) == (500, f"git:{blob_sha1(DATA[:500])}")


def test_neighbours_come_by_one_request_from_where_the_first_led(hub):
    traffic = Traffic()
    file = opened(hub, traffic=traffic)
    hub.clear()
    a, b = FIRST - 100, FIRST + 200_000
    ranges = [(10, 20), (a, a + 300), (b, b + 1000), (b + 1000 + GAP, b + 2000 + GAP), (2_900_000, 3_000_000)]
    assert list(file.read_ranges(ranges)) == [DATA[start:stop] for start, stop in ranges]
    assert [seen.headers["range"] for seen in hub.seen] == [f"bytes={FIRST}-{b + 1999 + GAP}", "bytes=2900000-2999999"]
    assert hub.requests == []  # the hub itself is not asked again
    assert traffic.requests == 3
    assert traffic.bytes_read == FIRST + (b + 2000 + GAP - FIRST) + 100_000 < traffic.bytes_whole == len(DATA)


def test_a_header_longer_than_the_first_bytes_is_read_once(hub):
    traffic = Traffic()
    file = opened(hub, traffic=traffic)
    assert file.read_range(8, FIRST + 5000) == DATA[8 : FIRST + 5000]
    assert file.read_range(FIRST + 100, FIRST + 200) == DATA[FIRST + 100 : FIRST + 200]
    assert list(file.read_ranges([(FIRST + 4000, FIRST + 6000)])) == [DATA[FIRST + 4000 : FIRST + 6000]]
    assert (traffic.requests, traffic.bytes_read) == (3, FIRST + 6000)


RANGES = st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(0, 400_000)), max_size=8)


@given(RANGES, st.booleans(), st.lists(st.sampled_from(["reset", "cut", "503", "whole", "stale", None]), max_size=6))
def test_any_ranges_in_any_order_are_what_the_file_holds(running, ranges, ascending, faults):
    running.repos = {"a/one": Repo("a/one", {"large.safetensors": DATA})}
    kinds = {
        "reset": Fault(cut=70_000, reset=True),
        "cut": Fault(cut=1000),
        "503": Fault(503),
        "whole": Fault(whole=True),
        "stale": Fault(403),
        None: None,
    }
    running.fault = cdn_fault(*(kinds[kind] for kind in faults), start=1)
    spans = [(start, min(start + length, len(DATA))) for start, length in ranges]
    spans = sorted(spans) if ascending else spans
    traffic = Traffic()
    file = opened(running, traffic=traffic)
    assert list(file.read_ranges(spans)) == [DATA[start:stop] for start, stop in spans]
    if ascending and not any(faults) and all(a[1] <= b[0] for a, b in pairwise(spans)):
        assert traffic.bytes_read <= traffic.bytes_whole == len(DATA)


def test_an_answer_that_breaks_off_is_taken_up_again_at_that_byte(hub):
    file = opened(hub)
    hub.clear()
    hub.fault = cdn_fault(Fault(cut=500_000, reset=True), Fault(cut=200_000))
    assert file.read_range(1_000_000, 2_000_000) == DATA[1_000_000:2_000_000]
    starts = [int(seen.headers["range"][6:].partition("-")[0]) for seen in hub.seen]
    assert starts[0] == 1_000_000
    assert starts == sorted(set(starts))
    assert len(starts) == 3
    assert starts[2] == starts[1] + 200_000


def test_a_redirect_out_of_date_is_asked_for_anew(hub):
    hub.expires = 0.2
    file = opened(hub)
    hub.fault = cdn_fault(Fault(cut=100_000, stall=0.25))
    hub.clear()
    assert file.read_range(1_000_000, 1_500_000) == DATA[1_000_000:1_500_000]
    assert len(hub.requests) >= 1
    assert {path.partition("?")[0] for _, path in hub.requests} == {
        f"/a/one/resolve/{hub.repos['a/one'].sha}/large.safetensors"
    }


def test_a_server_that_knows_no_ranges_is_read_once(hub):
    hub.fault = lambda method, path: Fault(whole=True)
    traffic = Traffic()
    file = opened(hub, traffic=traffic)
    assert list(file.read_ranges([(2_000_000, 2_100_000), (5, 9)])) == [DATA[2_000_000:2_100_000], DATA[5:9]]
    assert (traffic.requests, traffic.bytes_read) == (2, len(DATA))
    with pytest.raises(HubAnswerError) as caught:
        opened(hub, limit=1_000_000)
    assert caught.value.reason == "file too large"


@pytest.mark.parametrize("more", [{"X-Repo-Commit": "f" * 40}, {"X-Linked-Etag": f'"{"f" * 64}"'}], ids=["commit", "hash"])
def test_a_file_that_changes_while_it_is_read(hub, more):
    file = opened(hub)
    stale = cdn_fault(Fault(403))
    hub.fault = lambda method, path: stale(method, path) if path.startswith("/cdn/") else Fault(more=more)
    with pytest.raises(AdapterError) as caught:
        file.read_range(1_000_000, 1_100_000)
    assert (caught.value.reason, caught.value.lasting) == ("changed while read", False)


@pytest.mark.parametrize("more", [{"ETag": '"another"'}, {"Content-Range": "bytes 1000000-1099999/2999999"}])
def test_a_cdn_that_gives_another_file_than_before(hub, more):
    file = opened(hub)
    hub.fault = lambda method, path: Fault(more=more)
    with pytest.raises(HubAnswerError) as caught:
        file.read_range(1_000_000, 1_100_000)
    assert caught.value.reason == "changed while read"


@pytest.mark.parametrize(
    "more",
    [
        {"Content-Range": "bytes 0-99999/3000000"},
        {"Content-Range": "bytes 1000000-1099998/3000000"},
        {"Content-Range": "bytes 1000000-1199999/3000000"},
        {"Content-Range": None},
        {"Content-Length": "99999"},
    ],
)
def test_other_bytes_than_were_asked_for_are_never_taken(hub, more):
    file = opened(hub)
    hub.fault = lambda method, path: Fault(more=more) if path.startswith("/cdn/") else None
    with pytest.raises(HubAnswerError) as caught:
        file.read_range(1_000_000, 1_100_000)
    assert caught.value.reason in ("hub fault", "bad answer")
    hub.fault = cdn_fault(Fault(more=more))
    if more.get("Content-Range", "") is not None:
        assert file.read_range(1_000_000, 1_100_000) == DATA[1_000_000:1_100_000]


@pytest.mark.parametrize("name", ["small.safetensors", "card.md"])
def test_a_flipped_byte_is_fetched_again_and_refused_if_it_stays(hub, name):
    def flip(times):
        left = [Fault(flip=100)] * times
        sends = "/cdn/" if name.startswith("small") else "/resolve/"
        hub.fault = lambda method, path: left.pop() if left and sends in path else None

    flip(2)
    file = opened(hub, name)
    assert file.read_range(0, file.size) == hub.repos["a/one"].files[name]
    flip(9)
    with pytest.raises(AdapterError) as caught:
        opened(hub, name)
    assert (caught.value.reason, caught.value.lasting) == ("wrong hash", False)


def test_ranges_that_make_up_the_whole_file_are_checked_too(hub):
    pieces = [(0, FIRST + 10), (FIRST + 10, 2_000_000), (2_000_000, len(DATA))]
    assert b"".join(opened(hub).read_ranges(pieces)) == DATA
    file = opened(hub)
    hub.fault = lambda method, path: Fault(flip=1_000_000)
    with pytest.raises(AdapterError) as caught:
        list(file.read_ranges(pieces))
    assert caught.value.reason == "wrong hash"


def test_a_page_that_is_no_file_of_the_hub_is_refused(hub):
    hub.fault = lambda method, path: Fault.html()
    for name in ("card.md", "large.safetensors"):
        for whole in (False, True):
            with pytest.raises(HubAnswerError) as caught:
                opened(hub, name, whole=whole)
            assert caught.value.reason == "bad answer"
    hub.fault = lambda method, path: Fault.html() if path.startswith("/cdn/") else None
    with pytest.raises(HubAnswerError) as caught:
        opened(hub)
    assert caught.value.reason == "hub fault"  # the length is not what the hub says


@pytest.mark.parametrize("in_memory", [10**9, 1000])
def test_a_whole_file_is_kept_and_checked(hub, in_memory, monkeypatch):
    monkeypatch.setattr(ranged_files, "_IN_MEMORY", in_memory)
    traffic = Traffic()
    hub.fault = cdn_fault(Fault(cut=2_000_000, reset=True))
    file = opened(hub, whole=True, traffic=traffic)
    assert file.read_range(2_999_000, 3_000_000) == DATA[2_999_000:]
    assert list(file.read_ranges([(9, 12), (3, 5)])) == [DATA[9:12], DATA[3:5]]
    assert traffic.requests == 2
    assert traffic.bytes_read == traffic.bytes_whole == len(DATA)
    hub.fault = lambda method, path: Fault(flip=5)
    with pytest.raises(AdapterError, match="wrong hash"):
        opened(hub, whole=True)
    with pytest.raises(HubAnswerError, match="at most 1,000"):
        opened(hub, whole=True, limit=1000)
    del file
    gc.collect()  # a temporary file left open would warn here


def test_a_full_disk_is_said_so(hub, monkeypatch):
    full = SimpleNamespace(write=Mock(side_effect=OSError(28, "No space left on device")), close=lambda: None)
    monkeypatch.setattr(ranged_files, "_IN_MEMORY", 1000)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: full)
    with pytest.raises(AdapterError, match="No space left") as caught:
        opened(hub, whole=True)
    assert (caught.value.reason, caught.value.lasting) == ("no temporary space", False)


@pytest.mark.parametrize("name", ["empty.md", "empty.safetensors"])
def test_an_empty_file(hub, name):
    hub.repos["a/one"].files[name] = b""
    assert opened(hub, name).size == 0


def test_nothing_outside_the_file_is_asked_for(hub):
    file = opened(hub)
    hub.clear()
    for span in ((-1, 5), (5, 4), (0, len(DATA) + 1), (10**12, 10**12 + 1)):
        with pytest.raises(HubAnswerError, match="ends at byte"):
            list(file.read_ranges([span]))
    assert hub.seen == []


def test_a_long_run_never_lies_in_memory_as_a_whole(hub):
    hub.repos["a/one"].files["huge.safetensors"] = huge = DATA * 20
    file = opened(hub, "huge.safetensors")
    spans = [(at, at + 100_000) for at in range(0, len(huge), 100_000)]
    hub.clear()
    tracemalloc.start()
    total = sum(len(piece) for piece in file.read_ranges(spans))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == len(huge)
    assert peak < 3_000_000
    assert len(hub.seen) == 1
