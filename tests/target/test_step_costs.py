"""Frozen weights cast once, and cheaper chances: the same mathematics as torch's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hubrank.target import step_costs
from hubrank.target.base import load_base
from hubrank.target.methods import Placement, attach
from hubrank.target.rows import read_target
from hubrank.target.step_costs import CheapChances, cast_frozen
from hubrank.target.tuning import TuningPlan, predict, tune
from tests.ranking.builders import make_base, modules, one_thread, toy_rows, write_lines

F = torch.nn.functional
LORA = Placement("lora", tuple(modules()), 4, 8.0)


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


def tensors(base, folder, **changes):
    target = read_target(write_lines(folder / "target.jsonl", toy_rows()))
    return tune(*load_base(base), target, replace(TuningPlan(LORA, steps=4), **changes)).tensors()


def test_casting_once_changes_no_number(base, tmp_path, monkeypatch):
    """Autocast would have cast the same weights to the same numbers in every step."""
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: True)
    cast = tensors(base, tmp_path)
    monkeypatch.setattr(step_costs, "cast_frozen", lambda model: None)
    plain = tensors(base, tmp_path)
    assert cast.keys() == plain.keys()
    assert all(np.array_equal(cast[name], plain[name]) for name in cast)


def test_only_what_is_frozen_is_cast_and_nothing_that_an_embedding_shares(base):
    model, _ = load_base(base)
    model.tied = torch.nn.Linear(*reversed(model.embeddings.word_embeddings.weight.shape), bias=False)
    model.tied.weight = model.embeddings.word_embeddings.weight
    attached = attach(model, LORA)
    cast_frozen(attached.model)
    kinds = {name: parameter.dtype for name, parameter in attached.model.named_parameters()}
    half = {name for name, kind in kinds.items() if kind == torch.bfloat16}
    assert any(name.endswith("query.base_layer.weight") for name in half)
    assert any(name.endswith("intermediate.dense.bias") for name in half)
    assert not any("lora_" in name or "embeddings" in name or "LayerNorm" in name for name in half)
    assert all(parameter.dtype == torch.float32 for parameter in attached.trained)


@pytest.mark.parametrize("pays", [False, True])
def test_products_are_taken_in_the_precision_that_the_device_multiplies_fast(base, tmp_path, monkeypatch, pays):
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: pays)
    target = read_target(write_lines(tmp_path / "target.jsonl", toy_rows()))
    model, tokenizer = load_base(base)
    seen = set()
    model.encoder.layer[0].intermediate.dense.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    tuned = tune(model, tokenizer, target, TuningPlan(LORA, steps=2))
    wanted = torch.bfloat16 if pays else torch.float32
    assert seen == {wanted}
    assert model.encoder.layer[0].intermediate.dense.weight.dtype == wanted
    predict(tuned, target)
    assert seen == {wanted}


def test_dropout_keeps_its_share_and_its_mean():
    values = torch.ones(400, 500, requires_grad=True)
    with CheapChances(0):
        out = F.dropout(values, 0.1)
    kept = out != 0
    assert abs(kept.float().mean().item() - 0.9) < 0.003  # five standard deviations
    assert torch.allclose(out[kept], torch.tensor(1 / 0.9))
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())
    # No pattern along either axis.
    assert (kept.float().mean(0) - 0.9).abs().max() < 0.09
    assert (kept.float().mean(1) - 0.9).abs().max() < 0.08


def test_dropout_that_is_off_or_total():
    values = torch.randn(3, 5)
    with CheapChances(0):
        assert F.dropout(values, 0.1, training=False) is values
        assert F.dropout(values, 0.0) is values
        assert not F.dropout(values, 1.0).any()
        assert torch.nn.Dropout(0.5).eval()(values) is values


def test_same_seed_same_chances_and_torch_is_not_asked():
    values = torch.ones(64)
    before = torch.get_rng_state()

    def drawn(seed):
        with CheapChances(seed):
            return F.dropout(values, 0.5), F.dropout(values, 0.5)

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


def masks():
    seen = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    seen[1, :, :, 3:] = False
    bias = torch.zeros(2, 1, 1, 5).masked_fill(~seen[:, :, :1], torch.finfo(torch.float32).min)
    return {"none": (None, False), "bool": (seen, False), "float": (bias, False), "causal": (None, True)}


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_is_torch_s_but_for_what_is_dropped(monkeypatch, name, scale):
    mask, causal = masks()[name]
    monkeypatch.setattr(CheapChances, "_kept", lambda self, shape, p, dtype: torch.ones(shape, dtype=dtype))
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3))
    weights = torch.randn(2, 3, 5, 4)
    results = []
    for chances in (0.0, 0.1):
        with CheapChances(0):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=chances, is_causal=causal, scale=scale)
        results.append((out.detach(), *torch.autograd.grad((out * weights).sum(), (q, k, v))))
    for plain, own in zip(*results, strict=True):
        assert torch.allclose(plain, own, atol=1e-5)


def test_attention_drops_shares_and_its_gradients_know():
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 2, 6, 4, requires_grad=True) for _ in range(3))
    with CheapChances(5):
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.3)
    kept = CheapChances(5)._kept((1, 2, 6, 6), 0.3, torch.float32)
    by_hand = (torch.softmax(q @ k.transpose(2, 3) / 2, -1) * kept) @ v
    assert 0 < (kept == 0).sum() < kept.numel()
    assert torch.allclose(out, by_hand, atol=1e-6)
    for own, hand in zip(
        torch.autograd.grad(out.square().sum(), (q, k, v)), torch.autograd.grad(by_hand.square().sum(), (q, k, v)), strict=True
    ):
        assert torch.allclose(own, hand, atol=1e-5)


def test_a_row_that_sees_nothing_is_finite():
    q = torch.randn(1, 1, 3, 4)
    blind = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    with CheapChances(0):
        out = F.scaled_dot_product_attention(q, q, q, attn_mask=blind, dropout_p=0.1)
        minus = F.scaled_dot_product_attention(q, q, q, attn_mask=blind.float().log(), dropout_p=0.1)
    assert torch.isfinite(out).all()
    assert torch.isfinite(minus).all()


def test_grouped_queries_are_left_to_torch():
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    with CheapChances(0):
        assert F.scaled_dot_product_attention(q, k, k, dropout_p=0.1, enable_gqa=True).shape == q.shape


def test_activations_computed_twice_meet_the_same_chances(base, tmp_path, monkeypatch):
    """With checkpointing on from the start, and only torch's own chances kept for the second time."""
    from hubrank.target import tuning

    plain = tensors(base, tmp_path, seed=1)
    made = tuning._Loop.__init__

    def twice(self, *args, **options):
        made(self, *args, **options)
        self._checkpointing = True
        self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    once = tuning._Loop.__init__

    def only_flagged(self, *args, **options):
        once(self, *args, **options)
        self._checkpointing = True

    monkeypatch.setattr(tuning._Loop, "__init__", twice)
    checkpointed = tensors(base, tmp_path, seed=1)
    monkeypatch.setattr(tuning._Loop, "__init__", only_flagged)
    kept = tensors(base, tmp_path, seed=1)
    assert all(np.allclose(checkpointed[name], kept[name], atol=1e-5) for name in kept)
    assert not all(np.allclose(plain[name], kept[name], atol=1e-5) for name in kept)
