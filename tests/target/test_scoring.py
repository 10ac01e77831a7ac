"""Metrics on held-out rows: what a head that knows the answers gets, and one that does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hubrank.errors import BaseModelError
from hubrank.target.base import load_base
from hubrank.target.features import WITH_LABELS, features_of
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.scoring import METRICS, _Labels, _ranks, _Spearman, score_of
from hubrank.target.scoring_spans import answer_f1
from hubrank.target.task import TASKS
from hubrank.target.tuning import TuningPlan, tune
from tests.ranking.builders import make_base, modules, one_thread, toy_rows, write_lines
from tests.target.bases import rows_of

LORA = Placement("lora", tuple(modules()), 4, 8.0)


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


def tuned_on(base, target, steps, rate=None):
    return tune(*load_base(base), target, TuningPlan(LORA, steps=steps, learning_rate=rate))


def test_every_task_has_a_metric():
    assert set(METRICS) == set(TASKS)


@pytest.mark.parametrize("task", ["classification", "regression", "multi-label", "multiple-choice", "tagging", "qa"])
def test_every_task_of_an_encoder_is_scored_within_bounds(tmp_path, base, task):
    target = read_target(write_lines(tmp_path / "rows.jsonl", rows_of(task)))
    value = score_of(tuned_on(base, target, 2), target)
    assert (-1 if task == "regression" else 0) <= value <= 1


def test_what_was_learnt_shows(tmp_path, base):
    learnt = read_target(write_lines(tmp_path / "rows.jsonl", toy_rows(48)))
    new = read_target(write_lines(tmp_path / "new.jsonl", toy_rows(24, seed=9)))
    assert score_of(tuned_on(base, learnt, 40, 2e-2), new) > 0.9


@pytest.mark.parametrize("task", WITH_LABELS)
def test_features_have_a_label_each(tmp_path, base, task):
    target = read_target(write_lines(tmp_path / "rows.jsonl", rows_of(task)))
    found = features_of(*load_base(base), target, LORA, device="cpu")
    count = sum(len(words) for words in target.tokens) if task == "tagging" else len(target)
    assert found.states.shape == (count, 32)
    assert len(found.labels) == count
    if task == "classification":
        assert sorted(found.labels.tolist()) == sorted(target.labels)
    if task == "multi-label":
        assert found.labels.sum() == sum(len(labels) for labels in target.label_sets)


def test_features_do_not_depend_on_which_rows_come_together(tmp_path, base):
    target = read_target(write_lines(tmp_path / "rows.jsonl", toy_rows(40)))
    again = read_target(write_lines(tmp_path / "again.jsonl", toy_rows(40)[::-1]))
    one, other = (features_of(*load_base(base), t, LORA, device="cpu").states for t in (target, again))
    assert np.sort(one.sum(axis=1)) == pytest.approx(np.sort(other.sum(axis=1)), abs=0.1)


def test_states_that_are_not_finite_are_no_features(tmp_path, base):
    target = read_target(write_lines(tmp_path / "rows.jsonl", toy_rows(12)))

    def blow_up(attached):
        for parameter in attached.trained:
            parameter.data.fill_(3e38)

    with pytest.raises(BaseModelError, match="its states are not finite"):
        features_of(*load_base(base), target, LORA, device="cpu", start=blow_up)


def test_equal_values_share_a_rank():
    assert _ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


@pytest.mark.parametrize(("said", "value"), [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([7, 7, 7, 7], 0.0)])
def test_spearman_is_the_correlation_of_ranks(tmp_path, said, value):
    rows = [{"text": f"t{i}", "label": (10 ** (i % 4)) * 1.5} for i in range(8)]
    target = read_target(write_lines(tmp_path / "rows.jsonl", rows))
    measure = _Spearman(target)
    measure.add(np.arange(8), None, np.array(said * 2, dtype=np.float32)[:, None], 0.0)
    assert measure.value() == pytest.approx(value)


def test_nothing_said_where_nothing_is_is_right():
    assert _Labels.__mro__[0]._f1(_Labels(None)) == 1.0


@pytest.mark.parametrize(
    ("said", "answer", "value"),
    [("The Eiffel Tower!", "eiffel tower", 1.0), ("tower", "eiffel tower", 2 / 3), ("", "", 1.0), ("paris", "", 0.0)],
)
def test_answers_are_compared_as_squad_does(said, answer, value):
    assert math.isclose(answer_f1(said, answer), value)
