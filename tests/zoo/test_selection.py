"""Which stored sources a filter lets through, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.types import CardFacts
from hubrank.zoo.selection import ORDERS, Selection, select_sources
from tests.builders import make_source

SOURCES = [
    make_source("a/sick", card=CardFacts(task="sick", datasets=("sick",), license="mit", languages=("en",)), rank=4),
    make_source(
        "b/nli", card=CardFacts(task="nli/multinli", tags=("adapterhub:nli/multinli",), languages=("de", "en")), rank=64
    ),
    make_source("c/tagged", card=CardFacts(tags=("dataset:SST2", "adapterhub:sentiment/imdb")), method="bottleneck"),
    make_source("d/gone", card=CardFacts(task="sick"), gone=True),
    make_source("e/roberta", card=CardFacts(license="Apache-2.0"), base="FacebookAI/roberta-base", variant="loha"),
]


def names(**wanted):
    return [source.repo for source in select_sources(SOURCES, Selection(**wanted))]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["a/sick", "b/nli", "c/tagged", "e/roberta"]),
        ({"gone": True}, ["a/sick", "b/nli", "c/tagged", "d/gone", "e/roberta"]),
        ({"tasks": ("SICK",)}, ["a/sick"]),
        ({"tasks": ("nli",)}, ["b/nli"]),
        ({"tasks": ("sst",)}, ["c/tagged"]),
        ({"tasks": ("sentiment",)}, ["c/tagged"]),
        ({"tasks": ("sick", "imdb")}, ["a/sick", "c/tagged"]),
        ({"tasks": ("adapterhub",)}, []),
        ({"languages": ("de",)}, ["b/nli"]),
        ({"languages": ("e",)}, []),
        ({"licenses": ("apache-2.0", "mit")}, ["a/sick", "e/roberta"]),
        ({"methods": ("bottleneck",)}, ["c/tagged"]),
        ({"methods": ("loha",)}, ["e/roberta"]),
        ({"bases": ("roberta-base",)}, ["e/roberta"]),
        ({"bases": ("org/base",), "methods": ("lora",), "languages": ("en",)}, ["a/sick", "b/nli"]),
    ],
)
def test_a_filter_lets_through_what_it_names(wanted, found):
    assert names(**wanted) == found


def test_orders():
    def order(by):
        return [source.repo for source in select_sources(SOURCES, Selection(gone=True), order=by)]

    assert order("rank")[0] == "b/nli"
    assert order("task")[-2:] == ["c/tagged", "e/roberta"]
    assert order("method")[0] == "c/tagged"
    assert order("base")[0] == "e/roberta"


@given(st.permutations(SOURCES), st.sampled_from(sorted(ORDERS)))
def test_the_order_does_not_depend_on_the_store_s(shuffled, by):
    wanted = Selection(gone=True)
    assert select_sources(shuffled, wanted, order=by) == select_sources(SOURCES, wanted, order=by)
