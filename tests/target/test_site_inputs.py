"""What the base's modules read of a target's rows: each row as if it were alone, and nothing of the base changed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hubrank.checkpoints.architectures import site_of
from hubrank.target import site_inputs as module
from hubrank.target.base import load_base
from hubrank.target.rows import read_target
from hubrank.target.site_inputs import SiteInputs, site_inputs, space_of
from hubrank.target.site_inputs_files import inputs_key, read_inputs, write_inputs
from tests.ranking.builders import HIDDEN, make_base, modules, one_thread, toy_rows, write_lines

SITES = [site_of(name) for name in modules()]
SPACES = sorted({space_of(site) for site in SITES})
WIDE = ("encoder", 1, "ffn.hidden")


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


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


def test_a_clock_that_has_run_out_leaves_a_batch(base, tmp_path):
    target = read_target(write_lines(tmp_path / "toy.jsonl", toy_rows(100)))
    found = site_inputs(*load_base(base), target, SPACES, device="cpu", until=0.0)
    assert {len(x) for x in found.spaces.values()} == {len(found.labels)}
    assert 0 < len(found.labels) < 50


def test_numbers_that_are_not_finite_are_left_out(base, target):
    import torch

    model, tokenizer = load_base(base)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[0] = float("nan")
    assert sorted(site_inputs(model, tokenizer, target, SPACES, device="cpu").spaces) == [("encoder", 0, "attention.in")]


# Kept on disk.


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    spaces = {space: (10.0**i * random.normal(size=(5, 4))).astype(np.float32) for i, space in enumerate(SPACES)}
    return SiteInputs(spaces, np.arange(5))


def same(one, other):
    return (one.labels == other.labels).all() and all((one.spaces[s] == other.spaces[s]).all() for s in one.spaces)


def test_there_and_back(tmp_path, inputs):
    given = write_inputs(tmp_path, "key", inputs)
    found = read_inputs(tmp_path, "key")
    assert same(found, given)
    assert sorted(found.spaces) == SPACES
    for space, x in inputs.spaces.items():
        assert np.abs(found.spaces[space] - x).max() <= 1e-3 * np.abs(x).max()
    assert read_inputs(tmp_path, "other") is None


def test_a_table_of_labels(tmp_path, inputs):
    table = SiteInputs(inputs.spaces, np.eye(5))
    given = write_inputs(tmp_path, "key", table)
    assert same(read_inputs(tmp_path, "key"), given)
    assert read_inputs(tmp_path, "key").labels.shape == (5, 5)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"\xff" * 100])
def test_a_damaged_file_is_as_none(tmp_path, inputs, damage):
    write_inputs(tmp_path, "key", inputs)
    file = tmp_path / "inputs" / "key.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert read_inputs(tmp_path, "key") is None


def test_a_file_of_something_else_is_as_none(tmp_path, inputs):
    from safetensors.numpy import save_file

    write_inputs(tmp_path, "key", inputs)
    file = tmp_path / "inputs" / "key.safetensors"
    for arrays in (
        {"labels": np.arange(3), json.dumps(SPACES[0]): np.zeros((5, 4), np.float16)},
        {"labels": np.arange(5), "not a space": np.zeros((5, 4), np.float16)},
        {json.dumps(SPACES[0]): np.zeros((5, 4), np.float16)},
        {"labels": np.arange(4), json.dumps(SPACES[0]): np.zeros((5, 4)), f"scale {json.dumps(SPACES[0])}": np.ones(1)},
    ):
        save_file(arrays, file)
        assert read_inputs(tmp_path, "key") is None


def test_what_is_too_large_is_not_kept_but_the_same(tmp_path, inputs, monkeypatch):
    small = write_inputs(tmp_path, "small", inputs)
    monkeypatch.setattr("hubrank.target.site_inputs_files._LARGEST", 100)
    assert same(write_inputs(tmp_path, "large", inputs), small)
    assert [file.name for file in (tmp_path / "inputs").iterdir()] == ["small.safetensors"]


def test_the_name_says_what_decides_the_numbers(target, tmp_path):
    name = inputs_key(target, "base", SPACES, device="cpu")
    assert name == inputs_key(target, "base", reversed(SPACES), device="cpu:0")
    other = read_target(write_lines(tmp_path / "other.jsonl", toy_rows(seed=1)))
    changed = [
        inputs_key(other, "base", SPACES, device="cpu"),
        inputs_key(target, "other", SPACES, device="cpu"),
        inputs_key(target, "base", SPACES[1:], device="cpu"),
    ]
    assert len({name, *changed}) == 4
