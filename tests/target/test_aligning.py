"""A LoRA that starts along the first gradient: which directions those are, and what else must not change."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from hubrank.target import aligning
from hubrank.target.aligning import align
from hubrank.target.architecture import GENERATES
from hubrank.target.base import load_base
from hubrank.target.methods import Placement, attach
from hubrank.target.objectives import objective_for
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, reader_of, tune
from tests.ranking.builders import HIDDEN, make_base, modules, one_thread, toy_rows, write_lines
from tests.target.bases import KINDS, TASKS, make_kind, rows_of
from tests.target.test_every_task import run

LORA = Placement("lora", tuple(modules()), 4, 8.0)
PLAN = TuningPlan(LORA, steps=3, aligned=True)


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return read_target(write_lines(tmp_path_factory.mktemp("rows") / "target.jsonl", toy_rows()))


def ready(base, target, placement=LORA):
    model, tokenizer = load_base(base)
    torch.manual_seed(0)
    attached = attach(model, placement)
    return attached, objective_for(target, reader_of(model, tokenizer, target, PLAN))


def aligned(base, target, placement=LORA, **changes):
    attached, objective = ready(base, target, placement)
    before = {name: p.detach().clone() for name, p in attached.model.named_parameters()}
    notes = align(attached, objective, **{"width": HIDDEN, "device": "cpu", "batch_size": 16} | changes)
    return attached, before, notes


def whole_gradients(base, target):
    """Of the modules' own weights, by torch, under a head that is fitted in the plainest way."""
    attached, objective = ready(base, target)
    attached.model.eval()
    batch = objective.collate(np.arange(len(objective.lengths)))
    tensors = replace(batch, inputs={name: torch.as_tensor(value) for name, value in batch.inputs.items()})
    head = torch.nn.Linear(HIDDEN, objective.outputs)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(60):
        with torch.no_grad():
            out = attached.model(**tensors.model_inputs())
        optimizer.zero_grad()
        (objective.loss(torch, out, head, tensors) / tensors.weight).backward()
        optimizer.step()
    weights = {name: p.requires_grad_() for name, p in attached.model.named_parameters() if name.endswith("base_layer.weight")}
    (objective.loss(torch, attached.model(**tensors.model_inputs()), head, tensors) / tensors.weight).backward()
    return {name: weight.grad for name, weight in weights.items()}


def test_it_starts_along_what_the_first_gradient_reads(base, target):
    attached, before, notes = aligned(base, target)
    gradients = whole_gradients(base, target)
    assert notes == ()
    parameters = dict(attached.model.named_parameters())
    assert len(gradients) == len(LORA.modules)
    for name, gradient in gradients.items():
        down = parameters[name.replace("base_layer", "lora_A.default")].detach()
        sizes = torch.linalg.svdvals(gradient)
        rows = down / down.norm(dim=1, keepdim=True)
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-4)
        # As much of the gradient as its best directions hold, whatever the order of equal ones.
        assert (gradient @ rows.T).norm() == pytest.approx(float(sizes[: len(rows)].norm()), rel=1e-3)
        random = before[name.replace("base_layer", "lora_A.default")]
        assert down.norm() == pytest.approx(float(random.norm()), rel=1e-4)
        assert (gradient @ (random / random.norm(dim=1, keepdim=True)).T).norm() < 0.9 * sizes[: len(rows)].norm()


def test_nothing_else_of_the_model_changes(base, target):
    attached, before, _ = aligned(base, target)
    changed = {name for name, p in attached.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"base_model.model.{name}.lora_A.default.weight" for name in LORA.modules}
    assert all(p.grad is None for p in attached.model.parameters())
    assert {p.requires_grad for p in attached.trained} == {True}
    assert not any(module._forward_hooks for module in attached.model.modules())


def test_two_seeds_start_alike_and_chances_are_the_seeds_own(base, target):
    def fresh_a(seed):
        model, tokenizer = load_base(base)
        plan = replace(PLAN, learning_rate=0.0, seed=seed)
        found = tune(model, tokenizer, target, plan).tensors()
        return {name: tensor for name, tensor in found.items() if "lora_A" in name}

    one, other = fresh_a(0), fresh_a(1)
    for name, tensor in one.items():
        directions = [value / np.linalg.norm(value, axis=1, keepdims=True) for value in (tensor, other[name])]
        assert np.allclose(np.abs(np.sum(directions[0] * directions[1], axis=1)), 1, atol=1e-2)
    attached, objective = ready(base, target)
    state = torch.random.get_rng_state()
    align(attached, objective, width=HIDDEN, device="cpu", batch_size=16)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_sketch_finds_about_the_same_directions(base, target, monkeypatch):
    gradients = whole_gradients(base, target)
    monkeypatch.setattr(aligning, "_MOST_NUMBERS", 1)
    attached, _, _ = aligned(base, target)
    parameters = dict(attached.model.named_parameters())
    for name, gradient in gradients.items():
        down = parameters[name.replace("base_layer", "lora_A.default")].detach()
        rows = torch.linalg.qr(down.T)[0].T
        best = torch.linalg.svdvals(gradient)[: len(rows)].norm()
        assert (gradient @ rows.T).norm() > 0.9 * best


def test_large_matrices_are_decomposed_approximately():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(300, 20, generator=generator) @ torch.randn(20, 200, generator=generator)
    gradient *= torch.linspace(1, 0.1, 200)
    sizes, directions = aligning._leading(torch, gradient, 4)
    _, exact_sizes, exact_directions = torch.linalg.svd(gradient)
    assert torch.allclose(sizes, exact_sizes[:4], rtol=1e-3)
    assert torch.allclose((directions * exact_directions[:4]).sum(1).abs(), torch.ones(4), atol=1e-3)


@pytest.mark.parametrize("bad", ["zero", "infinite"])
def test_a_gradient_that_says_nothing_leaves_the_random_start(base, target, monkeypatch, bad):
    value = {"zero": 0.0, "infinite": float("inf")}[bad]
    real = aligning._Run.gradients

    def spoilt(*arguments):
        return {name: torch.full_like(gradient, value) for name, gradient in real(*arguments).items()}

    monkeypatch.setattr(aligning._Run, "gradients", spoilt)
    attached, before, _ = aligned(base, target)
    assert all(torch.equal(p, before[name]) for name, p in attached.model.named_parameters())


@pytest.mark.parametrize(("most", "notes"), [(5, 0), (0, 1)])
def test_where_memory_runs_short_batches_are_halved_and_then_it_starts_at_random(base, target, monkeypatch, most, notes):
    attached, objective = ready(base, target)
    before = {name: p.detach().clone() for name, p in attached.model.named_parameters()}
    real = aligning._Run.forward

    def short(run, batch):
        if batch.rows > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(run, batch)

    monkeypatch.setattr(aligning._Run, "forward", short)
    said = align(attached, objective, width=HIDDEN, device="cpu", batch_size=16)
    assert len(said) == notes
    changed = any(not torch.equal(p, before[name]) for name, p in attached.model.named_parameters())
    assert changed is not bool(notes)
    assert all("memory ran short" in note for note in said)


def test_a_module_that_no_loss_looks_at_keeps_its_random_start(base, target):
    """The losses read hidden states; a pooler has its say after them."""
    attached, before, notes = aligned(base, target, placement=Placement("lora", (*modules(), "pooler.dense"), 4, 8.0))
    changed = {name for name, p in attached.model.named_parameters() if not torch.equal(p, before[name])}
    assert notes == ()
    assert not any("pooler" in name for name in changed)
    assert len(changed) == len(modules())


def test_it_makes_do_with_the_batches_that_there_is_time_for(base, target, monkeypatch):
    seen = []
    real = aligning._Run.forward
    monkeypatch.setattr(aligning._Run, "forward", lambda run, batch: seen.append(batch.rows) or real(run, batch))
    attached, before, notes = aligned(base, target, batch_size=4, until=time.perf_counter())
    assert notes == ()
    assert len(seen) == 2  # one batch for the head, one for the gradient
    assert any(not torch.equal(p, before[name]) for name, p in attached.model.named_parameters())
    seen.clear()
    aligned(base, target, batch_size=4, until=time.perf_counter() + 1000)
    assert len(seen) == 2 * 6


def test_another_error_is_raised(base, target, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(aligning._Run, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        aligned(base, target)


def test_other_methods_start_as_ever(base, target):
    for method in ("bottleneck", "bias"):
        names = [name for name, p in load_base(base)[0].named_parameters() if p.ndim == 1] if method == "bias" else ()
        plan = TuningPlan(Placement(method, tuple(names), 4), steps=2)
        plain, told = (tune(*load_base(base), target, replace(plan, aligned=flag)).tensors() for flag in (False, True))
        assert all(np.array_equal(plain[name], told[name]) for name in plain)


PAIRS = [("bert", task) for task in TASKS if task not in GENERATES] + [(kind, "seq2seq") for kind in KINDS if kind != "bert"]


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_every_task(tmp_path, kind, task):
    base = make_kind(kind, tmp_path / kind)
    target = read_target(write_lines(tmp_path / "rows.jsonl", rows_of(task)), task=task)
    plain, told = (run(base, kind, "lora", target, aligned=flag) for flag in (False, True))
    assert np.isfinite(told.losses).all()
    assert any(not np.allclose(value, told.tensors()[name]) for name, value in plain.tensors().items() if "lora_A" in name)
