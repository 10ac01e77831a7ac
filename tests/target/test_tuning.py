"""The tuning loop: its order, its rate, and that it learns, repeatably, what peft could publish."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubrank.checkpoints.peft_lora import read_lora
from hubrank.errors import BaseModelError
from hubrank.target.base import load_base
from hubrank.target.batching import batch_order
from hubrank.target.frameworks import import_torch
from hubrank.target.methods import Placement
from hubrank.target.objectives import Reader
from hubrank.target.objectives.inputs import encode, pooled_states
from hubrank.target.objectives.pooled import scaled_values
from hubrank.target.rows import Target, read_target
from hubrank.target.tuning import TuningPlan, _rate, predict, tune
from tests.ranking.builders import HIDDEN, make_base, modules, one_thread, toy_rows, write_lines

LORA = Placement("lora", tuple(modules()), 4, 8.0)
PLAN = TuningPlan(LORA, steps=6)


# The order of the rows.


@example(rows=17, size=16, steps=8, seed=0)
@example(rows=8, size=16, steps=3, seed=0)
@given(rows=st.integers(2, 300), size=st.integers(2, 20), steps=st.integers(1, 60), seed=st.integers(0, 5))
def test_every_row_is_used_about_equally(rows, size, steps, seed):
    lengths = np.random.default_rng(7).integers(3, 60, size=rows)
    order = list(batch_order(lengths, steps=steps, batch_size=size, seed=seed))
    assert len(order) == steps
    assert all(2 <= len(batch) <= size + 1 for batch in order)
    assert all(len(set(batch.tolist())) == len(batch) for batch in order)
    times = Counter(np.concatenate(order).tolist())
    used = [times[row] for row in range(rows)]
    assert max(used) - min(used) <= 1


def test_same_seed_same_order():
    lengths = np.arange(50)
    orders = [np.concatenate(list(batch_order(lengths, steps=6, batch_size=16, seed=seed))) for seed in (3, 3, 4)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_fewer_rows_than_a_batch():
    order = list(batch_order(np.full(8, 5), steps=3, batch_size=16, seed=0))
    assert [sorted(batch.tolist()) for batch in order] == [list(range(8))] * 3


def test_rows_of_like_length_come_together():
    """Sorting within pools keeps the padding small; without it these rows would be padded by 80 %."""
    lengths = np.random.default_rng(0).integers(5, 128, size=512)
    padded = real = 0
    for batch in batch_order(lengths, steps=32, batch_size=16, seed=0):
        padded += len(batch) * int(lengths[batch].max())
        real += int(lengths[batch].sum())
    assert padded < 1.15 * real


# The rate.


@given(steps=st.integers(1, 500), warmup=st.floats(0, 1))
def test_the_rate_rises_then_falls_to_zero(steps, warmup):
    plan = replace(PLAN, steps=steps, warmup=warmup)
    rates = np.array([_rate(step, plan) for step in range(steps + 1)])
    peak = int(rates.argmax())
    assert rates[peak] == 1.0
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak + 1 :]) < 0).all()
    assert (rates[:-1] > 0).all()
    assert rates[-1] == 0.0
    assert abs(peak + 1 - warmup * steps) <= 1


# Tuning.


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


def target_of(folder, rows) -> Target:
    return read_target(write_lines(folder / "target.jsonl", rows))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return target_of(tmp_path_factory.mktemp("target"), toy_rows())


def tuned(base, target, plan=PLAN, **options):
    """A fresh copy of the base, tuned."""
    return tune(*load_base(base), target, plan, **options)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_it_learns_a_task_that_can_be_learnt(base, target):
    run = tuned(base, target, replace(PLAN, steps=60, learning_rate=1e-2))
    assert len(run.losses) == 10
    assert 0.5 < run.losses[0] < 1.0  # near log 2: it starts from chance
    assert run.losses[-1] < run.losses[0] / 3
    assert run.seconds > 0


def test_same_seed_same_tensors_and_another_seed_others(base, target):
    first, again, other = (tuned(base, target, replace(PLAN, seed=seed)).tensors() for seed in (5, 5, 6))
    assert same(first, again)
    assert not same(first, other)


def test_the_callers_random_state_is_left_alone(base, target):
    torch = import_torch()
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 -- the global state is what this is about
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = tuned(base, target).tensors()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(12)
    assert same(tuned(base, target).tensors(), first)


def test_every_step_is_reported(base, target):
    heard = []
    tuned(base, target, on_step=lambda done, total: heard.append((done, total)))
    assert heard == [(step, PLAN.steps) for step in range(1, PLAN.steps + 1)]


def test_a_single_step_moves_something(base, target):
    run = tuned(base, target, replace(PLAN, steps=1))
    assert len(run.losses) == 1
    assert all(np.abs(tensor).max() > 0 for tensor in run.tensors().values())


def test_what_comes_out_is_read_like_a_published_adapter(base, target):
    run = tuned(base, target)
    adapter = read_lora(run.config(), run.tensors(), base.name)
    assert [str(delta.site) for delta in adapter.deltas] == [
        f"encoder.{layer}.attention.self.{module}" for layer in (0, 1) for module in ("query", "value")
    ]
    assert {(delta.down.shape, delta.up.shape, delta.down.dtype) for delta in adapter.deltas} == {
        ((LORA.size, HIDDEN), (HIDDEN, LORA.size), np.dtype(np.float32))
    }
    assert (adapter.method, adapter.base, adapter.warnings) == ("lora", base.name, ())
    # The update itself, scale and all: the tuned weight less the base's.
    layer = run.attached.model.base_model.model.encoder.layer[1].attention.self.query
    change = layer.get_delta_weight("default").detach().numpy()
    delta = adapter.deltas[2]
    assert np.allclose(delta.up @ delta.down, change, atol=1e-7)
    assert np.abs(change).max() > 1e-6


def test_pairs(base, tmp_path):
    rows = toy_rows(16)
    pair = target_of(tmp_path, [row | {"text_pair": rows[-i]["text"]} for i, row in enumerate(rows)])
    assert np.isfinite(tuned(base, pair).losses).all()


def test_the_two_texts_of_a_pair_are_told_apart(base, tmp_path):
    rows = [{"text": "w1 w2 w3", "text_pair": "w4", "label": i % 2} for i in range(8)]
    _, tokenizer = load_base(base)
    target = target_of(tmp_path, rows)
    reader = Reader(tokenizer, "encoder", 128, kinds=True)
    found = encode(reader, target.texts, target.pairs)
    arrays = found.arrays(reader, range(8))
    assert arrays["input_ids"].shape == (8, 7)
    assert arrays["token_type_ids"][0].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert encode(reader, target.texts, None).kinds is None
    assert encode(replace(reader, kinds=False), target.texts, target.pairs).kinds is None


def test_long_rows_are_cut_to_the_plan_and_to_the_model(base, tmp_path):
    rows = [{"text": "w1 " * 500, "label": i % 2} for i in range(8)]
    _, tokenizer = load_base(base)
    target = target_of(tmp_path, rows)
    found = encode(Reader(tokenizer, "encoder", 20), target.texts, None)
    assert ({len(row) for row in found.ids}, found.cut) == ({20}, 8)
    run = tuned(base, target, replace(PLAN, steps=1, max_length=4000))
    assert run.reader.room == 128  # the tokenizer's model_max_length
    assert run.notes == ("8 rows cut to 128 tokens",)


def test_regression_learns(base, tmp_path):
    rows = [{"text": row["text"], "label": 1000.5 if row["label"] == "left" else 1003.0} for row in toy_rows()]
    run = tuned(base, target_of(tmp_path, rows), replace(PLAN, steps=40, learning_rate=1e-2))
    assert run.losses[0] < 3  # standardised: raw, it would start at a million
    assert run.losses[-1] < run.losses[0] / 2


@pytest.mark.parametrize(
    "values",
    [(0.5, 1.5), (1e14 + 0.5, 1e14 + 1.5), (-1e15, 1e15 - 0.5), (1e-300, 2e-300), (5e-324, 0.0), (1.0, 1.0 + 2**-52)],
    ids=str,
)
def test_any_two_values_make_a_finite_scale(tmp_path, values):
    """Also those that are one in float32, or whose squares vanish."""
    rows = [{"text": "a", "label": values[i % 2]} for i in range(8)]
    target = target_of(tmp_path, rows)
    assert target.task == "regression"
    scaled = scaled_values(target.labels)
    sign = np.sign(values[0] - values[1])
    assert np.allclose(scaled, [sign, -sign] * 4, atol=1e-3)


def test_a_regression_over_huge_values_stays_finite(base, tmp_path):
    rows = [{"text": "w1", "label": 1e14 + i % 2 + 0.5} for i in range(8)]
    assert np.isfinite(tuned(base, target_of(tmp_path, rows), replace(PLAN, steps=2)).losses).all()


@pytest.mark.parametrize("names", [("no.such.module",), ()])
def test_modules_that_do_not_exist(base, target, names):
    with pytest.raises(BaseModelError, match="none of the modules"):
        tuned(base, target, replace(PLAN, placement=replace(LORA, modules=names)))


def test_a_loss_that_is_not_finite_is_reported(base, target):
    torch = import_torch()
    model, tokenizer = load_base(base)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight.fill_(float("nan"))
    with pytest.raises(BaseModelError, match="stopped being finite at step 1 of 6"):
        tune(model, tokenizer, target, PLAN)


def test_pooling_is_the_mean_over_real_tokens_or_the_last_of_them(base):
    torch = import_torch()
    model, _ = load_base(base)
    model.eval()
    random = np.random.default_rng(0)
    ids, sizes = random.integers(5, 40, size=(3, 9)), np.array([9, 4, 1])
    mask = torch.as_tensor((np.arange(9) < sizes[:, None]).astype(np.int64))
    with torch.no_grad():
        out = model(input_ids=torch.as_tensor(ids), attention_mask=mask)
        means, ends = (pooled_states(torch, out, mask, last=last).numpy() for last in (False, True))
        for row, size, mean, end in zip(ids, sizes, means, ends, strict=True):
            alone = model(input_ids=torch.as_tensor(row[None, :size])).last_hidden_state[0].numpy()
            assert np.allclose(mean, alone.mean(axis=0), atol=1e-5)
            assert np.allclose(end, alone[-1], atol=1e-5)


def test_outputs_of_the_head_come_in_the_order_of_the_rows(base, target):
    run = tuned(base, target, replace(PLAN, steps=60, learning_rate=1e-2))
    outputs = predict(run, target, batch_size=5)
    assert outputs.shape == (24, 2)
    assert np.mean(outputs.argmax(axis=1) == np.array(target.labels)) > 0.9


# Snapshots, and stopping.


def test_a_run_that_is_stopped_is_the_beginning_of_the_whole(base, target):
    """The rate follows the plan, not the end."""
    seen = {}

    def look(step, attached):
        seen[step] = attached.tensors()
        return False

    plan = replace(PLAN, steps=12, every=4)
    whole = tuned(base, target, plan, on_snapshot=look)
    stopped = tuned(base, target, plan, on_snapshot=lambda step, attached: step == 8)
    assert (list(seen), whole.steps, stopped.steps) == ([4, 8, 12], 12, 8)
    assert same(stopped.tensors(), seen[8])
    assert same(whole.tensors(), seen[12])
    assert not same(seen[8], seen[12])


def test_looking_changes_nothing(base, target):
    watched = tuned(base, target, replace(PLAN, every=1), on_snapshot=lambda step, attached: False)
    assert same(watched.tensors(), tuned(base, target).tensors())


def test_a_run_ends_after_the_step_in_which_its_time_is_up(base, target):
    run = tuned(base, target, until=0.0)
    assert run.steps == 1
    assert len(run.losses) == 1


# Memory.


def short_of_memory(model, most):
    """A model that cannot take more than so many rows at a time; the sizes it was asked for."""
    torch = import_torch()
    asked, forward = [], model.forward

    def limited(*args, **kwargs):
        rows = len(kwargs["input_ids"])
        asked.append(rows)
        if rows > most or (most == 0 and not model.is_gradient_checkpointing):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*args, **kwargs)

    model.forward = limited
    return asked


def without_dropout(base):
    """Parts of a batch draw other random numbers than the whole."""
    model, tokenizer = load_base(base)
    for module in model.modules():
        if isinstance(module, import_torch().nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return model, tokenizer


def test_batches_are_halved_until_they_fit_and_the_result_is_the_same(base, target, monkeypatch):
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: False)  # it rounds sums of halves
    model, tokenizer = without_dropout(base)
    asked = short_of_memory(model, 5)
    run = tune(model, tokenizer, target, PLAN)
    assert asked[:3] == [16, 8, 4]
    assert max(asked[3:]) == 4
    assert run.steps == PLAN.steps
    assert run.notes == tuple(f"memory ran short: batches are worked off {n} rows at a time" for n in (8, 4))
    whole = tune(*without_dropout(base), target, PLAN).tensors()
    for name, tensor in run.tensors().items():
        assert np.allclose(tensor, whole[name], atol=1e-4)
    assert max(np.abs(whole[name]).max() for name in whole) > 0.1


def test_then_activations_are_computed_twice_and_then_it_gives_up(base, target):
    model, tokenizer = load_base(base)
    asked = short_of_memory(model, 0)
    with pytest.raises(BaseModelError, match="one row at a time does not fit the memory of cpu"):
        tune(model, tokenizer, target, PLAN)
    assert model.is_gradient_checkpointing
    assert asked[:5] == [16, 8, 4, 2, 1]


def test_another_error_is_not_taken_for_a_lack_of_memory(base, target):
    model, tokenizer = load_base(base)

    def broken(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.forward = broken
    with pytest.raises(RuntimeError, match="mat1"):
        tune(model, tokenizer, target, PLAN)
