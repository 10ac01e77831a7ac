"""A source put on the base is the model that its library would make of it, and the base is whole again afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.benchmark.source_model import SourceModel, fit_head
from hubrank.checkpoints.architectures import site_of
from hubrank.target.base import load_base
from hubrank.target.frameworks import import_peft, import_torch
from hubrank.types import Delta, Signature
from tests.ranking.builders import HIDDEN, make_base, modules, one_thread, random_deltas, sign, toy_rows

TEXTS = [row["text"] for row in toy_rows(10)]


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


@pytest.fixture
def model(base):
    return SourceModel(*load_base(base))


def test_a_worn_source_gives_what_peft_gives(base, model):
    torch, peft = import_torch(), import_peft()
    deltas = random_deltas(np.random.default_rng(0), modules())
    wrapped, tokenizer = load_base(base)
    config = peft.LoraConfig(task_type="FEATURE_EXTRACTION", r=4, lora_alpha=4, target_modules=["query", "value"])
    wrapped = peft.get_peft_model(wrapped, config).eval()
    state = {}
    for name, delta in zip(modules(), deltas, strict=True):
        state[f"base_model.model.{name}.lora_A.weight"] = torch.as_tensor(delta.down)
        state[f"base_model.model.{name}.lora_B.weight"] = torch.as_tensor(delta.up)
    peft.set_peft_model_state_dict(wrapped, state)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = wrapped(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    expected = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    with model.wearing(sign(deltas)):
        np.testing.assert_allclose(model.states(TEXTS, precise=True), expected, atol=2e-5)


def test_taking_it_off_leaves_the_base_as_it_was_even_after_a_fault(model):
    before = model.states(TEXTS, precise=True)
    signature = sign(random_deltas(np.random.default_rng(1), modules()))
    with model.wearing(signature):
        assert np.abs(model.states(TEXTS, precise=True) - before).max() > 1e-3
    with pytest.raises(RuntimeError), model.wearing(signature):
        raise RuntimeError
    np.testing.assert_array_equal(model.states(TEXTS, precise=True), before)


def test_what_cannot_be_put_on_is_said(model):
    wide = sign(random_deltas(np.random.default_rng(2), modules(), d=HIDDEN + 1))
    elsewhere = sign(random_deltas(np.random.default_rng(2), ["encoder.layer.7.attention.self.query"]))
    shift = sign(
        [Delta(site_of("encoder.layer.0.attention.self.query.shift"), np.ones((1, 1), np.float32), np.ones((4, 1), np.float32))]
    )
    assert model.why_not(Signature(())) is None
    assert "shifts" in model.why_not(shift)
    for signature in (wide, elsewhere):
        assert "no matrix" in model.why_not(signature)
        with pytest.raises(ValueError, match="no matrix"), model.wearing(signature):
            pass


@pytest.mark.parametrize("labels", [np.arange(10) % 3, np.linspace(-1, 1, 10)])
def test_fisher_information_is_the_mean_of_squared_gradients(model, labels):
    torch = import_torch()
    head = fit_head(model.states(TEXTS, precise=True), labels)
    found = model.fisher(TEXTS, None, labels, head)
    matrices = [model._modules[site].weight.requires_grad_(True) for site in sorted(model._modules)]
    expected = 0.0
    scaled = labels if labels.dtype.kind == "i" else ((labels - labels.mean()) / labels.std()).astype(np.float32)
    for text, label in zip(TEXTS, scaled, strict=True):
        hidden = model._model(**model._reader.tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)
        gradients = torch.autograd.grad(head.loss(torch, hidden, torch.as_tensor([label])), matrices)
        expected = expected + np.concatenate([gradient.square().mean(1).numpy() for gradient in gradients]) / len(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_the_head_learns_what_can_be_told():
    random = np.random.default_rng(0)
    labels = np.arange(30) % 3
    states = random.normal(size=(30, 5)) + 4 * np.eye(5)[labels]
    head = fit_head(states, labels)
    assert (states @ head.weight.numpy().T + head.bias.numpy()).argmax(1).tolist() == labels.tolist()
    numbers = states @ np.arange(5.0) / 10
    head = fit_head(states, numbers)
    assert np.corrcoef((states @ head.weight.numpy().T)[:, 0], numbers)[0, 1] > 0.99
