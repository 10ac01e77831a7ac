"""The transport against a stand-in over real HTTP: every fault, every redirect, and where the token goes."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from hubrank.errors import HubAnswerError, HubError, HubStoppedError
from hubrank.hubs.budget import LONGEST_WAIT
from hubrank.hubs.http import Call, Transport
from hubrank.hubs.patience import Patience
from hubrank.hubs.protocol import Traffic
from tests.hubs.quick import TOKEN, Clock, online, quick
from tests.standin import Fault, Repo, stand_in_hub

DATA = bytes(range(256)) * 40


@pytest.fixture
def hub(monkeypatch):
    online(monkeypatch)
    with stand_in_hub() as running:
        running.add(Repo("a/one", {"config.json": b'{"a": 1}', "weights.bin": DATA}))
        yield running


def once(*faults):
    """Spoil the first requests, one after the other, then none."""
    left = list(faults)
    return lambda method, path: left.pop(0) if left else None


def small(hub):
    return f"{hub.url}/a/one/resolve/main/config.json"


def large(hub):
    return f"{hub.url}/a/one/resolve/main/weights.bin"


FAULTS = {
    "429": Fault.busy(3),
    "429 without a word": Fault.busy(),
    "408": Fault(408),
    "500": Fault(500),
    "503 with a wait": Fault.busy(2, status=503),
    "520": Fault(520),
    "stall": Fault(stall=0.6),
    "reset before the body": Fault(cut=0, reset=True),
    "reset in the body": Fault(cut=3, reset=True),
    "short body": Fault(cut=4),
    "longer than said": Fault(longer=5),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["hub", "cdn"])
def test_what_may_pass_is_tried_again(hub, fault, where):
    left = [FAULTS[fault]] * 2
    hub.fault = lambda method, path: left.pop() if left and path.startswith("/cdn/") == (where == "cdn") else None
    url, expected = (large(hub), DATA) if where == "cdn" else (small(hub), b'{"a": 1}')
    traffic = Traffic()
    assert quick(hub.url).get(url, limit=10**6, traffic=traffic).body == expected
    assert not left
    assert traffic.requests == 3
    assert traffic.bytes_read >= len(expected)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_pass_ends_after_a_few_tries(hub, fault):
    hub.fault = lambda method, path: FAULTS[fault]
    clock = Clock()
    with pytest.raises(HubAnswerError) as caught:
        quick(hub.url, clock, patience=Patience(tries=3, read=0.3)).get(small(hub), limit=100)
    assert caught.value.reason == ("rate limited" if "429" in fault else "hub fault")
    assert "/a/one/resolve/main/config.json" in str(caught.value)
    assert len(hub.requests) == 3
    assert len(clock.waits) >= 2


def test_the_wait_grows_and_is_random(hub):
    hub.fault = lambda method, path: Fault(500)
    clock = Clock()
    with pytest.raises(HubAnswerError, match="status 500"):
        quick(hub.url, clock).get(small(hub), limit=100)
    assert len(clock.waits) == 5
    for i, wait in enumerate(clock.waits):
        assert 0.25 * 2**i <= wait <= 0.5 * 2**i
    assert len(set(clock.waits)) == 5


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_kept_to(hub, date):
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=42), usegmt=True)
    hub.fault = once(Fault.busy(then if date else 42))
    clock = Clock()
    quick(hub.url, clock).get(small(hub), limit=100)
    assert 39 <= sum(clock.waits) <= 45


@pytest.mark.parametrize("seconds", ["999999999", "99999999999999999999999", format_datetime(datetime(2999, 1, 1, tzinfo=UTC))])
@pytest.mark.parametrize("status", [429, 503])
def test_no_wait_is_longer_than_the_cap(hub, seconds, status):
    hub.fault = lambda method, path: Fault.busy(seconds, status)
    clock = Clock()
    with pytest.raises(HubAnswerError):
        quick(hub.url, clock).get(small(hub), limit=100)
    assert sum(clock.waits) <= LONGEST_WAIT + 60
    assert len(hub.requests) <= 6


def test_the_rate_limit_is_kept_before_the_hub_has_to_refuse(hub):
    hub.limits = {"resolvers": (3, 1000.0)}
    clock = Clock()
    transport = quick(hub.url, clock)
    for _ in range(3):
        transport.get(small(hub), limit=100)
    assert clock.waits == []
    hub.limits = {}
    transport.get(small(hub), limit=100)  # the window of five minutes, at most, is waited for
    assert LONGEST_WAIT <= sum(clock.waits) <= LONGEST_WAIT + 1
    assert len(hub.requests) == 4


def test_a_call_that_waited_for_its_turn_too_long_says_why(hub):
    never = SimpleNamespace(acquire=lambda host, kind: 100.0)
    with pytest.raises(HubAnswerError, match="HF_TOKEN"):
        quick(hub.url, budget=never).get(small(hub), limit=100)
    assert hub.requests == []


REFUSALS = {
    "not found": ("/b/none/resolve/main/x", "not found"),
    "no such revision": ("/a/one/resolve/none/config.json", "not found"),
    "no such file": ("/a/one/resolve/main/none.json", "file missing"),
    "gated": ("/a/gated/resolve/main/x", "gated"),
    "private": ("/a/private/resolve/main/x", "not found"),
    "disabled": ("/a/disabled/resolve/main/x", "disabled"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_not_tried_again(hub, case):
    for name in ("gated", "private", "disabled"):
        hub.add(Repo(f"a/{name}", {"x": b""}, **{name: True}))
    path, reason = REFUSALS[case]
    with pytest.raises(HubAnswerError) as caught:
        quick(hub.url).get(hub.url + path, limit=100)
    assert caught.value.reason == reason
    assert len(hub.requests) == 1
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.status, str(again)) == (reason, caught.value.status, str(caught.value))


def test_a_body_over_the_limit_is_not_read(hub):
    traffic = Traffic()
    with pytest.raises(HubAnswerError, match="at most 100") as caught:
        quick(hub.url).get(large(hub), limit=100, traffic=traffic)
    assert caught.value.reason == "file too large"
    assert (traffic.bytes_read, traffic.requests) == (0, 1)


def test_a_body_of_no_stated_length_is_read_up_to_the_limit(hub):
    hub.fault = lambda method, path: Fault(more={"Content-Length": None, "Connection": "close"}, cut=10**9)
    with pytest.raises(HubAnswerError, match="at most 5 "):
        quick(hub.url).get(small(hub), limit=5)
    assert quick(hub.url).get(small(hub), limit=50).body == b'{"a": 1}'


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(hub):
    import gzip

    bomb = gzip.compress(bytes(50_000_000))
    hub.fault = lambda method, path: Fault(200, {"Content-Encoding": "gzip"}, bomb)
    with pytest.raises(HubAnswerError, match="at most 1,000,000"):
        quick(hub.url).json(Call(f"{hub.url}/api/models", 10**6, packed=True))


BROKEN = {
    "html": (Fault.html(), "a web page"),
    "cut": (Fault(200, body=b'[{"id": '), "not JSON"),
    "empty": (Fault(200), "not JSON"),
}
BROKEN["deep"] = (Fault(200, body=b"[" * 100_000), "not JSON")


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_json_is_said_so(hub, case):
    fault, says = BROKEN[case]
    hub.fault = lambda method, path: fault
    with pytest.raises(HubAnswerError, match=says) as caught:
        quick(hub.url).json(Call(f"{hub.url}/api/models?secret=1", 10**6))
    assert caught.value.reason == "bad answer"
    assert "/api/models " in str(caught.value)


REDIRECTS = {
    "a circle": ["/loop/1"],
    "to itself": ["SELF"],
    "too many": [f"/hop/{i}" for i in range(8)],
    "to a file": ["file:///etc/passwd"],
    "to another scheme": ["ftp://127.0.0.1/x"],
    "with a name": ["http://user:secret@127.0.0.1/x"],
    "to nothing": ["http://"],
    "to nonsense": ["http://[::1"],
}


@pytest.mark.parametrize("case", REDIRECTS)
def test_redirects_that_are_not_followed(hub, case):
    targets = iter(REDIRECTS[case])

    def fault(method, path):
        target = next(targets, None)
        return Fault(302, {"Location": path if target == "SELF" else target}) if target else None

    hub.fault = fault
    with pytest.raises(HubAnswerError) as caught:
        quick(hub.url, token=TOKEN).get(small(hub), limit=100)
    assert caught.value.reason == "bad answer"
    assert "secret" not in str(caught.value)
    assert len(hub.requests) <= 7


def test_five_redirects_are_followed_and_count_as_one_request(hub):
    left = [Fault(302, {"Location": f"/hop/{i}"}) for i in range(4)] + [
        Fault(307, {"Location": "/a/one/resolve/main/config.json"})
    ]
    hub.fault = lambda method, path: left.pop(0) if left else None
    traffic = Traffic()
    assert quick(hub.url).get(f"{hub.url}/start", limit=100, traffic=traffic).body == b'{"a": 1}'
    assert traffic.requests == 1
    assert len(hub.requests) == 6


def test_no_redirect_leads_from_https_to_http():
    from hubrank.hubs.http import _target

    call = Call("https://hub/x", 1)
    assert _target("https://hub/x", "https://cdn/y", call) == "https://cdn/y"
    assert _target("https://hub/x", "//cdn/y", call) == "https://cdn/y"
    with pytest.raises(HubAnswerError, match="https to http"):
        _target("https://hub/x", "http://hub/y", call)


def test_what_is_posted_stays_with_the_server(hub):
    hub.fault = lambda method, path: Fault(307, {"Location": f"{hub.cdn_url}/x"})
    with pytest.raises(HubAnswerError, match="another server"):
        quick(hub.url).json(Call(f"{hub.url}/api/models/a/one/paths-info/main", 100, post=b"{}"))
    assert hub.cdn_requests() == []


def test_the_token_goes_to_the_hub_alone(hub):
    transport = quick(hub.url, token=TOKEN)
    location = transport.get(large(hub), limit=10**6).url
    assert location.startswith(hub.cdn_url)
    transport.get(location, limit=10**6)
    transport.get(small(hub), limit=100)
    sent = {seen.server: seen.headers.get("authorization") for seen in hub.seen}
    assert sent == {"hub": f"Bearer {TOKEN}", "cdn": None}


def test_a_netrc_and_cookies_say_nothing(hub, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub.fault = lambda method, path: Fault(more={"Set-Cookie": "track=me; Path=/"})
    transport = quick(None)
    for _ in range(2):
        transport.get(large(hub), limit=10**6)
    assert {seen.headers.get("authorization") for seen in hub.seen} == {None}
    assert {seen.headers.get("cookie") for seen in hub.seen} == {None}


def test_the_token_is_never_shown(hub, caplog):
    transport = quick(hub.url, token=TOKEN, patience=Patience(tries=2, read=0.3))
    shown = [repr(transport), str(vars(transport))]
    with caplog.at_level(logging.DEBUG):
        transport.get(large(hub), limit=10**6)
        echo = {"X-Error-Message": f"Bearer {TOKEN}", "Location": f"http://{TOKEN}@x/", "X-Error-Code": TOKEN}
        for status in (302, 400, 401, 403, 404, 418, 429, 500):
            hub.fault = lambda method, path, status=status: Fault(status, echo, TOKEN.encode())
            with pytest.raises(HubError) as caught:
                transport.get(small(hub), limit=1000)
            shown += traceback.format_exception(caught.value)
        hub.fault = lambda method, path: Fault(200, echo, TOKEN.encode())
        with pytest.raises(HubError) as caught:
            transport.json(Call(small(hub), 1000))
        shown += traceback.format_exception(caught.value)
    assert TOKEN not in "".join(shown) + caplog.text


def test_the_user_agent_names_us(hub):
    quick(hub.url).get(small(hub), limit=100)
    assert hub.seen[0].headers["user-agent"].startswith("hubrank/")
    assert "huggingface_hub" in hub.seen[0].headers["user-agent"] or "hf_hub" in hub.seen[0].headers["user-agent"]


def test_what_huggingface_hub_is_told_counts(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    Transport.for_hub().get(small(hub), limit=100)
    assert hub.seen[-1].headers["authorization"] == f"Bearer {TOKEN}"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")
    assert not Transport.for_hub().has_token
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.clear()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        Transport.for_hub().get(small(hub), limit=100)
    assert hub.requests == []


def test_an_endpoint_that_is_none(monkeypatch):
    with pytest.raises(HubError, match="HF_ENDPOINT"):
        Transport("no address")


def test_connections_are_used_again(hub):
    transport = quick(hub.url)
    for _ in range(5):
        transport.get(large(hub), limit=10**6)
        with pytest.raises(HubAnswerError):
            transport.get(f"{hub.url}/a/one/resolve/main/none", limit=100)
    assert hub.connections == 2  # one to each server


def test_many_threads_share_one(hub):
    transport, found = quick(hub.url), []

    def ask():
        found.extend(transport.get(large(hub), limit=10**6).body == DATA for _ in range(5))
        transport.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40
    assert hub.connections <= 16


def test_a_copy_works_in_another_process(hub):
    transport = Transport(hub.url, token=TOKEN)
    transport.get(small(hub), limit=100)
    copy = pickle.loads(pickle.dumps(transport))
    assert copy.get(small(hub), limit=100).body == b'{"a": 1}'
    assert hub.seen[-1].headers["authorization"] == f"Bearer {TOKEN}"
    transport.stop()
    assert copy.get(small(hub), limit=100).body == b'{"a": 1}'


@pytest.mark.parametrize("fault", [Fault.busy(200), Fault(stall=20), Fault(longer=1000)], ids=["waiting", "stalled", "reading"])
def test_stop_ends_waits_and_reads_within_moments(hub, fault):
    hub.fault = lambda method, path: fault
    if fault.longer:  # the connection stays open with nothing coming
        hub.fault = lambda method, path: Fault(200, {"Content-Length": "1000"}, b"x")
    transport, ended = Transport(hub.url), []

    def ask():
        try:
            transport.get(small(hub), limit=10_000)
        except HubError as error:
            ended.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    while not hub.seen:
        time.sleep(0.01)
    time.sleep(0.1)
    transport.stop()
    thread.join(2)
    assert not thread.is_alive()
    assert isinstance(ended[0], HubStoppedError)
    count = len(hub.seen)
    with pytest.raises(HubStoppedError):
        transport.get(small(hub), limit=100)
    assert len(hub.seen) == count


def test_a_server_that_cannot_be_reached_ends_soon(monkeypatch):
    online(monkeypatch)
    clock = Clock()
    transport = quick("http://127.0.0.1:1", clock)
    for _ in range(3):
        with pytest.raises(HubAnswerError, match="did not answer"):
            transport.get("http://127.0.0.1:1/x", limit=1)
    assert sum(clock.waits) < 10
    clock.waits.clear()
    for _ in range(10_000):
        with pytest.raises(HubError, match="however often"):
            transport.get("http://127.0.0.1:1/x", limit=1)
    assert clock.waits == []
    clock.now += 61
    with pytest.raises(HubAnswerError):  # after a minute it is tried again
        transport.get("http://127.0.0.1:1/x", limit=1)


def test_a_server_that_only_fails_ends_after_twelve_calls(hub):
    hub.fault = lambda method, path: Fault(503)
    transport = quick(hub.url, patience=Patience(tries=2))
    for _ in range(12):
        with pytest.raises(HubAnswerError, match="503"):
            transport.get(small(hub), limit=100)
    count = len(hub.requests)
    with pytest.raises(HubError, match="however often"):
        transport.get(small(hub), limit=100)
    assert len(hub.requests) == count


def test_bad_files_among_good_ones_never_end_it(hub):
    hub.fault = lambda method, path: Fault(503) if "config" in path else None
    transport = quick(hub.url, patience=Patience(tries=2))
    for _ in range(20):
        with pytest.raises(HubAnswerError, match="503"):
            transport.get(small(hub), limit=100)
        assert transport.get(large(hub), limit=10**6).body == DATA


def test_an_answer_that_trickles_is_given_up(hub, monkeypatch):
    monkeypatch.setattr("hubrank.hubs.replies._SLOW_AFTER", 0.2)
    hub.bandwidth = 2000.0
    hub.repos["a/one"].files["config.json"] = bytes(3000)
    with pytest.raises(HubAnswerError, match="too slowly"):
        Transport(hub.url, patience=Patience(tries=1)).get(small(hub), limit=10**6)
