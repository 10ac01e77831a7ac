"""What a source makes of the rows to first order: against LogME on dense matrices, and everything that must not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.ranking.estimators.four_views import WEIGHT, four_views, known_z_scores
from hubrank.ranking.estimators.three_views import three_views, z_scores
from hubrank.ranking.first_order import first_order_evidence
from hubrank.ranking.rank import compare, measure
from hubrank.ranking.rivals.features import logme
from hubrank.ranking.search import search
from hubrank.target.site_inputs import SiteInputs, space_of
from hubrank.types import Delta
from hubrank.zoo.store import Zoo
from tests.ranking.builders import (
    HIDDEN,
    QUERY_VALUE,
    make_base,
    modules,
    one_thread,
    packed_of,
    random_deltas,
    rewritten,
    sign,
    source,
    toy_rows,
    write_lines,
)
from tests.ranking.test_search import Listening

ROWS, CLASSES = 40, 3
SITES = [site_of(name) for name in modules()]


@pytest.fixture
def random():
    return np.random.default_rng(5)


def made_inputs(random, labels=None):
    """Noise at every site of the toy base, in two spaces, and directions in which the classes lie apart."""
    classes = np.arange(ROWS) % CLASSES
    apart = 3 * random.normal(size=(CLASSES, HIDDEN))[classes]
    spaces = {space_of(site): (random.normal(size=(ROWS, HIDDEN)) + apart).astype(np.float32) for site in SITES}
    return SiteInputs(spaces, classes if labels is None else labels)


def dense(deltas, inputs):
    """LogME of what the updates add at all their sites, from the matrices as they are."""
    parts = []
    for delta in deltas:
        x = inputs.spaces[space_of(delta.site)].astype(np.float64)
        parts.append((x - x.mean(0)) @ (delta.up @ delta.down).T.astype(np.float64))
    features = np.concatenate(parts, axis=1)
    features /= np.sqrt((features**2).sum() / len(features))
    # LogME knows the number of its columns: those of the canonical factors, not of the dense outputs.
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    kept = sum(delta.rank for delta in deltas)
    return logme(features=(u * s)[:, :kept], labels=inputs.labels)


@pytest.mark.parametrize("labels", [None, np.linspace(-1, 1, ROWS), np.eye(CLASSES)[np.arange(ROWS) % CLASSES]])
def test_it_is_logme_of_what_the_updates_add(random, labels):
    zoo = [random_deltas(random, modules()) for _ in range(5)]
    inputs = made_inputs(random, labels)
    expected = [dense(deltas, inputs) for deltas in zoo]
    assert first_order_evidence(packed_of(zoo), inputs) == pytest.approx(expected, abs=2e-3)
    assert np.std(expected) > 1e-3


def test_of_more_columns_than_rows(random):
    zoo = [random_deltas(random, modules(), rank=16) for _ in range(4)]
    inputs = made_inputs(random)
    few = SiteInputs({space: x[:20] for space, x in inputs.spaces.items()}, inputs.labels[:20])
    found = first_order_evidence(packed_of(zoo), few)
    expected = []
    for deltas in zoo:
        parts = [(few.spaces[space_of(d.site)] - few.spaces[space_of(d.site)].mean(0)) @ (d.up @ d.down).T for d in deltas]
        features = np.concatenate(parts, axis=1).astype(np.float64)
        u, s, _ = np.linalg.svd(features / np.sqrt((features**2).sum() / 20), full_matrices=False)
        padded = np.concatenate([u * s, np.zeros((20, 64 - 20))], axis=1)
        expected.append(logme(features=padded, labels=few.labels))
    assert found == pytest.approx(expected, abs=2e-3)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_how_an_update_is_written_and_how_strong_it_is_change_nothing(seed, scale):
    random = np.random.default_rng(seed)
    zoo = [random_deltas(random, modules()) for _ in range(4)]
    inputs = made_inputs(random)
    again = [[replace(delta, up=np.float32(scale) * delta.up) for delta in rewritten(random, deltas)] for deltas in zoo]
    assert first_order_evidence(packed_of(again), inputs) == pytest.approx(
        first_order_evidence(packed_of(zoo), inputs), abs=5e-3
    )


def test_where_the_outputs_lie_changes_nothing(random):
    """U has orthonormal columns: turning the space that a site writes to changes no distance between rows."""
    zoo = [random_deltas(random, modules()) for _ in range(4)]
    turn = np.linalg.qr(random.normal(size=(HIDDEN, HIDDEN)))[0].astype(np.float32)
    turned = [[replace(delta, up=turn @ delta.up) for delta in deltas] for deltas in zoo]
    inputs = made_inputs(random)
    assert first_order_evidence(packed_of(turned), inputs) == pytest.approx(
        first_order_evidence(packed_of(zoo), inputs), abs=5e-3
    )


def test_the_source_that_reads_what_tells_the_classes_apart_is_first(random):
    direction = random.normal(size=HIDDEN).astype(np.float32)
    direction /= np.linalg.norm(direction)
    classes = np.arange(ROWS) % 2
    noise = {space_of(site): random.normal(size=(ROWS, HIDDEN)) for site in SITES}
    inputs = SiteInputs(
        {space: (x + 4 * np.outer(classes, direction)).astype(np.float32) for space, x in noise.items()}, classes
    )
    reader = [
        Delta(site, np.outer(np.eye(4)[0], direction).astype(np.float32), random.normal(size=(HIDDEN, 4)).astype(np.float32))
        for site in SITES
    ]
    zoo = [*(random_deltas(random, modules()) for _ in range(6)), reader]
    found = first_order_evidence(packed_of(zoo), inputs)
    assert found.argmax() == 6
    assert found[6] > np.sort(found)[-2] + 0.1


def test_what_cannot_be_known_is_none_of_the_others_business(random):
    elsewhere = [site_of(name) for name in modules(names=QUERY_VALUE[:1])]
    zoo = [
        random_deltas(random, modules()),
        random_deltas(random, modules(names=QUERY_VALUE[1:])),
        random_deltas(random, modules()),
    ]
    packed, inputs = packed_of(zoo), made_inputs(random)
    whole = first_order_evidence(packed, inputs)
    assert np.isfinite(whole).all()
    assert np.isnan(first_order_evidence(packed, SiteInputs({}, inputs.labels))).all()
    wide = {space_of(site): np.zeros((ROWS, HIDDEN + 1), np.float32) for site in elsewhere}
    assert np.isnan(first_order_evidence(packed, SiteInputs(wide, inputs.labels))).all()
    still = {space: np.ones((ROWS, HIDDEN), np.float32) for space in inputs.spaces}
    assert np.isnan(first_order_evidence(packed, SiteInputs(still, inputs.labels))).all()


def test_a_zoo_of_many_is_worked_off_in_pieces(random):
    zoo = [random_deltas(random, modules(), rank=int(random.integers(1, 6))) for _ in range(37)]
    packed, inputs = packed_of(zoo), made_inputs(random)
    whole = first_order_evidence(packed, inputs)
    few = np.array([0, 15, 16, 36])
    assert first_order_evidence(packed.subset(few), inputs) == pytest.approx(whole[few], abs=1e-6)


# The estimator.

_numbers = st.integers(-1000, 1000).map(lambda n: n / 1000)


@st.composite
def four(draw):
    n = draw(st.integers(1, 20))
    names = ("compute", "read", "write", "evidence")
    return {name: np.array(draw(st.lists(_numbers, min_size=n, max_size=n)), np.float32) for name in names}


@given(views=four())
def test_without_evidence_it_is_three_views(views):
    cosines = {name: views[name] for name in ("compute", "read", "write")}
    nothing = np.full(len(views["read"]), np.nan)
    assert (four_views(**cosines, evidence=nothing) == three_views(**cosines)).all()
    assert np.allclose(four_views(**views) - three_views(**cosines), WEIGHT * z_scores(views["evidence"]))


@given(views=four(), scale=st.floats(0.01, 100), offset=st.floats(-5, 5))
def test_the_scale_of_the_evidence_changes_nothing(views, scale, offset):
    changed = views | {"evidence": scale * views["evidence"].astype(np.float64) + offset}
    assert np.allclose(four_views(**changed), four_views(**views), atol=1e-5)


def test_a_source_that_the_rows_say_nothing_of_counts_as_the_mean():
    assert known_z_scores(np.array([1.0, np.nan, 3.0])).tolist() == [-1.0, 0.0, 1.0]


def test_the_rows_widen_the_scale_of_the_scores(random):
    """The background of the zoo's sources lacks what rows add; unrelated sources must not stand out by it."""
    zoo = [random_deltas(random, modules()) for _ in range(40)]
    yardstick = measure(packed_of(zoo), estimator="four-views")
    target = sign(random_deltas(random, modules()))
    informed = replace(yardstick, evidence=random.normal(size=40))
    plain, found = compare(yardstick, target), compare(informed, target)
    assert plain.evidence is None
    assert (found.evidence == informed.evidence[found.usable]).all()
    assert (np.argsort(found.scores) == np.argsort(found.values)).all()
    assert np.std(found.values) > 1.5 * np.std(plain.values)
    assert 0.6 < np.std(found.scores) / np.std(plain.scores) < 1.6


# In a search.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    random = np.random.default_rng(3)
    with one_thread():
        base = make_base(folder / "local")
        with Zoo(folder / "cache", create=True) as zoo:
            for i in range(10):
                zoo.put(source(f"org/s{i}"), sign(random_deltas(random, modules())))
        yield folder, base


def run(place, file, **changes):
    folder, base = place
    given = {"base": f"tiny/bert={base.folder}", "cache_dir": folder / "cache", "steps": 4, "device": "cpu", "early": False}
    return search(file, **{**given, **changes})


def test_rows_are_read_once_and_their_words_kept(place, tmp_path):
    file = write_lines(tmp_path / "rows.jsonl", toy_rows())
    first, again, anew = Listening(), Listening(), Listening()
    rows = [run(place, file, listener=one, reuse=one is not anew).rows for one in (first, again, anew)]
    assert rows[0] == rows[1] == rows[2]
    told = [any(stage.startswith("reading") for stage in one.stages) for one in (first, again, anew)]
    assert told == [True, False, True]
    assert len({row.evidence for row in rows[0]}) == 10


def test_who_does_not_ask_the_rows_does_not_read_them(place, tmp_path):
    file, listener = write_lines(tmp_path / "rows.jsonl", toy_rows(seed=2)), Listening()
    found = run(place, file, listener=listener, estimator="three-views")
    assert {row.evidence for row in found.rows} == {None}
    assert not any(stage.startswith("reading") for stage in listener.stages)


def test_a_task_whose_rows_have_no_labels_is_ranked_without(place, tmp_path):
    rows = [
        {"question": f"w{i % 5} w1", "context": "w1 w2 w3 w4", "answers": {"text": ["w3"], "answer_start": [6]}}
        for i in range(12)
    ]
    found = run(place, write_lines(tmp_path / "qa.jsonl", rows))
    assert found.target.task == "qa"
    assert {row.evidence for row in found.rows} == {None}
    plain = run(place, tmp_path / "qa.jsonl", estimator="three-views")
    assert [row.value for row in found.rows] == [row.value for row in plain.rows]


def test_a_search_whose_time_is_up_does_not_keep_half_of_the_rows(place, tmp_path):
    file = write_lines(tmp_path / "rows.jsonl", toy_rows(60, seed=4))
    run(place, file, budget=1e-6)
    whole = Listening()
    run(place, file, listener=whole)
    assert any(stage.startswith("reading") for stage in whole.stages)
