"""The archived index of zip files, over real HTTP: both layouts, every version, and whatever strangers put there."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import socket
import stat
import struct
import time
import zipfile

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import AdapterError, HubAnswerError, HubError
from hubrank.hubs.addresses import Addresses
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Listing, Query
from hubrank.hubs.zip_index import parse_entry
from hubrank.hubs.zip_members import AdapterZip
from hubrank.hubs.zips import ZipsHub
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.builders import dense
from tests.hubs.archive import Answer, dist, entry, file_entry, files, pack, server, weights, write_checkout

CANONICAL = "google-bert/bert-base-uncased"


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


@pytest.fixture
def web():
    with server() as running:
        yield running


def put_zip(web, name: str, seed: int = 0, members: dict[str, bytes] | None = None, **kind) -> dict:
    data = pack(members or files(seed, **kind))
    return file_entry(web.put(f"/{name}.zip", data), data)


def publish(web, entries) -> str:
    """A dist/v2 on the server; its address."""
    for path, data in dist(entries).items():
        web.put(f"/dist/v2/{path}", data)
    return f"{web.url}/dist/v2"


def sync(hub, tmp_path, **query):
    with Zoo(tmp_path / "zoo", create=True) as zoo:
        return sync_hubs(zoo, [hub], Query(**query)), zoo.sources()


def local(root) -> ZipsHub:
    """A checkout whose zip files lie on this machine too, which no checkout of a stranger may claim."""
    hub = ZipsHub(root)
    hub._transport._permit = Addresses(loopback=True).check
    return hub


def fault(hub: ZipsHub, reason: str) -> AdapterError:
    """What comes of reading the only listing."""
    (listing,) = hub.discover(Query())
    with pytest.raises(AdapterError) as caught:
        hub.open(listing).read("adapter_config.json", limit=10**6)
    assert caught.value.reason == reason, caught.value
    return caught.value


# What is listed


def test_both_layouts_list_the_same(web, tmp_path):
    entries = {
        "ukp/en_wiki": entry(
            {"nd": put_zip(web, "nd"), "wd": put_zip(web, "wd", 1)}, type="text_lang", task="en", subtask="wiki"
        ),
        "ada/nli.v2": entry({"1": put_zip(web, "nli", 2)}, task="nli", subtask="multinli", model_name="facebook/bart-base"),
    }
    address = publish(web, entries)
    write_checkout(tmp_path / "hub", entries)
    for path, data in dist(entries).items():
        file = tmp_path / "copy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    hubs = ZipsHub(tmp_path / "hub"), ZipsHub(tmp_path / "copy"), ZipsHub(address)
    keys = [sorted((one.repo, one.branch or "", one.revision, one.location) for one in hub.discover(Query())) for hub in hubs]
    assert keys[0] == keys[1] == keys[2]
    assert [key[:2] for key in keys[0]] == [("ada/nli.v2", ""), ("ukp/en_wiki", ""), ("ukp/en_wiki", "wd")]
    assert [hub.name for hub in hubs] == [f"zips:{tmp_path}/hub", f"zips:{tmp_path}/copy", f"zips:{address}"]
    bart, english, _ = sorted(hubs[0].discover(Query()), key=lambda listing: listing.repo)
    assert bart.card["base_model"] == "facebook/bart-base"
    assert bart.card["tags"][:3] == ["adapter-transformers", "adapterhub:nli/multinli", "pfeiffer"]
    assert english.card["language"] == ["en"]
    assert set(english.files) == {"adapter_config.json", "pytorch_adapter.bin"}


def test_a_whole_checkout_has_its_yaml_read(web, tmp_path):
    entries = {"ukp/a": entry({"1": put_zip(web, "a")})}
    write_checkout(tmp_path, entries)
    for path, data in dist({"ukp/a": entry({"1": put_zip(web, "b", 1)})}).items():
        file = tmp_path / "dist" / "v2" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (listing,) = ZipsHub(tmp_path).discover(Query())
    assert "/a.zip#" in listing.location
    for file in (tmp_path / "adapters").rglob("*.yaml"):
        file.unlink()
    (listing,) = ZipsHub(tmp_path).discover(Query())
    assert "/b.zip#" in listing.location


@pytest.mark.parametrize(
    ("query", "repos"),
    [
        ({}, ["ada/nli", "ukp/en", "ukp/sst"]),
        ({"tasks": ("nli",)}, ["ada/nli"]),
        ({"tasks": ("nli/multinli", "sentiment")}, ["ada/nli", "ukp/sst"]),
        ({"tasks": ("nli/rte",)}, []),
        ({"languages": ("en",)}, ["ukp/en"]),
        ({"authors": ("ukp",)}, ["ukp/en", "ukp/sst"]),
        ({"bases": ("gpt2", "roberta-base")}, ["ukp/sst"]),
        ({"licenses": ("mit",)}, []),
        ({"limit": 2}, ["ada/nli", "ukp/en"]),
        ({"limit": 1, "authors": ("ukp",)}, ["ukp/en"]),
        ({"min_downloads": 10}, ["ada/nli", "ukp/en", "ukp/sst"]),
    ],
)
def test_a_query_leaves_out_what_the_index_says_does_not_fit(web, tmp_path, query, repos):
    one = put_zip(web, "one")
    entries = {
        "ada/nli": entry({"1": one}, task="nli", subtask="multinli"),
        "ukp/en": entry({"nd": one, "wd": one}, type="text_lang", task="en", subtask="wiki"),
        "ukp/sst": entry({"1": one}, model_name="gpt2"),
    }
    for hub in (ZipsHub(write_checkout(tmp_path, entries)), ZipsHub(publish(web, entries))):
        assert list(dict.fromkeys(listing.repo for listing in hub.discover(Query(**query)))) == repos


def test_what_has_moved_to_the_hub_is_left_out(web, tmp_path):
    entries = {"ukp/one.json": entry({"1": put_zip(web, "a")}), "ukp/two": entry({"1": put_zip(web, "b")})}
    hub = ZipsHub(write_checkout(tmp_path, entries), moved=lambda traffic: frozenset({"one", "three"}))
    assert [listing.repo for listing in hub.discover(Query())] == ["ukp/two"]


# Reading


@pytest.mark.parametrize("style", ["adapters", "adapter-transformers 1"])
@pytest.mark.parametrize("houlsby", [False, True])
def test_an_adapter_is_read_to_its_signature(web, tmp_path, style, houlsby):
    kind = {"style": style, "houlsby": houlsby}
    address = publish(web, {"ukp/sst": entry({"1": {**put_zip(web, "sst", 5, **kind), "score": 91.5}})})
    report, (source,) = sync(ZipsHub(address), tmp_path)
    assert (report.added, report.skipped) == (1, {})
    assert (source.name, source.base, source.method) == ("ukp/sst", CANONICAL, "bottleneck")
    assert source.variant == ("double_seq_bn" if houlsby else "seq_bn")
    assert (source.task, source.card.metrics[0].value, source.hub) == ("sentiment/sst-2", 91.5, f"zips:{address}")
    assert "pfeiffer" not in source.card.tags  # dist/v2 has the architecture written out
    with Zoo(tmp_path / "zoo") as zoo:
        signature = zoo.signature(source)
    tensors = weights(5, houlsby=houlsby)
    maps = [factors for factors in signature.factors if not factors.site.module.endswith(".shift")]
    assert len(maps) == (4 if houlsby else 2)
    for factors in maps:
        prefix = f"bert.encoder.layer.{factors.site.layer}.{factors.site.module.removesuffix('.adapters')}.adapters.sst-2"
        up, down = (tensors[f"{prefix}.{part}.weight"].numpy() for part in ("adapter_up", "adapter_down.0"))
        np.testing.assert_allclose(dense(factors), up @ down, atol=0.05 * np.abs(up @ down).max())


def test_the_same_files_in_a_folder_are_the_same_adapter(web, tmp_path):
    members = files(3, houlsby=True)
    folder = tmp_path / "plain" / "ukp" / "sst"
    folder.mkdir(parents=True)
    for name, data in members.items():
        (folder / name).write_bytes(data)
    address = publish(web, {"ukp/sst": entry({"1": put_zip(web, "sst", members=members)})})
    with Zoo(tmp_path / "zoo", create=True) as zoo:
        sync_hubs(zoo, [ZipsHub(address), FolderHub(tmp_path / "plain")], Query())
        one, two = (zoo.signature(source) for source in zoo.sources())
    assert one.sites == two.sites
    for a, b in zip(one.factors, two.factors, strict=True):
        np.testing.assert_array_equal(dense(a), dense(b))


def test_every_version_is_a_source_and_a_second_sync_asks_for_the_list_alone(web, tmp_path):
    versions = {name: put_zip(web, name, seed) for seed, name in enumerate(("nd", "wd", "wd_150k"))}
    address = publish(web, {"ukp/a": entry(versions, "wd"), "ukp/b": entry({"1": put_zip(web, "b", 9)})})
    report, sources = sync(ZipsHub(address), tmp_path)
    assert [source.name for source in sources] == ["ukp/a", "ukp/a@nd", "ukp/a@wd_150k", "ukp/b"]
    assert (report.added, report.requests) == (4, 3 + 4)  # the list and two entries; four zip files
    assert report.bytes_read >= report.bytes_whole == sum(len(web.pages[f"/{name}.zip"]) for name in (*versions, "b"))
    web.asked.clear()
    report, kept = sync(ZipsHub(address), tmp_path)
    assert (report.unchanged, report.removed, report.requests, kept) == (2, 0, 1, sources)
    assert web.asked == ["/dist/v2/all.json"]


def test_an_unchanged_checkout_costs_no_request(web, tmp_path):
    hub = write_checkout(tmp_path / "hub", {"ukp/a": entry({"1": put_zip(web, "a"), "2": put_zip(web, "b", 1)})})
    sync(local(hub), tmp_path)
    web.asked.clear()
    report, _ = sync(local(hub), tmp_path)
    assert (report.unchanged, report.requests, web.asked) == (2, 0, [])


def test_a_new_zip_file_is_read_again_and_what_left_the_index_is_gone(web, tmp_path):
    kept, gone = entry({"1": put_zip(web, "kept", 1)}), entry({"1": put_zip(web, "gone", 2)})
    sync(ZipsHub(publish(web, {"ukp/kept": kept, "ukp/gone": gone})), tmp_path)
    report, sources = sync(ZipsHub(publish(web, {"ukp/kept": entry({"1": put_zip(web, "kept", 3)})})), tmp_path)
    assert (report.updated, report.removed, [source.name for source in sources]) == (1, 1, ["ukp/kept"])


def test_no_token_goes_anywhere(web, tmp_path):
    with server() as other:
        moved = other.put("/b.zip", pack(files(1)))
        web.put("/b.zip", Answer(302, headers={"Location": moved}))
        entries = {
            "ukp/a": entry({"1": put_zip(web, "a")}),
            "ukp/b": entry({"1": {**file_entry(f"{web.url}/b.zip", other.pages["/b.zip"])}}),
        }
        report, _ = sync(ZipsHub(publish(web, entries)), tmp_path)
        assert report.added == 2
        assert len(web.headers) == 5
        assert len(other.headers) == 1
        for headers in web.headers + other.headers:
            assert not {"authorization", "cookie"} & set(headers)
            assert "hf_secret" not in str(headers)


def test_a_zip_file_is_fetched_once_and_only_when_a_file_is_asked_for(web):
    address = publish(web, {"ukp/a": entry({"1": put_zip(web, "a")})})
    hub = ZipsHub(address)
    (listing,) = hub.discover(Query())
    bundle = hub.open(listing)
    hashes = bundle.current_hashes(["pytorch_adapter.bin", "none"])
    assert hashes == {"pytorch_adapter.bin": f"zip+sha256:{hashlib.sha256(web.pages['/a.zip']).hexdigest()}"}
    assert (bundle.hashes, bundle.traffic.requests) == ({}, 0)
    whole = files()["pytorch_adapter.bin"]
    assert bundle.size("pytorch_adapter.bin") == len(whole)
    assert bundle.read_ranges("pytorch_adapter.bin", [(5, 9), (0, 2)]) == [whole[5:9], whole[:2]]
    assert bundle.hashes == hashes
    assert bundle.traffic.requests == 1
    with pytest.raises(AdapterError, match="file truncated"):
        bundle.read_range("pytorch_adapter.bin", 0, len(whole) + 1)
    with pytest.raises(AdapterError, match="file too large"):
        bundle.read("pytorch_adapter.bin", limit=5)
    with pytest.raises(AdapterError, match="file missing"):
        bundle.size("../pytorch_adapter.bin")


def test_a_folder_packed_as_a_whole_is_read_and_shadow_files_are_not(web, tmp_path):
    members = {f"sst-2/{name}": data for name, data in files().items()}
    members["__MACOSX/sst-2/adapter_config.json"] = b"\0\5\x16\7"
    report, _ = sync(ZipsHub(publish(web, {"ukp/a": entry({"1": put_zip(web, "a", members=members)})})), tmp_path)
    assert report.added == 1


def test_a_hub_can_be_sent_to_another_process(web):
    hub = ZipsHub(publish(web, {"ukp/a": entry({"1": put_zip(web, "a")})}))
    (listing,) = hub.discover(Query())
    copy = pickle.loads(pickle.dumps(hub))
    assert copy.open(listing).read("head_config.json", limit=100) == files()["head_config.json"]


# Faults


def test_a_changed_zip_file_is_refused_and_not_for_good(web, tmp_path):
    version = put_zip(web, "a")
    for name, digits in (("sha256", 64), ("sha1", 40)):
        hub = ZipsHub(publish(web, {"ukp/a": entry({"1": {**version, name: "0" * digits}})}))
        assert name in fault(hub, "wrong hash").detail
    address = publish(web, {"ukp/a": entry({"1": version})})
    good, web.pages["/a.zip"] = web.pages["/a.zip"], pack(files(8))
    report, _ = sync(ZipsHub(address), tmp_path)
    assert report.skipped == {"wrong hash": 1}
    web.pages["/a.zip"] = good
    assert sync(ZipsHub(address), tmp_path)[0].added == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(body=b"<!doctype html><html>moved</html>", headers={"Content-Type": "text/html"}), "not a zip file"),
        (Answer(body=b""), "not a zip file"),
        (Answer(404), "not found"),
        (Answer(410), "not found"),
        (Answer(403), "refused"),
        (Answer(500), "hub fault"),
        (Answer(body=b"PK\3\4", length=1 << 40), "file too large"),
        (Answer(body=b"PK\3\4 cut short", length=100), "hub fault"),
        (Answer(302, headers={"Location": "/a.zip"}), "bad answer"),
        (Answer(body=gzip.compress(bytes(1 << 20)), headers={"Content-Encoding": "gzip"}), "bad answer"),
        (Answer(302, headers={"Location": "http://169.254.169.254/latest/meta-data"}), "unsafe address"),
        (Answer(302, headers={"Location": "file:///etc/passwd"}), "bad answer"),
    ],
)
def test_a_server_that_gives_something_else(web, tmp_path, answer, reason):
    version = put_zip(web, "a")
    address = publish(web, {"ukp/a": entry({"1": version}), "ukp/b": entry({"1": put_zip(web, "b", 1)})})
    web.put("/a.zip", answer)
    report, sources = sync(ZipsHub(address), tmp_path)
    assert (report.skipped, [source.name for source in sources]) == ({reason: 1}, ["ukp/b"])
    web.asked.clear()
    assert sync(ZipsHub(address), tmp_path)[0].skipped == {reason: 1}
    assert "/a.zip" in web.asked  # it is tried again the next time


def test_a_dead_server_costs_little_and_only_what_lies_there(web, tmp_path):
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{refusing.getsockname()[1]}"
        lost = {f"ukp/lost{i:02}": entry({"1": file_entry(f"{dead}/{i}.zip", b"")}) for i in range(40)}
        address = publish(web, {**lost, "ukp/a": entry({"1": put_zip(web, "a")})})
        report, sources = sync(ZipsHub(address), tmp_path)
    assert (report.skipped, [source.name for source in sources]) == ({"hub fault": 40}, ["ukp/a"])
    assert report.requests == 1 + 41 + 2 + 1  # the list, the entries, two tries of the dead server, one zip file


def test_a_server_that_never_ends_is_given_up(web, monkeypatch):
    clock = iter(range(0, 10**6, 400))
    monkeypatch.setattr("hubrank.hubs.zips.time.monotonic", lambda: float(next(clock)))
    hub = ZipsHub(publish(web, {"ukp/a": entry({"1": put_zip(web, "a", members={"x": os.urandom(3 << 20)})})}))
    assert "too slowly" in fault(hub, "hub fault").detail


def test_a_full_disk_is_said_and_nothing_else_is_lost(web, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    address = publish(web, {"ukp/a": entry({"1": put_zip(web, "a")})})
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.SpooledTemporaryFile.write", full)
        report, _ = sync(ZipsHub(address), tmp_path)
    assert report.skipped == {"no temporary space": 1}
    assert sync(ZipsHub(address), tmp_path)[0].added == 1


def test_offline_nothing_is_asked(web, tmp_path, monkeypatch):
    hub = write_checkout(tmp_path / "hub", {"ukp/a": entry({"1": put_zip(web, "a")})})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        sync(local(hub), tmp_path)
    assert web.asked == []


@pytest.mark.parametrize(
    "page",
    [b"<html>", b"", b"{}", b'{"a": 1}', b"[" * 100_000, b"\xff\xfe", Answer(404), Answer(403)],
)
def test_an_address_without_an_index(web, page):
    web.put("/all.json", page)
    with pytest.raises(HubError):
        list(ZipsHub(web.url).discover(Query()))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://example.org/dist/v2", "https"),
        ("https://user:secret@example.org/dist/v2", "not an address"),
        ("https://", "not an address"),
        ("https://example.org/?x=1", "all.json"),
    ],
)
def test_an_address_that_is_not_asked(address, says):
    with pytest.raises(HubError, match=says):
        ZipsHub(address)


def test_a_folder_without_an_index(tmp_path):
    (tmp_path / "adapters" / "ukp").mkdir(parents=True)
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(HubError, match=r"no index of AdapterHub there"):
            ZipsHub(root)


# Hostile indexes


DEEP = "files: " + "[" * 100_000
BOMB = "a: &a [x]\n" + "".join(f"b{i}: &b{i} [{','.join(['*a' if i == 0 else f'*b{i - 1}'] * 9)}]\n" for i in range(30))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "[1, 2]",
        DEEP,
        BOMB,
        "!!python/object/apply:os.system ['touch hacked']",
        "a: !!int ''",
        "files: &f [*f]\ntask: a\nsubtask: b\nmodel_name: c\ndefault_version: '1'",
        "\x00",
        "x" * 300_000,
    ],
)
def test_yaml_that_is_malformed_or_means_harm_is_counted_and_costs_nothing(web, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    hub = write_checkout(tmp_path / "hub", {"ukp/good": entry({"1": put_zip(web, "a")})})
    (hub / "adapters" / "ukp" / "bad.yaml").write_text(text, "utf-8")
    started = time.thread_time()
    report, _ = sync(local(hub), tmp_path)
    assert time.thread_time() - started < 20
    assert (report.added, report.skipped) == (1, {"bad index entry": 1})
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://example.org/a.zip"},
        {"url": "file:///etc/passwd"},
        {"url": "https://user@example.org/a.zip"},
        {"url": "https://example.org/a.zip\r\nX-Evil: 1"},
        {"url": "https://example.org:99999/a.zip"},
        {"url": "https://"},
        {"url": 5},
        {"url": ["https://example.org/a.zip"]},
        {"url": None},
        {"sha256": "no hash"},
        {"sha256": 12},
        {"sha1": "0" * 39},
    ],
)
def test_a_version_that_cannot_be_fetched_or_checked(web, tmp_path, change):
    version = {**put_zip(web, "a"), **change}
    hub = local(write_checkout(tmp_path, {"ukp/a": entry({"1": version})}))
    fault(hub, "bad index entry")
    assert web.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.zip",
        "https://127.0.0.1/a.zip",
        "https://localhost/a.zip",
        "https://[::1]/a.zip",
        "https://10.0.0.1/a.zip",
        "https://192.168.0.1:8443/a.zip",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/a.zip",
        "https://[::ffff:127.0.0.1]/a.zip",
        "https://router/a.zip",
        "https://printer.local/a.zip",
        "https://2130706433/a.zip",
        "https://127.1/a.zip",
        "https://0x7f.0.0.1/a.zip",
        "https://127.0.0.0x1/a.zip",
    ],
)
def test_an_index_cannot_send_us_into_our_own_network(tmp_path, url):
    hub = ZipsHub(write_checkout(tmp_path, {"ukp/a": entry({"1": file_entry(url, b"")})}))
    fault(hub, "unsafe address")
    with pytest.raises(HubAnswerError, match=r"web|https"):
        Addresses.of_index("https://example.org/dist").check(url)


def test_the_servers_of_the_archive_may_be_asked():
    for url in ("https://public.ukp.informatik.tu-darmstadt.de/a.zip", "https://8.8.8.8/a.zip", "https://[2606:4700::1]/a.zip"):
        Addresses().check(url)


def test_names_are_plain_links_are_not_followed_and_pipes_not_opened(web, tmp_path):
    hub = write_checkout(tmp_path / "hub", {"ukp/good": entry({"1": put_zip(web, "a")})})
    folder = hub / "adapters" / "ukp"
    whole = (folder / "good.yaml").read_text("utf-8")
    for name in (
        "-bad.yaml",
        "a b.yaml",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}.yaml",
        "\x1b[31m.yaml",
        ".yaml",
        "readme.txt",
    ):
        (folder / name).write_text(whole, "utf-8")
    (folder / "link.yaml").symlink_to(folder / "good.yaml")
    os.mkfifo(folder / "pipe.yaml")
    (hub / "adapters" / "linked").symlink_to(folder)
    assert [listing.repo for listing in ZipsHub(hub).discover(Query())] == ["ukp/good"]


def test_malformed_lines_of_the_list_are_counted_and_names_cannot_leave_the_index(web, tmp_path):
    address = publish(web, {"ukp/good": entry({"1": put_zip(web, "a")})})
    listed = json.loads(web.pages["/dist/v2/all.json"])
    (good,) = listed
    bad = [None, 5, {}, {"adapter_id": 5}, {**good, "adapter_id": "@../../secret"}, {**good, "adapter_id": "@ukp/x?y"}]
    bad += [{**good, "adapter_id": "@ukp/nosha", "sha1_checksum": None}, {**good, "adapter_id": "@ukp/missing"}, good]
    web.put("/dist/v2/all.json", json.dumps([*bad, *listed]).encode())
    web.put("/dist/v2/adapters/ukp/odd.json", b"[]")
    report, sources = sync(ZipsHub(address), tmp_path)
    assert (report.added, report.skipped) == (1, {"bad index entry": 8})
    assert [source.name for source in sources] == ["ukp/good"]
    assert {path for path in web.asked if "secret" in path or "?" in path} == set()


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(sorted({*entry({"1": {}}), "info", "version", "url", "sha1", "sha256", "score"})), inner
            )
        ),
        max_leaves=30,
    )
)
def test_no_entry_breaks_the_parser(value):
    parse_entry("ukp/a", value)
    parse_entry("ukp/a", {**entry({"1": {"url": "https://example.org/a.zip"}}), "files": value})


def test_an_unquoted_version_number_is_its_text(web):
    value = yaml.safe_load("default_version: 1\nfiles: [{version: 1, url: 'https://example.org/a.zip'}]")
    parsed = parse_entry("ukp/a", {**entry({"1": {}}), **value})
    assert (parsed.default, parsed.versions[0].name) == ("1", "1")


# Hostile zip files


def members_of(data: bytes) -> AdapterZip:
    return AdapterZip(lambda start, stop: data[start:stop], len(data))


def read_all(data: bytes) -> None:
    archive = members_of(data)
    for name in archive.files:
        archive.read(name)


def refusal(data: bytes) -> str:
    with pytest.raises(AdapterError) as caught:
        read_all(data)
    return caught.value.reason


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/etc/passwd",
        "a/../../b",
        "a\\..\\b",
        "C:evil",
        "C:\\evil",
        "a//b",
        "./a",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "x" * 300,
    ],
)
def test_names_that_lead_out_or_are_no_names_are_refused(name):
    members = {**files(), "0" * len(name): b"evil"}
    data = pack(members).replace(b"0" * len(name), name.encode())
    assert refusal(data) == "unsafe file"


def test_links_are_refused():
    info = zipfile.ZipInfo("pytorch_adapter.bin")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("adapter_config.json", b"{}")
        archive.writestr(info, b"/etc/passwd")
    assert refusal(buffer.getvalue()) == "unsafe file"


def test_bombs_are_refused_before_they_go_off():
    started = time.thread_time()
    assert (
        refusal(pack({"adapter_config.json": b"{}", "pytorch_adapter.bin": bytes(300 << 20)}, compresslevel=1)) == "unsafe file"
    )
    many = {"adapter_config.json": b"{}", **{f"{i}.txt": b"" for i in range(300)}}
    assert refusal(pack(many)) == "file too large"
    data = bytearray(pack(files()))
    at = data.rfind(b"PK\1\2")  # a directory that claims more than can be inflated from so few bytes
    data[at + 24 : at + 28] = struct.pack("<L", 0xFFFFFFF0)
    assert refusal(bytes(data)) == "unsafe file"
    assert time.thread_time() - started < 30


def test_encrypted_doubled_and_overlapping_members_are_refused():
    data = bytearray(pack(files()))
    at = data.find(b"PK\1\2")
    data[at + 8] |= 1
    assert refusal(bytes(data)) == "unsupported format"
    double = pack({"adapter_config.json": b"{}", "adapter_config.jsoN": b'{"peft_type": "LORA"}'})
    assert refusal(double.replace(b"jsoN", b"json")) == "damaged file"
    data = bytearray(pack({"adapter_config.json": b"{}" * 50, "pytorch_adapter.bin": b"{}" * 50}))
    second = data.rfind(b"PK\1\2")
    data[second + 42 : second + 46] = struct.pack("<L", 3)
    assert refusal(bytes(data)) == "unsafe file"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"pytorch_adapter.bin": b""}, "no config"),
        ({"a/adapter_config.json": b"{}", "b/adapter_config.json": b"{}"}, "several adapters"),
        ({}, "no config"),
    ],
)
def test_a_zip_file_holds_one_adapter(members, reason):
    assert refusal(pack(members)) == reason


def test_every_byte_of_the_directory_may_be_wrong():
    data = pack({"adapter_config.json": b"{}", "pytorch_adapter.bin": b"weights" * 9})
    start = data.find(b"PK\1\2")
    for at in range(start, len(data)):
        for value in (0, 0xFF, data[at] ^ 1):
            broken = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                read_all(broken)
            except AdapterError:
                continue


def test_nothing_is_written_where_the_archive_says(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    hub = ZipsHub(publish(web, {"ukp/a": entry({"1": put_zip(web, "a")})}))
    (listing,) = hub.discover(Query())
    hub.open(listing).read("adapter_config.json", limit=10**6)
    assert set(tmp_path.rglob("*")) == before


def test_a_listing_without_a_place_is_a_bad_entry():
    with pytest.raises(AdapterError, match="bad index entry"):
        ZipsHub("https://example.org/dist").open(Listing("a/b", "r", None, {})).size("adapter_config.json")
