"""One function, saved by peft and by adapters, in any dtype, name, rank and basis, is one signature.

Both libraries put the same numbers on the same tiny base model; that the models then compute the same is checked first.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from pathlib import Path

import adapters
import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.torch import save_file

from hubrank.checkpoints.reader import read_adapters
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.signatures.canonical import sign_adapter
from hubrank.signatures.encoding import decode_signature, encode_signature
from hubrank.signatures.views import THREE_VIEWS, similarity
from tests.checkpoints.peft_models import BASE, tiny_model

R, ALPHA, TOKENS = 4, 10, 5
TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}
HEADED = {"bert": "bert-head", "gpt2": "gpt2-lm", "llama": "llama-lm"}
TASKS = {"bert-head": "SEQ_CLS", "gpt2-lm": "CAUSAL_LM", "llama-lm": "CAUSAL_LM"}
FUSED = "c_attn"


def signed(folder):
    """The whole path, from a folder of files to a signature."""
    hub = FolderHub(folder)
    (listing,) = hub.discover(Query())
    (adapter,) = read_adapters(listing, hub.open(listing))
    assert adapter.base == BASE
    return sign_adapter(adapter)


def assert_same(one, other, third, tolerance=1e-4, stored=1e-2):
    """Equal in every view, to each other and to a third adapter, fresh and as the store gives them back."""
    assert one.sites == other.sites
    again = [decode_signature(encode_signature(signature)) for signature in (one, other, third)]
    for view in THREE_VIEWS:
        to_third = similarity(one, third, view)
        assert np.isfinite(to_third)
        if view.view == "compute":  # shifts all read the same
            assert abs(to_third) < 0.9, "or the comparison says nothing"
        assert similarity(other, third, view) == pytest.approx(to_third, abs=tolerance)
        assert similarity(one, other, view) == pytest.approx(1, abs=tolerance)
        for signature in again[:2]:
            assert similarity(signature, again[2], view) == pytest.approx(to_third, abs=stored)
        assert similarity(again[0], again[1], view) == pytest.approx(1, abs=stored)


def by_peft(kind, config, numbers, folder):
    """Save what a function of (name of a parameter, shape) gives as peft does; the model is returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(tiny_model(kind), config).eval()
        fill(model, numbers)
        model.save_pretrained(folder, save_embedding_layers=False)
    return model


def by_adapters(kind, config, numbers, folder, *, name="a1"):
    """The same as adapters does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny_model(kind)
        adapters.init(model)
        model.add_adapter(name, config=config)
        model.set_active_adapters(name)
        model.eval()
        fill(model, numbers)
        model.save_adapter(str(folder), name)
    return model


def fill(model, numbers):
    filled = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = numbers(name)
            if value is not None:
                parameter.copy_(torch.from_numpy(value))
                filled += 1
    assert filled


def assert_compute_the_same(one, other):
    ids = torch.arange(12).reshape(2, 6) + 3
    with torch.no_grad():
        a, b = (model(input_ids=ids, attention_mask=torch.ones_like(ids))[0].numpy() for model in (one, other))
        with one.disable_adapter():
            plain = one(input_ids=ids, attention_mask=torch.ones_like(ids))[0].numpy()
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(a - plain).max() > 1e-2, "or the adapter does nothing"


class Lora:
    """Random factors for the targets of every layer of one kind of model, as each library wants them."""

    def __init__(self, kind, seed):
        self.kind, self.rng, self.made = kind, np.random.default_rng(seed), {}
        d_value = 16 if kind == "llama" else 32
        for layer in (0, 1):
            for target in TARGETS[kind]:
                groups = 2 if target == FUSED else 1
                d_out = 64 if target == FUSED else d_value if target.startswith("v") else 32
                self.made[layer, target] = self.random(R * groups, 32), self.random(d_out, R)

    def random(self, *shape):
        return (0.3 * self.rng.standard_normal(shape)).astype(np.float32)

    def of(self, name):
        target = next((target for target in TARGETS[self.kind] if f".{target}." in name), None)
        return None if target is None else self.made[int(next(part for part in name.split(".") if part.isdigit())), target]

    def for_adapters(self, name):
        found = self.of(name) if ".loras." in name else None
        return None if found is None else found[name.endswith("lora_B")]

    def for_peft(self, name, mix=None, rank=0):
        """``mix`` writes it in another basis, ``rank`` pads it."""
        found = self.of(name) if ".lora_" in name else None
        if found is None:
            return None
        a, b = found
        if self.kind == "gpt2":  # peft has no blocks: zeros where the query's factors meet the value's rows
            wide = np.zeros((96, 2 * R), np.float32)
            wide[:32, :R], wide[64:, R:] = b[:32], b[32:]
            b = wide
        if mix is not None:
            change = mix(len(a))
            a, b = (change @ a).astype(np.float32), (b @ np.linalg.inv(change)).astype(np.float32)
        more = max(0, rank - len(a))
        a, b = np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more)))
        return b if "lora_B" in name else a

    def peft_config(self, rank=0):
        own = R * (2 if self.kind == "gpt2" else 1)
        r = rank or own
        return peft.LoraConfig(r=r, lora_alpha=ALPHA * r / R, target_modules=TARGETS[self.kind])

    def save_peft(self, folder, *, kind=None, rank=0, mix=None):
        return by_peft(kind or self.kind, self.peft_config(rank), lambda name: self.for_peft(name, mix, rank), folder)

    def save_adapters(self, folder, *, kind=None, **options):
        config = adapters.LoRAConfig(r=R, alpha=ALPHA, attn_matrices=["q", "v"])
        return by_adapters(kind or self.kind, config, self.for_adapters, folder, **options)


@pytest.fixture(params=TARGETS)
def lora(request, tmp_path):
    """A LoRA, its signature from peft's files, and that of another one."""
    one, third = Lora(request.param, 1), Lora(request.param, 2)
    one.save_peft(tmp_path / "plain")
    third.save_peft(tmp_path / "third")
    return one, signed(tmp_path / "plain"), signed(tmp_path / "third")


def test_a_lora_of_either_library(lora, tmp_path):
    one, plain, third = lora
    (tmp_path / "b").mkdir()
    assert_compute_the_same(one.save_peft(tmp_path / "a"), one.save_adapters(tmp_path / "b"))
    assert_same(plain, signed(tmp_path / "b"), third)


def test_a_model_with_a_head_and_one_without(lora, tmp_path):
    one, plain, third = lora
    one.save_peft(tmp_path / "a", kind=HEADED[one.kind])
    (tmp_path / "b").mkdir()
    one.save_adapters(tmp_path / "b", kind=HEADED[one.kind])
    assert_same(plain, signed(tmp_path / "a"), third)
    assert_same(plain, signed(tmp_path / "b"), third)


def test_an_adapter_of_another_name(lora, tmp_path):
    one, plain, third = lora
    (tmp_path / "b").mkdir()
    one.save_adapters(tmp_path / "b", name="lora_A")
    assert_same(plain, signed(tmp_path / "b"), third)
    tensors = {key.replace(".weight", ".mine.weight"): value for key, value in plain_tensors(tmp_path).items()}
    rewrite(tmp_path / "plain", tensors)
    assert_same(plain, signed(tmp_path / "plain"), third)


@settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from(sorted(TARGETS)),
    seed=st.integers(0, 2**32 - 2),
    name=st.text("abAB_019", min_size=1, max_size=12),
    headed=st.booleans(),
    more=st.integers(0, 5),
)
def test_any_lora_under_any_name_rank_head_and_library(kind, seed, name, headed, more):
    one, third = Lora(kind, seed), Lora(kind, seed + 1)
    model = HEADED[kind] if headed else kind
    with tempfile.TemporaryDirectory() as made:
        folders = {what: Path(made) / what for what in ("peft", "third", "adapters")}
        folders["adapters"].mkdir()
        one.save_peft(folders["peft"])
        third.save_peft(folders["third"])
        one.save_adapters(folders["adapters"], kind=model, name=f"x{name}")
        plain, other = signed(folders["peft"]), signed(folders["third"])
        assert_same(plain, signed(folders["adapters"]), other)
        one.save_peft(folders["peft"], kind=model, rank=more + one.peft_config().r)
        tensors = load_file(folders["peft"] / "adapter_model.safetensors")
        rewrite(folders["peft"], {key.replace(".weight", f".{name}.weight"): value for key, value in tensors.items()})
        assert_same(plain, signed(folders["peft"]), other)


def test_ranks_padded_with_zeros_and_another_basis(lora, tmp_path):
    one, plain, third = lora
    one.save_peft(tmp_path / "a", rank=11)
    assert_same(plain, signed(tmp_path / "a"), third)
    one.save_peft(tmp_path / "b", mix=lambda r: np.random.default_rng(3).standard_normal((r, r)), rank=13)
    assert_same(plain, signed(tmp_path / "b"), third)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float8_e4m3fn, 5e-2), (torch.float8_e5m2, 1e-1)],
    ids=["fp16", "bf16", "fp8-e4m3", "fp8-e5m2"],
)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_other_dtypes_and_kinds_of_files(lora, tmp_path, dtype, tolerance, suffix):
    _, plain, third = lora
    rewrite(tmp_path / "plain", plain_tensors(tmp_path), dtype=dtype, suffix=suffix)
    assert_same(plain, signed(tmp_path / "plain"), third, tolerance, max(tolerance, 1e-2))
    rewrite(tmp_path / "plain", plain_tensors(tmp_path), dtype=torch.float64, suffix=suffix)
    assert_same(plain, signed(tmp_path / "plain"), third, tolerance, max(tolerance, 1e-2))


def plain_tensors(tmp_path):
    path = tmp_path / "plain" / "adapter_model.safetensors"
    if path.exists():
        tensors = load_file(path) if not any(kind in path.read_bytes()[:2000] for kind in (b"BF16", b"F8_")) else {}
        if tensors:
            return tensors
        from safetensors.torch import load_file as load

        return {name: tensor.float().numpy() for name, tensor in load(path).items()}
    state = torch.load(path.with_suffix(".bin"), weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def rewrite(folder, tensors, *, dtype=torch.float32, suffix="safetensors"):
    for old in folder.glob("adapter_model.*"):
        old.unlink()
    state = {name: torch.from_numpy(np.array(value, np.float32)).to(dtype) for name, value in tensors.items()}
    path = folder / f"adapter_model.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)


@pytest.mark.parametrize("kind", HEADED.values())
def test_a_prefix_of_either_library(kind, tmp_path):
    """Outputs differ: in peft the prefix takes up positions, in adapters not. What attention gets is in each family's tests."""
    width = 2 * 2 * (16 if kind.startswith("llama") else 32)
    prefixes = [np.random.default_rng(seed).standard_normal((TOKENS, width)).astype(np.float32) for seed in (1, 2)]
    config = peft.PrefixTuningConfig(task_type=TASKS[kind], num_virtual_tokens=TOKENS)
    for folder in ("peft", "third", "adapters", "shuffled"):
        (tmp_path / folder).mkdir()

    def peft_numbers(prefix):
        return lambda name: prefix if "prompt_encoder" in name else None

    def adapters_numbers(name):
        return prefixes[0].ravel() if name.endswith("control_trans") else None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_peft(kind, copy.copy(config), peft_numbers(prefixes[0]), tmp_path / "peft")
        by_peft(kind, copy.copy(config), peft_numbers(prefixes[0][::-1].copy()), tmp_path / "shuffled")
        by_peft(kind, copy.copy(config), peft_numbers(prefixes[1]), tmp_path / "third")
        by_adapters(kind, f"prefix_tuning_flat[prefix_length={TOKENS}]", adapters_numbers, tmp_path / "adapters")
    plain, third = signed(tmp_path / "peft"), signed(tmp_path / "third")
    assert_same(plain, signed(tmp_path / "adapters"), third)
    assert_same(plain, signed(tmp_path / "shuffled"), third)


def by_place(targets, make):
    """Random numbers for each target of both layers, found by a parameter's name."""
    made = {(layer, target): make(d) for layer in "01" for target, d in targets.items()}

    def of(name):
        return next((made[layer, t] for layer, t in made if f".{layer}." in name and f".{t}." in name), None)

    return of


def test_vera_of_either_library(tmp_path):
    rng = np.random.default_rng(0)
    shared = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("A", (R, 32)), ("B", (32, R)))}

    def vectors(seed):
        rng = np.random.default_rng(seed)
        return by_place({"query": 32, "value": 32}, lambda d: [rng.standard_normal(n).astype(np.float32) for n in (d, R)])

    def peft_numbers(of):
        return lambda name: of(name)["vera_lambda_d" in name] if "vera_lambda_" in name else None

    def adapters_numbers(name):
        if "shared_parameters" in name:
            return shared[name[-1]]
        return np.diag(vectors(1)(name)["vera_D" in name]) if ".vera_" in name else None

    models = []
    for folder, seed in (("peft", 1), ("third", 2)):
        config = peft.VeraConfig(r=R, target_modules=["query", "value"], save_projection=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(tiny_model("bert-head"), config).eval()
            fill(model, peft_numbers(vectors(seed)))
            for name, value in shared.items():
                getattr(model.base_model, f"vera_{name}")["default"].copy_(torch.from_numpy(value))
            model.save_pretrained(tmp_path / folder)
        models.append(model)
    (tmp_path / "adapters").mkdir()
    config = adapters.VeraConfig(r=R, alpha=R, attn_matrices=["q", "v"])
    other = by_adapters("bert-head", config, adapters_numbers, tmp_path / "adapters")
    assert_compute_the_same(models[0], other)
    assert_same(signed(tmp_path / "peft"), signed(tmp_path / "adapters"), signed(tmp_path / "third"))
    (tmp_path / "base-class").mkdir()
    by_adapters("bert", config, adapters_numbers, tmp_path / "base-class")
    with pytest.raises(AdapterError, match="incomplete"):  # adapters 1.3.0 leaves out what the layers share
        signed(tmp_path / "base-class")


def test_ia3_of_either_library(tmp_path):
    targets = {"key": 32, "value": 32, "intermediate.dense": 48}

    def scales(seed):
        rng = np.random.default_rng(seed)
        of = by_place(targets, lambda d: np.exp(0.5 * rng.standard_normal((d, 1))).astype(np.float32))
        return lambda name: of(name) if "ia3_l" in name or name.endswith("lora_B") else None

    (tmp_path / "adapters").mkdir()
    models = []
    for folder, seed in (("peft", 1), ("third", 2)):
        config = peft.IA3Config(target_modules=list(targets), feedforward_modules=[])
        models.append(by_peft("bert", config, scales(seed), tmp_path / folder))
    other = by_adapters("bert", "ia3", scales(1), tmp_path / "adapters")
    assert_compute_the_same(models[0], other)
    assert_same(signed(tmp_path / "peft"), signed(tmp_path / "adapters"), signed(tmp_path / "third"))


def test_what_differs_is_not_the_same(tmp_path):
    """The comparison can fail: one number of one factor changed."""
    lora = Lora("bert", 1)
    lora.save_peft(tmp_path / "plain")
    before = signed(tmp_path / "plain")
    tensors = plain_tensors(tmp_path)
    key = next(iter(tensors))
    tensors[key] = tensors[key].copy()
    tensors[key][0, 0] += 0.5
    rewrite(tmp_path / "plain", tensors)
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert any(similarity(before, signed(tmp_path / "plain"), view) < 0.9999 for view in THREE_VIEWS)
