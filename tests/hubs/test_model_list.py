"""The model list: pages to the end and no further, entries checked, and every field of a query."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.errors import HubAnswerError, HubError
from hubrank.hubs.huggingface import HuggingFaceHub, listings
from hubrank.hubs.matching import fits, searches
from hubrank.hubs.model_list import Model, Search, _model, ask_branches, list_models
from hubrank.hubs.protocol import Query, Traffic
from tests.hubs.quick import TOKEN, Clock, online, quick
from tests.standin import Fault, Repo, stand_in_hub


@pytest.fixture
def hub(monkeypatch):
    online(monkeypatch)
    with stand_in_hub() as running:
        yield running


CONFIG = {"adapter_config.json": b"{}"}


def add(hub, name, *tags, versioned=False, **fields):
    return hub.add(Repo(name, dict(CONFIG), tags=["adapter-transformers" if versioned else "peft", *tags], **fields))


def found(hub, query=None, **options):
    running = HuggingFaceHub(hub.url, transport=quick(hub.url, **options))
    return [listing.repo for listing in running.discover(query or Query())]


def pages(hub, **options):
    return list(list_models(quick(hub.url), hub.url, Search(("peft",)), traffic=Traffic(), **options))


def test_one_call_a_page_and_nothing_else(hub):
    for i in range(25):
        add(hub, f"a/r{i:02}")
    assert [len(page) for page in pages(hub, page=10)] == [10, 10, 5]
    assert [path.partition("?")[0] for _, path in hub.requests] == ["/api/models"] * 3


def test_a_thousand_repositories_take_two_requests_and_one_for_each_base(hub):
    for i in range(1000):
        add(hub, f"a/r{i}", "base_model:adapter:org/base")
    running = HuggingFaceHub(hub.url, transport=quick(hub.url))
    assert len(list(running.discover(Query()))) == 1000
    assert running.traffic.requests == len(hub.requests) == 2
    assert running.traffic.bytes_read < 200_000  # packed on the way
    hub.clear()
    assert len(found(hub, Query(bases=("org/base", "base-of-old")))) == 1000
    assert len(hub.requests) == 3


def link(hub, target):
    return lambda method, path: Fault(more={"Link": f'<{target}>; rel="next"'}) if path.startswith("/api/models") else None


def test_a_list_that_goes_in_circles_or_on_for_ever_ends(hub):
    add(hub, "a/one")
    for target in (f"{hub.url}/api/models?filter=peft", "?cursor=0"):
        hub.fault = link(hub, target)
        hub.clear()
        with pytest.raises(HubError, match=r"given already|nothing new"):
            pages(hub)
        assert len(hub.requests) <= 3
    counter = iter(range(10**9))
    hub.fault = lambda method, path: Fault(more={"Link": f'</api/models?filter=peft&x={next(counter)}>; rel="next"'})
    with pytest.raises(HubError, match="nothing new"):
        pages(hub)


@pytest.mark.parametrize(
    "target", ["CDN/api/models", "https://evil.example/api/models", "file:///etc/passwd", "http://u@127.0.0.1/"]
)
def test_a_list_never_goes_on_at_another_server(hub, target):
    add(hub, "a/one")
    hub.fault = link(hub, target.replace("CDN", hub.cdn_url))
    with pytest.raises(HubError, match="another server"):
        found(hub, token=TOKEN)
    assert hub.cdn_requests() == []


def test_a_mirror_may_pass_on_the_hubs_own_address(hub):
    hub.page = 1
    add(hub, "a/one")
    add(hub, "a/two")

    def fault(method, path):
        more = "https://huggingface.co/api/models?filter=peft&cursor=1&limit=1000"
        return Fault(more={"Link": f'<{more}>; rel="next"'}) if "cursor" not in path else None

    hub.fault = fault
    assert [model.id for page in pages(hub) for model in page] == ["a/one", "a/two"]


def test_a_repository_with_both_tags_counts_once(hub):
    add(hub, "a/both", "adapter-transformers")
    assert found(hub) == ["a/both"]


@pytest.mark.parametrize(
    "value", [{"error": "x"}, "x", None, [1], [{"id": 5}], [{"id": "../../x"}], [{"noid": "a/b"}], [{"id": "a/b\n"}]]
)
def test_a_list_of_another_shape(hub, value):
    hub.fault = lambda method, path: Fault(200, body=json.dumps(value).encode())
    with pytest.raises(HubAnswerError, match="/api/models was answered with") as caught:
        found(hub)
    assert caught.value.reason == "bad answer"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3),
)


FIELDS = (
    *("sha", "siblings", "tags", "cardData", "gated", "private", "disabled", "downloads", "pipeline_tag", "usedStorage"),
    "config",
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING)))
def test_whatever_a_repository_says_of_itself_it_is_listed_or_left_out(fields):
    model = _model({"id": "a/b", **fields}, "http://hub/api/models")
    list(listings(model))
    for query in (Query(), Query(tasks=("nli",)), Query(languages=("en",), licenses=("mit",), bases=("b",), min_downloads=1)):
        assert fits(model, query) in (True, False)


PATHS = ["../adapter_config.json", "/adapter_config.json", "a//adapter_config.json", "a/../../adapter_config.json"]
PATHS += ["a/./adapter_config.json", "a\\b/adapter_config.json", "a\x1b[2J/adapter_config.json", "a\n/adapter_config.json"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_lead_elsewhere_are_left_out(path):
    entry = {"id": "a/b", "siblings": [{"rfilename": path}, {"rfilename": "ok/adapter_config.json"}]}
    assert [listing.subfolder for listing in listings(_model(entry, "http://hub/x"))] == ["ok"]


def test_what_is_closed_is_said_and_costs_nothing(hub):
    for name in ("gated", "private", "disabled"):
        add(hub, f"a/{name}", versioned=True, **{name: True})
    running = HuggingFaceHub(hub.url, transport=quick(hub.url))
    assert {listing.repo: listing.closed for listing in running.discover(Query())} == {
        "a/gated": "gated",
        "a/disabled": "disabled",
    }
    assert len(hub.requests) == 2
    hub.token = TOKEN
    with_token = HuggingFaceHub(hub.url, transport=quick(hub.url, token=TOKEN))
    closed = {listing.repo: listing.closed for listing in with_token.discover(Query())}
    assert closed == {"a/gated": None, "a/private": None, "a/disabled": "disabled"}


def test_storage_files_and_card_are_as_listed(hub):
    repo = add(hub, "a/one", "lora", card={"license": "mit"})
    (listing,) = HuggingFaceHub(hub.url, transport=quick(hub.url)).discover(Query())
    assert (listing.revision, listing.storage, listing.files) == (repo.sha, 2, {"adapter_config.json": -1})
    assert listing.card == {"license": "mit", "tags": ["peft", "lora"]}


@pytest.fixture
def varied(hub):
    add(hub, "x/one", "en", "license:mit", "base_model:adapter:org/base", pipeline_tag="text-classification", downloads=50)
    add(hub, "x/two", "de", "license:apache-2.0", pipeline_tag="question-answering", downloads=500)
    add(hub, "y/three", "en", "adapterhub:nli/multinli", versioned=True, downloads=5)
    add(hub, "y/four", "de", "adapterhub:sts/mrpc", versioned=True, config={"adapter_transformers": {"model_name": "Org/Base"}})
    return hub


QUERIES = {
    "base": (Query(bases=("org/base",)), ["x/one", "y/four"]),
    "task of the hub": (Query(tasks=("text-classification",)), ["x/one"]),
    "adapterhub's group": (Query(tasks=("nli",)), ["y/three"]),
    "adapterhub's task": (Query(tasks=("nli/multinli",)), ["y/three"]),
    "other task of the group": (Query(tasks=("nli/rte",)), []),
    "tasks": (Query(tasks=("sts", "question-answering")), ["x/two", "y/four"]),
    "language": (Query(languages=("en",)), ["x/one", "y/three"]),
    "languages": (Query(languages=("en", "de")), ["x/one", "x/two", "y/four", "y/three"]),
    "license": (Query(licenses=("mit",)), ["x/one"]),
    "licenses": (Query(licenses=("mit", "Apache-2.0")), ["x/one", "x/two"]),
    "author": (Query(authors=("y",)), ["y/four", "y/three"]),
    "authors": (Query(authors=("y", "x")), ["x/one", "x/two", "y/four", "y/three"]),
    "downloads": (Query(min_downloads=50), ["x/one", "x/two"]),
    "limit": (Query(limit=1), ["x/two"]),
    "several": (Query(languages=("en",), authors=("x",), min_downloads=10), ["x/one"]),
    "many": (
        Query(languages=(*"abcdefghijklmnopqrstuvwxyz", "en"), tasks=("nli", "text-classification")),
        ["x/one", "y/three"],
    ),
}


@pytest.mark.parametrize("case", QUERIES)
def test_a_query_lists_what_it_asks_for(varied, case):
    query, expected = QUERIES[case]
    assert sorted(found(varied, query)) == expected


def test_the_hub_is_asked_for_little_else(varied):
    found(varied, Query(languages=("en",), authors=("x",), licenses=("mit",), tasks=("nli/rte",)))
    for _, path in varied.requests:
        for part in ("author=x", "filter=en", "filter=license%3Amit", "filter=adapterhub%3Anli%2Frte"):
            assert part in path


def test_a_list_ends_where_downloads_are_too_few(hub):
    hub.page = 10
    for i in range(100):
        add(hub, f"a/r{i}", downloads=i)
    assert len(found(hub, Query(min_downloads=95))) == 5
    assert len(hub.requests) == 2


VALUES = st.sampled_from(["en", "de", "nli", "nli/rte", "text-classification", "mit"])


@given(*[st.lists(VALUES, max_size=6, unique=True) for _ in range(4)], st.lists(VALUES, max_size=5))
def test_no_list_leaves_out_what_fits(tasks, languages, licenses, authors, tags):
    query = Query(tasks=tuple(tasks), languages=tuple(languages), licenses=tuple(licenses), authors=tuple(authors))
    asked = searches(query, ["peft"])
    assert len(asked) <= 16 * max(1, len(authors))
    every = ("peft", *tags, *(f"license:{tag}" for tag in tags), *(f"adapterhub:{tag}" for tag in tags))
    for author in ("en", "z"):
        model = Model(f"{author}/m", "main", (), every, {}, None, None, None, 1, None, False, False, False)
        listed = any(set(one.tags) <= set(every) and one.author in (None, author) for one in asked)
        assert listed or not fits(model, query)


def test_branches_of_a_renamed_repository(hub):
    repo = add(hub, "new/name", versioned=True)
    repo.branches["v1"] = {"adapter_config.json": b"{ }"}
    hub.renamed["old/name"] = "new/name"
    from hubrank.hubs.model_list import ask_branches, ask_model

    heads = ask_branches(quick(hub.url), hub.url, "old/name", traffic=Traffic())
    assert set(heads) == {"main", "v1"}
    assert ask_model(quick(hub.url), hub.url, "old/name", heads["v1"], traffic=Traffic()).sha == heads["v1"]


@pytest.mark.parametrize(("status", "count"), list(product([429, 500, 503], [1, 3])))
def test_a_list_survives_faults_that_pass(hub, status, count):
    add(hub, "a/one")
    left = [Fault(status)] * count + [Fault(cut=20, reset=True)]
    hub.fault = lambda method, path: left.pop() if left else None
    clock = Clock()
    running = HuggingFaceHub(hub.url, transport=quick(hub.url, clock))
    assert len(list(running.discover(Query()))) == 1
    assert running.traffic.requests == count + 3
    assert clock.waits


def test_branches_are_bounded_in_number_and_name(hub):
    """Each branch costs a call, and its name goes into the store and onto terminals."""
    names = ["v1", *(f"b{i:03}" for i in range(200)), "x" * 500, "\x1b[31m", "a/../b"]
    refs = {"branches": [{"name": name, "targetCommit": f"{i:040x}"} for i, name in enumerate(names)]}
    add(hub, "a/one", versioned=True)
    hub.fault = lambda method, path: Fault(200, body=json.dumps(refs).encode()) if path.endswith("/refs") else None
    branches = ask_branches(quick(hub.url), hub.url, "a/one", traffic=Traffic())
    assert len(branches) == 64
    assert "v1" in branches
    refs["branches"] = refs["branches"][-3:]
    assert not ask_branches(quick(hub.url), hub.url, "a/one", traffic=Traffic())


@pytest.mark.parametrize("name", ["org/..", "org/.", "../x", "org/na/me", "org/x\n"])
def test_a_name_that_would_lead_elsewhere_is_no_name(name):
    with pytest.raises(HubAnswerError):
        _model({"id": name}, "http://hub/api/models")
