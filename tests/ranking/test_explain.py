"""Why a source stands where it stands: planted reasons are found, and nothing is said that the numbers do not hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hubrank.checkpoints.architectures import site_of
from hubrank.ranking.explain import explain
from hubrank.ranking.first_order import Evidence
from hubrank.ranking.merge import MethodRuns, merge
from hubrank.ranking.rank import compare, measure
from hubrank.signatures.canonical import sign_adapter
from hubrank.types import Adapter, Delta
from hubrank.zoo.packed_files import open_packed
from hubrank.zoo.store import Zoo
from tests.ranking.builders import BASE, HIDDEN, modules, random_deltas, rewritten, sign, source

QUERY, VALUE = "attention.self.query", "attention.self.value"


class Yard:
    """A zoo on disk and the runs of targets through it."""

    def __init__(self, folder, adapters, *, method="lora"):
        self.zoo = Zoo(folder, create=True)
        for i, deltas in enumerate(adapters):
            found = deltas if hasattr(deltas, "factors") else sign(deltas)
            self.zoo.put(source(f"org/a{i:02}", method=method), found)
        self.method = method

    def runs(self, *targets, estimator=None):
        yardstick = measure(open_packed(self.zoo, BASE, self.method), estimator=estimator)
        found = [one if hasattr(one, "factors") else sign(one) for one in targets]
        return MethodRuns(yardstick, tuple(compare(yardstick, one) for one in found))

    def explain(self, *targets, which=3, estimator=None):
        return explain([self.runs(*targets, estimator=estimator)], self.zoo, which)


def strangers(random, count, where=None):
    return [random_deltas(random, where or modules()) for _ in range(count)]


def mixed(random, ours, theirs):
    """``ours`` where the site is in it, else ``theirs``."""
    mine = {delta.site: delta for delta in ours}
    return rewritten(random, [mine.get(delta.site, delta) for delta in theirs])


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.fixture
def target(random):
    return random_deltas(random, modules())


def test_the_deviations_add_up_to_the_value_of_three_views(tmp_path, random, target):
    yard = Yard(tmp_path, [*strangers(random, 9), rewritten(random, target, noise=0.3)])
    found = yard.explain(target, which=10)
    assert [one.row for one in found] == list(merge([yard.runs(target)]))
    for one in found:
        assert sum(lead.deviations for lead in one.views) == pytest.approx(one.row.value, abs=1e-4)
        assert (one.place, one.of, one.seeds) == (one.row.rank, 10, 1)
    for view in range(3):
        assert sorted(one.views[view].place for one in found) == list(range(1, 11))
        assert sum(one.views[view].deviations for one in found) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("method", "weight"), [("lora", 3 * 200 / 264), ("bottleneck", 200 / 264)])
def test_views_and_rows_add_up_to_the_value(tmp_path, random, target, method, weight):
    yard = Yard(tmp_path, [*strangers(random, 11), rewritten(random, target, noise=0.3)], method=method)
    plain = yard.runs(target)
    yardstick = replace(plain.yardstick, evidence=Evidence(np.append(random.normal(size=11), np.nan), 200, 4))
    informed = MethodRuns(yardstick, (compare(yardstick, sign(target)),))
    found = explain([informed], yard.zoo, 12)
    assert [one.row for one in found] == list(merge([informed]))
    for one in found:
        rows = 0.0 if one.rows is None else weight * one.rows.deviations
        assert sum(lead.deviations for lead in one.views) + rows == pytest.approx(one.row.value, abs=1e-3)
        assert (one.rows is None) == (one.row.evidence is None)
        if one.rows is not None:
            assert one.rows.evidence == pytest.approx(one.row.evidence)
    assert sorted(one.rows.place for one in found if one.rows is not None) == list(range(1, 12))
    first, second = found[:2]
    if None not in (first.rows, second.rows):
        assert first.gap.rows == pytest.approx(first.rows.deviations - second.rows.deviations)


def test_the_layer_that_is_shared_stands_out(tmp_path, random, target):
    only_last = [delta for delta in target if delta.site.layer == 1]
    yard = Yard(tmp_path, [*strangers(random, 11), mixed(random, only_last, random_deltas(random, modules()))])
    (first,) = yard.explain(target, which=1)
    assert first.row.source.name == "org/a11"
    assert [(lead.layer, lead.sites) for lead in first.layers] == [(0, 2), (1, 2)]
    assert first.layers[1].mean > 2.5
    assert abs(first.layers[0].mean) < 2.0
    assert first.gap.layer == ("encoder", 1)


def test_the_module_that_is_shared_speaks_for_it(tmp_path, random, target):
    only_value = [delta for delta in target if delta.site.module == VALUE]
    yard = Yard(tmp_path, [*strangers(random, 11), mixed(random, only_value, random_deltas(random, modules()))])
    (first,) = yard.explain(target, which=1)
    assert [lead.module for lead in first.modules] == [VALUE, QUERY]
    assert first.modules[0].deviations > first.modules[1].deviations + 1
    assert [lead.sites for lead in first.modules] == [2, 2]


def test_the_first_is_set_against_the_second_and_the_others_against_the_first(tmp_path, random, target):
    close = [rewritten(random, target, noise=noise) for noise in (0.1, 0.8)]
    first, second, third = Yard(tmp_path, [*strangers(random, 8), *close]).explain(target)
    assert (first.gap.other.rank, second.gap.other.rank, third.gap.other.rank) == (2, 1, 1)
    assert first.gap.score == pytest.approx(-second.gap.score)
    assert first.gap.views == pytest.approx([-value for value in second.gap.views])
    assert first.gap.score == pytest.approx(first.row.score - second.row.score)
    assert all(value > 0 for value in first.gap.views)
    assert (first.gap.ahead, second.gap.ahead) == (1, 0)


def test_one_row_is_enough_to_know_the_second(tmp_path, random, target):
    (first,) = Yard(tmp_path, strangers(random, 9)).explain(target, which=1)
    assert first.gap.other.rank == 2


def test_a_source_far_down_is_found_by_name(tmp_path, random, target):
    yard = Yard(tmp_path, strangers(random, 12))
    rows = merge([yard.runs(target)])
    (found,) = yard.explain(target, which=rows[10].source.name)
    assert found.row == rows[10]
    assert found.place == 11
    assert found.gap.other == rows[0]
    assert yard.explain(target, which="org/nobody") == ()


def test_seeds_that_disagree_are_counted(tmp_path, random, target):
    other = random_deltas(random, modules())
    zoo = [*strangers(random, 8), rewritten(random, target, noise=0.2), rewritten(random, other, noise=0.2)]
    first, second = Yard(tmp_path, zoo).explain(target, target, other, which=2)
    assert {first.row.source.name, second.row.source.name} == {"org/a08", "org/a09"}
    assert first.seeds == 3
    assert first.row.interval == (1, first.row.interval[1])
    by_name = {one.row.source.name: one.gap.ahead for one in (first, second)}
    assert by_name == {"org/a08": 2, "org/a09": 1}


def test_methods_that_only_shift_are_not_told_apart_by_where_they_read(tmp_path, random):
    def shifts():
        deltas = [
            Delta(site_of(name), np.zeros((0, HIDDEN), np.float32), np.zeros((HIDDEN, 0), np.float32), shift)
            for name, shift in zip(modules(), random.normal(size=(4, HIDDEN)).astype(np.float32), strict=True)
        ]
        return sign_adapter(Adapter(BASE, "bias", tuple(deltas)))

    yard = Yard(tmp_path, [shifts() for _ in range(9)], method="bias")
    (first,) = yard.explain(shifts(), which=1)
    assert [lead.view for lead in first.views] == ["compute", "write"]
    assert first.alike == ("read",)
    assert first.profile.views == ("compute", "write")
    assert all(len(lead.deviations) == 2 for lead in first.layers)
    assert first.profile.nearest[0].cosine < 0.9


def test_a_source_with_a_single_layer(tmp_path, random, target):
    short = random_deltas(random, modules(layers=[1]))
    (found,) = Yard(tmp_path, [*strangers(random, 9), short]).explain(target, which="org/a09")
    assert (found.shared, found.tuned, found.elsewhere) == (2, 4, 0)
    assert [(lead.sites, lead.mean is None) for lead in found.layers] == [(0, True), (2, False)]
    assert [layer.layer for layer in found.profile.layers] == [1]
    assert found.profile.layers[0].share == pytest.approx(1.0)


def test_sites_that_the_target_lacks_are_counted(tmp_path, random):
    target = random_deltas(random, modules(layers=[0]))
    (first,) = Yard(tmp_path, strangers(random, 9)).explain(target, which=1)
    assert (first.shared, first.tuned, first.elsewhere) == (2, 2, 2)
    assert [lead.layer for lead in first.layers] == [0]


def test_only_the_views_of_the_estimator_are_told(tmp_path, random, target):
    (first,) = Yard(tmp_path, strangers(random, 9)).explain(target, which=1, estimator="compute-std")
    assert first.estimator == "compute-std"
    assert [lead.view for lead in first.views] == ["compute"]


def test_a_zoo_of_one_has_nothing_to_set_it_against(tmp_path, random, target):
    (only,) = Yard(tmp_path, strangers(random, 1)).explain(target)
    assert (only.place, only.of, only.gap, only.views) == (1, 1, None, ())
    assert only.alike == ("compute", "read", "write")
    assert only.profile.nearest == ()


def test_across_methods_only_scores_are_compared(tmp_path, random, target):
    near = rewritten(random, target, noise=0.2)
    yard = Yard(tmp_path, [*strangers(random, 9), near])
    for i in range(9):
        yard.zoo.put(source(f"org/b{i:02}", method="bottleneck"), sign(random_deltas(random, modules())))
    other = measure(open_packed(yard.zoo, BASE, "bottleneck"))
    results = [yard.runs(target), MethodRuns(other, (compare(other, sign(target)),))]
    rows = merge(results)
    low = next(row for row in rows if row.source.method == "bottleneck")
    (found,) = explain(results, yard.zoo, low.source.name)
    assert (found.place, found.of) == (1, 9)
    assert found.gap.other.source.name == "org/a09"
    assert (found.gap.views, found.gap.layer) == ((), None)
    assert found.gap.score == pytest.approx(low.score - rows[0].score)


def test_a_row_beyond_the_cut_comes_with_its_own_rank(tmp_path, random, target):
    run = Yard(tmp_path, strangers(random, 9)).runs(target)
    whole = merge([run])
    assert merge([run], top=2, also=whole[6].source.name) == (*whole[:2], whole[6])
    assert merge([run], top=2, also=whole[0].source.name) == whole[:2]
    assert merge([run], top=2, also="org/nobody") == whole[:2]


def test_the_places_of_the_nearest_are_those_of_the_ranking(tmp_path, random, target):
    twins = [rewritten(random, target, noise=0.1), rewritten(random, target, noise=0.1)]
    first, second = Yard(tmp_path, [*strangers(random, 8), *twins]).explain(target, which=2)
    assert first.profile.nearest[0].source == second.row.source
    assert (first.near_places[0], second.near_places[0]) == (2, 1)
    assert first.profile.nearest[0].cosine > 0.6 > first.profile.nearest[1].cosine
