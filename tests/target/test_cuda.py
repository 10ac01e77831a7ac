"""The same work on a CUDA device: for a machine that has one, skipped elsewhere. No other test needs a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints.architectures import site_of
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.architecture import GENERATES, architecture_of, head_kind
from hubrank.target.base import load_base
from hubrank.target.features import WITH_LABELS, features_of
from hubrank.target.frameworks import import_torch, pick_device
from hubrank.target.methods import METHODS, Placement
from hubrank.target.rows import read_target
from hubrank.target.scoring import METRICS, score_of
from hubrank.target.site_inputs import site_inputs, space_of
from hubrank.target.tuning import TuningPlan, tune
from tests.ranking.builders import make_base, modules, toy_rows, write_lines
from tests.target.bases import KINDS, TASKS, placed

pytestmark = pytest.mark.skipif(not import_torch().cuda.is_available(), reason="no CUDA device")

LORA = Placement("lora", tuple(modules()), 4, 8.0)
ROUNDING = 0.03  # products in bfloat16 have eight bits


def run(base, kind, method, target, device="cuda", **changes):
    head = head_kind(target.task, architecture_of(load_base(base)[0].config), base.name)
    model, tokenizer = load_base(base, head=head)
    plan = TuningPlan(placed(model, kind, method), **{"steps": 3, **changes})
    return tune(model, tokenizer, target, plan, device=device)


def test_it_is_picked_by_itself():
    assert pick_device("auto") == "cuda"


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_on_every_base(bases, targets, kind, task, aligned):
    if kind == "bert" and task in GENERATES:
        pytest.skip("an encoder writes no text")
    tuned = run(bases(kind), kind, "lora", targets[task], aligned=aligned)
    assert tuned.device == "cuda"
    assert (tuned.steps, np.isfinite(tuned.losses).all()) == (3, True)
    assert sign_adapter(tuned.attached.adapter("tiny/any")).factors
    if task in METRICS:
        assert np.isfinite(score_of(tuned, targets[task]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_base(bases, targets, kind, method):
    tuned = run(bases(kind), kind, method, targets["classification" if kind == "bert" else "seq2seq"])
    assert np.isfinite(tuned.losses).all()
    assert len(sign_adapter(tuned.attached.adapter("tiny/any")).factors) > 0


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return make_base(folder / "base"), read_target(write_lines(folder / "toy.jsonl", toy_rows(48)))


def test_a_seed_is_the_same_run_again_and_leaves_the_callers_generator_alone(toy):
    base, target = toy
    torch = import_torch()
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    one, other = (tune(*load_base(base), target, TuningPlan(LORA, steps=8, seed=5), device="cuda").tensors() for _ in range(2))
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor, other[name], atol=1e-4)


def test_what_is_learnt_shows(toy, tmp_path):
    base, target = toy
    new = read_target(write_lines(tmp_path / "new.jsonl", toy_rows(24, seed=9)))
    plan = TuningPlan(LORA, steps=40, learning_rate=2e-2)
    assert score_of(tune(*load_base(base), target, plan, device="cuda"), new) > 0.9


def test_site_inputs_are_the_processors(toy):
    base, target = toy
    spaces = sorted({space_of(site_of(name)) for name in modules()})
    here, there = (site_inputs(*load_base(base), target, spaces, device=device).spaces for device in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for space, expected in here.items():
        np.testing.assert_allclose(there[space], expected, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize("task", WITH_LABELS)
def test_features_are_the_processors(bases, targets, task):
    here, there = (
        features_of(
            *load_base(bases("bert")), targets[task], placed(load_base(bases("bert"))[0], "bert", "lora"), device=device
        )
        for device in ("cpu", "cuda")
    )
    assert np.array_equal(here.labels, there.labels)
    np.testing.assert_allclose(there.states, here.states, atol=ROUNDING * np.abs(here.states).max())
