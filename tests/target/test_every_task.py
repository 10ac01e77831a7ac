"""Every task on every kind of base by every method: tuned a few steps, and read like a published adapter."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.errors import BaseModelError
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.architecture import GENERATES, architecture_of, head_kind
from hubrank.target.base import load_base
from hubrank.target.methods import METHODS, Placement
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, tune
from tests.ranking.builders import one_thread, write_lines
from tests.target.bases import KINDS, TASKS, placed

SITES = {
    "lora": {"attention.self.query", "attention.self.value"},
    "bottleneck": {"output.adapters"},
    "prefix": {"prefix.key.shift", "prefix.value.shift", "prefix.product"},
    "prompt": {"prompt", "prompt.shift"},
    "bias": {"attention.self.query.bias.shift"},
    "ia3": {"attention.self.query", "attention.self.query.shift"},
}


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


def run(base, kind, method, target, **changes):
    model, tokenizer = load_base(base)
    head = head_kind(target.task, architecture_of(model.config), base.name)
    if head != "none":
        model, tokenizer = load_base(base, head=head)
    return tune(model, tokenizer, target, TuningPlan(placed(model, kind, method), **{"steps": 2, **changes}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_on_every_base(bases, targets, kind, task):
    base, target = bases(kind), targets[task]
    if kind == "bert" and task in GENERATES:
        with pytest.raises(BaseModelError, match=f"tiny/bert is an encoder and writes no text, which {task} needs"):
            run(base, kind, "lora", target)
        return
    tuned = run(base, kind, "lora", target)
    assert (tuned.steps, np.isfinite(tuned.losses).all()) == (2, True)
    adapter = tuned.attached.adapter(base.name)
    stacks = {"bert": {"encoder"}, "t5": {"encoder", "decoder"}, "bart": {"encoder", "decoder"}}.get(kind, {""})
    assert {delta.site.stack for delta in adapter.deltas} == stacks
    assert sign_adapter(adapter).factors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_base(bases, targets, kind, method):
    target = targets["classification" if kind == "bert" else "seq2seq"]
    tuned = run(bases(kind), kind, method, target)
    adapter = tuned.attached.adapter("tiny/any")
    assert adapter.method == method
    assert len(sign_adapter(adapter).factors) > 0
    assert tuned.attached.virtual == (4 if method == "prompt" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_sites_are_those_of_published_adapters(bases, targets, method):
    signature = sign_adapter(run(bases("bert"), "bert", method, targets["classification"]).attached.adapter("b"))
    modules = {site.module for site in signature.sites}
    assert modules >= SITES[method]


@pytest.mark.parametrize("task", ["classification", "tagging", "qa"])
def test_prompts_and_prefixes_on_tasks_inside_the_text(bases, targets, task):
    """A soft prompt's own tokens are none of the text's."""
    for method in ("prompt", "prefix", "bottleneck"):
        assert np.isfinite(run(bases("bert"), "bert", method, targets[task]).losses).all()


def test_a_task_that_can_be_learnt_is_learnt(bases, tmp_path):
    """Tags that follow from the words; a completion that follows from the prompt."""
    tagged = [{"tokens": [f"w{i}", f"w{i + 20}", f"w{i + 1}"], "tags": ["A", "B", "A"]} for i in range(16)]
    target = read_target(write_lines(tmp_path / "tags.jsonl", tagged))
    losses = run(bases("bert"), "bert", "lora", target, steps=60, learning_rate=1e-2).losses
    assert losses[-1] < losses[0] / 2
    told = [{"prompt": f"w{i} w{i + 1}", "completion": (" w7 w8", " w9 w8")[i % 2]} for i in range(16)]
    target = read_target(write_lines(tmp_path / "told.jsonl", told))
    losses = run(bases("gpt2"), "gpt2", "lora", target, steps=60, learning_rate=3e-2).losses
    assert losses[-1] < losses[0] - 0.2  # a random model learns slowly


def test_a_base_that_the_adapters_library_cannot_take(bases, targets):
    import torch

    model, tokenizer = load_base(bases("bert"))

    class Unknown(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.config = model, model.config

    with pytest.raises(BaseModelError, match=r"the adapters library 1\.\S+ cannot take Unknown, which .* bottleneck needs"):
        tune(Unknown(), tokenizer, targets["classification"], TuningPlan(Placement("bottleneck")))
