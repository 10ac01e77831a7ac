"""What the base's modules read of a target's rows: each row as if it were alone, and nothing of the base changed."""

from __future__ import annotations

import numpy as np
import pytest

from hubrank.checkpoints.architectures import site_of
from hubrank.target import site_inputs as module
from hubrank.target.base import load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.site_inputs import site_inputs, space_of
from tests.ranking.builders import HIDDEN, make_base, modules, one_thread, toy_rows, write_lines

SITES = [site_of(name) for name in modules()]
SPACES = sorted({space_of(site) for site in SITES})
WIDE = ("encoder", 1, "ffn.hidden")


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    """Whatever units this machine has: rows that come together in another way are else rounded in another way."""
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


@pytest.fixture
def target(tmp_path):
    return read_target(write_lines(tmp_path / "toy.jsonl", toy_rows()))


def seen_alone(base, text, path):
    """The mean over the tokens of what a module reads, of one text without padding."""
    import torch

    model, tokenizer = load_base(base)
    caught = []
    model.get_submodule(path).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.inference_mode():
        model.eval()(**tokenizer(text, return_tensors="pt"))
    return caught[0][0].mean(0).numpy()


def test_each_row_as_if_it_were_alone(base, target):
    found = site_inputs(*load_base(base), target, [*SPACES, WIDE], device="cpu")
    assert sorted(found.spaces) == sorted([*SPACES, WIDE])
    assert {space: x.shape for space, x in found.spaces.items()} == {
        **dict.fromkeys(SPACES, (24, HIDDEN)),
        WIDE: (24, 64),
    }
    # Rows come in the order of their lengths, so that labels say which is which only together with the text.
    for path in ("encoder.layer.1.attention.self.query", "encoder.layer.1.output.dense"):
        expected = np.stack([seen_alone(base, text, path) for text in target.texts])
        got = found.spaces[space_of(site_of(path))]
        nearest = ((got[:, None] - expected[None]) ** 2).sum(2).argmin(1)
        assert np.allclose(got, expected[nearest], atol=1e-5)
        assert (np.asarray(target.labels)[nearest] == found.labels).all()
        assert len({target.texts[i] for i in nearest}) == len(set(target.texts))


def test_a_device_that_multiplies_in_bfloat16_pools_in_float32(base, target, monkeypatch):
    """Found on a GPU: autocast took the mean over tokens for a product, and numpy has no bfloat16."""
    expected = site_inputs(*load_base(base), target, [*SPACES, WIDE], device="cpu")
    monkeypatch.setattr("hubrank.target.frameworks.bfloat16_pays", lambda device: True)
    found = site_inputs(*load_base(base), target, [*SPACES, WIDE], device="cpu")
    assert found.labels.tolist() == expected.labels.tolist()
    for space, x in expected.spaces.items():
        assert found.spaces[space].dtype == np.float32
        np.testing.assert_allclose(found.spaces[space], x, atol=0.03 * np.abs(x).max())
    # What the first layer reads was never multiplied.
    np.testing.assert_allclose(found.spaces[SPACES[0]], expected.spaces[SPACES[0]], rtol=1e-5, atol=1e-6)


def test_query_key_and_value_read_one_space():
    paths = [f"encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")]
    assert len({space_of(site_of(path)) for path in paths}) == 1


def test_the_model_is_as_it_was(base, target):
    import torch

    model, tokenizer = load_base(base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    site_inputs(model, tokenizer, target, SPACES, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_the_model_lacks_is_left_out(base, target):
    found = site_inputs(
        *load_base(base), target, [*SPACES, ("decoder", 0, "attention.in"), ("encoder", 9, "ffn.in")], device="cpu"
    )
    assert sorted(found.spaces) == SPACES
    assert site_inputs(*load_base(base), target, [("", -1, "embeddings.word_embeddings")], device="cpu").spaces == {}


def test_words_of_a_tagging(base, tmp_path):
    rows = [{"tokens": ["w1", "w2", "w3"], "tags": ["O", "B-x", "O"]}, {"tokens": ["w4", "w1"], "tags": ["B-x", "O"]}] * 6
    target = read_target(write_lines(tmp_path / "tags.jsonl", rows))
    found = site_inputs(*load_base(base), target, SPACES, device="cpu")
    assert {x.shape for x in found.spaces.values()} == {(30, HIDDEN)}
    assert sorted(np.unique(found.labels, return_counts=True)[1].tolist()) == [12, 18]


def test_a_large_target_is_sampled(base, target, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 10)
    found = site_inputs(*load_base(base), target, SPACES, device="cpu")
    assert {len(x) for x in found.spaces.values()} == {len(found.labels)} == {10}
    assert found.whole


def test_of_many_words_some_are_kept(base, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    rows = [{"tokens": [f"w{(i + j) % 40}" for j in range(20)], "tags": ["a", "b"] * 10} for i in range(40)]
    target = read_target(write_lines(tmp_path / "tags.jsonl", rows))
    found = site_inputs(*load_base(base), target, SPACES, device="cpu")
    assert {x.shape for x in found.spaces.values()} == {(40, HIDDEN)}
    assert 5 < found.labels.sum() < 35
    again = site_inputs(*load_base(base), target, SPACES, device="cpu")
    assert all((again.spaces[space] == x).all() for space, x in found.spaces.items())


def test_a_clock_that_has_run_out_leaves_a_batch_and_not_the_shortest(base, tmp_path):
    """Length may go with the label."""
    rows = [{"text": " ".join(["w1"] * (1 + i // 4)), "label": "long" if i > 60 else "short"} for i in range(120)]
    target = read_target(write_lines(tmp_path / "toy.jsonl", rows))
    found = site_inputs(*load_base(base), target, SPACES, device="cpu", until=0.0)
    assert {len(x) for x in found.spaces.values()} == {len(found.labels)}
    assert 0 < len(found.labels) < 60
    assert not found.whole
    parts = [part.tolist() for part, _, _ in all_batches(base, target)]
    assert sorted(row for part in parts for row in part) == list(range(120))
    assert parts != sorted(parts)


def all_batches(base, target):
    import torch

    from hubrank.target.features import batches_of
    from hubrank.target.methods import Placement
    from hubrank.target.objectives import objective_for
    from hubrank.target.tuning import TuningPlan, reader_of

    model, tokenizer = load_base(base)
    objective = objective_for(target, reader_of(model, tokenizer, target, TuningPlan(Placement("lora"))))
    return list(batches_of(torch, model.eval(), objective, "cpu", shuffled=True))


def test_a_module_that_reads_something_else_too(base, target):
    """DeBERTa's share their projections with the relative positions, which they read after the tokens."""
    import torch

    expected = site_inputs(*load_base(base), target, SPACES, device="cpu")
    model, tokenizer = load_base(base)
    for layer in model.encoder.layer:
        attention, query = layer.attention.self, layer.attention.self.query

        def forward(states, *args, _query=query, _own=attention.forward, **given):
            out = _own(states, *args, **given)
            _query(torch.zeros(1, 7, HIDDEN))
            _query(torch.zeros(3, HIDDEN))
            return out

        attention.forward = forward
    found = site_inputs(model, tokenizer, target, SPACES, device="cpu")
    assert all((found.spaces[space] == x).all() for space, x in expected.spaces.items())


def test_flat_tokens_are_rows_again(target):
    """OPT's feed-forward reads them so."""
    import torch

    picker = module._Picker(torch, target)
    picker.take({"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])})
    x = torch.arange(12.0).view(2, 3, 2)
    for inputs in (x, x.flatten(0, 1)):
        picker.caught.clear()
        picker.catch(SPACES[0], inputs)
        assert picker.caught[SPACES[0]].tolist() == [[1.0, 2.0], [8.0, 9.0]]
    picker.catch(SPACES[1], x.long())
    picker.catch(SPACES[1], x[:, :2])
    assert list(picker.caught) == [SPACES[0]]


def test_a_batch_that_does_not_fit_is_read_in_parts(base, target):
    import torch

    expected = site_inputs(*load_base(base), target, SPACES, device="cpu")
    model, tokenizer = load_base(base)
    last, own = model.encoder.layer[1], model.encoder.layer[1].forward

    def forward(states, *args, **given):
        if len(states) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return own(states, *args, **given)

    last.forward = forward
    found = site_inputs(model, tokenizer, target, SPACES, device="cpu")
    order, other = (np.lexsort(one.spaces[SPACES[0]].round(4).T) for one in (found, expected))
    assert (found.labels[order] == expected.labels[other]).all()
    assert all(np.allclose(found.spaces[s][order], expected.spaces[s][other], atol=1e-5) for s in SPACES)


@pytest.mark.parametrize(
    ("variant", "slot"), [("seq_bn", "output"), ("double_seq_bn", "attention.output"), ("par_bn", "output")]
)
def test_bottlenecks_read_where_their_library_lets_them(base, target, variant, slot):
    """Idle ones leave the base as it is: what reaches them is what would reach a source's on the same base."""
    import torch

    spaces = [("encoder", layer, f"{slot}.adapters") for layer in (0, 1)]
    placement = Placement("bottleneck", size=4, variant=variant)
    state = torch.random.get_rng_state()
    found = site_inputs(*load_base(base), target, [*spaces, *SPACES], device="cpu", placement=placement)
    assert (torch.random.get_rng_state() == state).all()
    assert sorted(found.spaces) == sorted([*spaces, *SPACES])
    plain = site_inputs(*load_base(base), target, SPACES, device="cpu")
    for space in SPACES:  # of the second layer, after the first layer's bottleneck
        assert np.allclose(found.spaces[space], plain.spaces[space], atol=1e-5)
    if variant == "seq_bn":  # Pfeiffer's reads what the next layer reads
        assert np.allclose(found.spaces[spaces[0]], plain.spaces["encoder", 1, "attention.in"], atol=1e-5)


def test_numbers_that_are_not_finite_are_left_out(base, target):
    import torch

    model, tokenizer = load_base(base)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[0] = float("nan")
    assert sorted(site_inputs(model, tokenizer, target, SPACES, device="cpu").spaces) == [("encoder", 0, "attention.in")]
