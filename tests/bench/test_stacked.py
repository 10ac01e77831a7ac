"""Many LoRAs side by side on one BERT: the numbers of peft and transformers, and no start knows of another."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.target.frameworks import import_peft, import_torch
from tests.ranking.builders import make_base

IDS = [[2, 7, 8, 9, 10, 11, 3], [2, 5, 6, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0, 0]]
SIZES = [7, 5, 3]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("stacked") / "base")


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def bert(bench, base, request, monkeypatch):
    for module in (bench.stacked, bench.classify):
        monkeypatch.setattr(module, "bfloat16_pays", lambda device: request.param)
    return bench.stacked.StackedBert(base, "cpu")


def lora(base, seed, rank, modules):
    """A peft model whose B is not zero, with its tensors."""
    torch, peft = import_torch(), import_peft()
    from hubrank.target.base import load_base

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(modules), init_lora_weights=False)
    model = peft.get_peft_model(load_base(base)[0], config)
    return model, {k: v.detach().clone() for k, v in peft.get_peft_model_state_dict(model).items()}


def tensors():
    torch = import_torch()
    return torch.tensor(IDS), torch.tensor(SIZES)


def of_peft(bench, model, *, training, seed=0):
    torch = import_torch()
    ids, sizes = tensors()
    torch.manual_seed(seed)
    starts = bench.classify.OneModel(torch, bench.classify.cast_once(model, "cpu"), "cpu")
    return starts.hidden(ids, sizes, None, training=training)[0]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "modules", [("query", "value"), ("query", "key", "value"), ("query", "value", "intermediate.dense", "output.dense")]
)
def test_each_start_has_the_hidden_states_and_the_gradients_that_it_has_alone_in_peft(bench, base, bert, modules, training):
    torch = import_torch()
    ids, sizes = tensors()
    models, adapters = zip(*(lora(base, seed, rank, modules) for seed, rank in ((1, 2), (2, 4), (3, 4))), strict=True)
    starts = bert.start(adapters, [2.0] * 3)
    torch.manual_seed(0)
    found = starts.hidden(ids, sizes, None, training=training)
    real = torch.tensor(IDS) != 0
    weights = torch.linspace(-1, 1, found.shape[-1])
    (found[:, real] * weights).sum().backward()
    for i, model in enumerate(models):
        expected = of_peft(bench, model, training=training)
        scale = expected[real].detach().abs().max()
        assert (found[i, real] - expected[real]).detach().abs().max() < 0.03 * scale
        (expected[real] * weights).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, (site, side) in starts.names.items():
            mine = (starts.down if side == "A" else starts.up)[site].grad[i]
            theirs = gradients[name.replace(".weight", ".default.weight")]
            mine = mine[: theirs.shape[0], : theirs.shape[1]]
            cosine = torch.nn.functional.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0)
            assert cosine > 0.99, name


def test_the_padding_of_a_smaller_rank_stays_zero_and_tuning_apart_is_tuning_together(bench, base, bert):
    torch = import_torch()
    adapters = [lora(base, seed, rank, ("query", "value"))[1] for seed, rank in ((1, 2), (2, 4))]
    rng = np.random.default_rng(0)
    ids = torch.tensor(rng.integers(5, 40, (32, 9)))
    rows = bench.classify.Encoded(ids, None, np.full(32, 9), rng.integers(0, 2, 32))
    task = bench.classify.Task("t", 32, 2, False, rows, rows)
    plan = bench.classify.Plan(steps=6, batch_size=8, learning_rate=5e-3, seed=1)
    together = bert.start(adapters, [2.0, 2.0])
    bench.classify.train_and_score(torch, together, task, plan, "cpu")
    small = together.tensors()[0]
    for name, tensor in small.items():
        assert not (tensor[2:] if "lora_A" in name else tensor[:, 2:]).any()
    for i, adapter in enumerate(adapters):
        alone = bert.start([adapter], [2.0])
        bench.classify.train_and_score(torch, alone, task, plan, "cpu")
        for name, tensor in alone.tensors()[0].items():
            mine = together.tensors()[i][name][: tensor.shape[0], : tensor.shape[1]]
            moved = (tensor - adapter[name]).norm()
            assert moved > 0
            assert (mine - tensor).norm() < 0.1 * moved, name


def test_each_start_is_clipped_by_its_own_norm(bench):
    torch = import_torch()
    gradients = [torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.zeros(2, 3, 3)]
    bench.classify.clip(torch, gradients, 2)
    assert torch.allclose(gradients[0], torch.tensor([[0.6, 0.8], [0.3, 0.4]]), atol=1e-5)
    alone = [torch.tensor([[3.0, 4.0]]), torch.full((2,), 12.0 / 2**0.5)]
    bench.classify.clip(torch, alone, 1)
    assert torch.allclose(alone[0], torch.tensor([[3.0, 4.0]]) / 13, atol=1e-5)


def test_adapters_of_other_sites_or_of_another_model_are_refused(bench, base, bert):
    one, two = (lora(base, 1, 2, modules)[1] for modules in (("query",), ("value",)))
    with pytest.raises(ValueError, match="same sites"):
        bert.start([one, two], [1.0, 1.0])
    with pytest.raises(ValueError, match="no site of BERT"):
        bert.start([{"model.layers.0.self_attn.q_proj.lora_A.weight": next(iter(one.values()))}], [1.0])


@pytest.mark.parametrize(
    ("modules", "sites", "fit"),
    [
        (["query", "value"], "qv", True),
        (["encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.value"], "qv", True),
        (["query"], "qv", False),
        (["query", "value", "key"], "qv", False),
        (["encoder.layer.0.attention.output.dense", "query", "value"], "qvo", True),
        (["encoder.layer.0.output.dense", "query", "value"], "qvo", False),
    ],
)
def test_a_source_is_known_by_whole_module_names_and_by_their_endings(bench, modules, sites, fit):
    assert bench.classify.matches(modules, bench.plan.Shape("lora", sites, 8, 16.0)) is fit
