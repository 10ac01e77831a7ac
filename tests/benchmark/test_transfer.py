"""Reading measured transfer: what the rows say, what is joined to what, and everything that is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.benchmark.transfer import parse_where, read_transfer
from hubrank.errors import InputError, UsageError
from tests.benchmark.builders import row, write_rows


@pytest.fixture
def read(tmp_path):
    def of(*rows, where=None):
        return read_transfer(write_rows(tmp_path / "t.jsonl", rows), where=where)

    return of


def test_the_least_that_a_row_needs(read):
    found = read(row("a", "t", 0.5), row("b", "t", 0.7), row(None, "t", 0.4), row("b", "u", 0.1))
    assert found.sources == found.adapters == ("a", "b")
    t, u = found.targets
    assert (t.name, u.name) == ("t", "u")
    np.testing.assert_array_equal(t.truth, [0.5, 0.7])
    np.testing.assert_array_equal(t.scratch, [0.4, 0.4])
    np.testing.assert_array_equal(u.truth, [np.nan, 0.1])
    assert np.isnan(u.scratch).all()


def test_a_seed_that_lacks_a_source_does_not_count_beside_one_that_has_all(read):
    found = read(
        *(row(s, "t", v, seed=k) for k, s, v in [(0, "a", 0.2), (0, "b", 0.4), (1, "a", 0.4), (1, "b", 0.8), (2, "a", 0.9)])
    )
    np.testing.assert_allclose(found.targets[0].truth, [0.3, 0.6])
    assert len(found.targets[0].complete) == 2


def test_no_transfer_is_joined_by_what_both_rows_say_of_the_adapters_shape(read):
    found = read(
        row("a", "t", 0.5, rank=4, sites="qv"),
        row("b", "t", 0.5, rank=8, sites="qv"),
        row("c", "t", 0.5, rank=16, sites="qv"),
        row(None, "t", 0.1, rank=4, sites="qv"),
        row(None, "t", 0.3, rank=4, seed=1),
        row(None, "t", 0.6, rank=8),
    )
    np.testing.assert_allclose(found.targets[0].scratch, [0.2, 0.6, 0.4])  # one without its own gets the mean


def test_kin_adapters_rows_and_families_are_read(read):
    found = read(row("a", "t", 0.5, kin="same task", adapter="zoo/one", source_rows=300, source_family="nli"), row("b", "t", 1))
    assert found.adapters == ("zoo/one", "b")
    assert found.targets[0].kin.tolist() == [True, False]
    assert found.families == ("nli", "")
    np.testing.assert_array_equal(found.source_rows, [300, np.nan])


def test_percentages_become_parts_and_it_is_said(read):
    found = read(row("a", "t", 50), row("b", "t", 0.5), row(None, "t", 25))
    np.testing.assert_allclose(found.targets[0].truth, [0.5, 0.005])
    assert found.targets[0].scratch[0] == 0.25
    assert "percent" in found.notes[0]


def test_where_picks_rows_of_sources_and_leaves_no_transfer_to_its_shape(read):
    rows = [row("a", "t", v, rows=n, set=s) for v, n, s in [(0.1, 200, "one"), (0.2, 1000, "one")]]
    rows += [row("b", "t", 0.3, rows=200, set="two"), row(None, "t", 0.05, rows=200, set="one"), row(None, "t", 0.9, rows=1000)]
    found = read(*rows, where={"rows": "200"})
    np.testing.assert_allclose(found.targets[0].truth, [0.1, 0.3])
    np.testing.assert_allclose(found.targets[0].scratch, [0.05, 0.05])
    assert read(*rows, where={"rows": "200", "set": "two"}).sources == ("b",)
    with pytest.raises(InputError, match=r"no row of a source is left by --where set=three"):
        read(*rows, where={"set": "three"})
    with pytest.raises(InputError, match=r"t is measured with rows 200 and 1000; choose with --where rows=200"):
        read(*rows)


def test_conditions_are_fields_and_values():
    assert parse_where(["rows=200", "set=a=b"]) == {"rows": "200", "set": "a=b"}
    for wrong in ("rows", "=1"):
        with pytest.raises(UsageError, match="give FIELD=VALUE"):
            parse_where([wrong])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no row of a source; nothing can be judged"),
        ([row(None, "t", 0.1)], "no row of a source"),
        ([{"source": "a", "target": "t"}], r":1: has no 'value'"),
        ([{"target": "t", "value": 1}], r":1: has no 'source'"),
        ([row("a", "t", 0.1), [1]], r":2: is no JSON object"),
        ([row(7, "t", 0.1)], "source is neither a name nor null"),
        ([row("a", "", 0.1)], "target is no name"),
        ([row("a", "t", "0.1")], "value is no finite number"),
        ([row("a", "t", True)], "value is no finite number"),
        ([row("a", "t", float("nan"))], "value is no finite number"),
        ([row("a", "t", 10**400)], "value is no finite number"),
        ([row("a", "t", 400)], "neither a part of 1 nor a percentage"),
        ([row("a", "t", 0.1), row("a", "t", 0.2)], r":2: a on t stands in line 1 too"),
        ([row("a", "t", 0.1, seed=3), row("a", "t", 0.2, seed=3)], r"with seed 3 stands in line 1 too"),
        ([row("a", "t", 0.1, metric="f1"), row("b", "t", 0.2)], r"metric f1 and none; choose with --where metric=f1"),
    ],
)
def test_what_is_refused(read, rows, said):
    with pytest.raises(InputError, match=said) as caught:
        read(*rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"not json\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_a_file_of_something_else_is_refused(tmp_path, data):
    file = tmp_path / "t.jsonl"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"is not JSON|is not UTF-8"):
        read_transfer(file)


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match=r"nowhere\.jsonl: cannot be read \(No such file"):
        read_transfer("nowhere.jsonl")
