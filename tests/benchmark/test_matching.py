"""Names in a file of measured transfer, and the adapters of a zoo."""

from __future__ import annotations

from hubrank.benchmark.matching import match_sources
from tests.builders import make_source


def match(names, zoo):
    return match_sources(names, names, zoo)


def test_a_source_goes_by_its_name_its_repository_and_its_folder():
    one, two = make_source("org/one"), make_source("org/many", subfolder="a/two", location="/zoo/org/many/a/two")
    for name in ("org/one", "one"):
        assert match([name], [one, two]).sources == (one,)
    for name in ("org/many/a/two", "two", "two/"):
        assert match([name], [one, two]).sources == (two,)
    assert match(["org/many"], [one, two]).unmatched == (("org/many", "not in the zoo"),)


def test_a_name_that_means_several_or_none_is_told():
    zoo = [make_source("a/same"), make_source("b/same"), make_source("c/other")]
    found = match(["same", "a/same", "Other"], zoo)
    assert found.sources == (None, zoo[0], None)
    assert found.unmatched == (("same", "means 2: a/same, b/same"), ("Other", "not in the zoo"))


def test_two_names_for_one_adapter_are_not_believed():
    zoo = [make_source("a/one"), make_source("a/two")]
    found = match(["one", "a/one", "two"], zoo)
    assert found.sources == (None, None, zoo[1])
    assert [name for name, _ in found.unmatched] == ["one", "a/one"]


def test_the_adapter_of_a_row_is_what_is_matched_and_the_name_what_is_complained_by():
    zoo = [make_source("a/one")]
    assert match_sources(["x"], ["a/one"], zoo).sources == (zoo[0],)
    assert match_sources(["x"], ["a/two"], zoo).unmatched == (("x", "not in the zoo"),)
