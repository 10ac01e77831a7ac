"""Weights without a config: what hubrank.json may say, and that each family's deltas are what the files hold."""

from __future__ import annotations

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hubrank import sync
from hubrank.checkpoints.bare_families import read_bare_ia3, read_bare_prefix, read_bare_prompt, read_bare_tuned, tuned_names
from hubrank.checkpoints.bare_files import METHODS, parse_manifest, read_bare
from hubrank.checkpoints.peft_lora import read_lora, wanted_tensors
from hubrank.checkpoints.reader import read_adapters, read_card
from hubrank.checkpoints.tensor_files import open_tensors
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from tests.checkpoints.weights import saved
from tests.real_data import DATA

GOOD = {"base_model": "roberta-base", "method": "prompt", "weights": "w.npy"}


def manifest(folder, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hubrank.json").write_text(json.dumps({**GOOD, **fields}))
    return folder


def read_only(root, **options):
    """The one adapter under a folder."""
    hub = FolderHub(root)
    (listing,) = hub.discover(Query())
    return read_bare(listing, hub.open(listing), **options)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(AdapterError) as caught:
        call(*arguments, **options)
    assert len(caught.value.detail) < 400
    return caught.value.reason


def bases(tensors):
    return SimpleNamespace(get=tensors.get)


def test_a_manifest_says_what_the_file_is():
    found = parse_manifest(json.dumps({**GOOD, "task": " sst2 ", "tensor": "SST2", "layers": 12}).encode())
    assert (found.base, found.method, found.weights) == ("FacebookAI/roberta-base", "prompt", "w.npy")
    assert (found.task, found.tensor, found.layers, found.stored) == ("sst2", "SST2", 12, "tuned")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_model": None}, "base_model must be a text"),
        ({"base_model": "./local"}, "no base model"),
        ({"method": "lora"}, "method 'lora' is none of prompt, p-tuning-v2, ia3, bitfit, ln, diff"),
        ({"method": 3}, "method must be a text"),
        ({"weights": "../w.npy"}, "weights must name a file beside it"),
        ({"weights": "w.exe"}, "weights must name a file beside it that ends in"),
        ({"weights": ""}, "weights must be a text"),
        ({"weights": ["w.npy"]}, "weights must be a text"),
        ({"layers": 0}, "layers is 0"),
        ({"layers": "12"}, "layers is '12', not a number"),
        ({"layers": 10**400}, "layers is"),
        ({"stored": "difference"}, "stored is tuned"),
        ({"method": "bitfit", "stored": "both"}, "stored is tuned"),
        ({"task": 5}, "task must be a text"),
        ({"task": "x" * 1000}, "task must be a text"),
        ({"nonsense": 1}, "unknown field 'nonsense'; the fields are base_model, method, weights"),
    ],
)
def test_a_wrong_field_is_named(change, words):
    with pytest.raises(AdapterError) as caught:
        parse_manifest(json.dumps({**GOOD, **change}).encode())
    assert words in str(caught.value)


@pytest.mark.parametrize("field", ["base_model", "method", "weights"])
def test_a_missing_field_is_named(field):
    with pytest.raises(AdapterError, match=f"{field} must be a text"):
        parse_manifest(json.dumps({name: value for name, value in GOOD.items() if name != field}).encode())


@given(raw=st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(repr)))
def test_any_bytes_are_a_manifest_or_a_refusal(raw):
    refused = refusal(parse_manifest, raw if isinstance(raw, bytes) else raw.encode("utf-8", "replace"))
    assert refused in ("bad config", "no base model")


def test_a_prompt_is_its_mean_and_its_gram(tmp_path):
    tokens = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    folder = manifest(tmp_path / "org" / "a", task="sst2")
    np.save(folder / "w.npy", tokens)
    adapter = read_only(tmp_path)
    (delta,) = adapter.deltas
    assert (adapter.base, adapter.method, adapter.variant) == ("FacebookAI/roberta-base", "prompt", "prompt")
    assert (delta.site.layer, delta.site.module) == (0, "prompt")
    assert np.allclose(delta.up @ delta.down, tokens.T @ tokens, atol=1e-5)
    units = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    assert np.allclose(delta.shift, units.mean(axis=0), atol=1e-6)


@given(seed=st.integers(0, 99))
def test_the_order_of_tokens_means_nothing(seed):
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((6, 8)).astype(np.float32)
    one, other = (read_bare_prompt({"p": t}, "b").deltas[0] for t in (tokens, rng.permutation(tokens)))
    assert np.allclose(one.up @ one.down, other.up @ other.down, atol=1e-4)
    assert np.allclose(one.shift, other.shift, atol=1e-4)
    flat = rng.standard_normal((6, 2 * 3 * 4)).astype(np.float32)
    pair = [read_bare_prefix({"p": t}, "b", layers=3).deltas for t in (flat, rng.permutation(flat))]
    for one, other in zip(*pair, strict=True):
        assert np.allclose(one.up @ one.down, other.up @ other.down, atol=1e-4)
        assert one.shift is None or np.allclose(one.shift, other.shift, atol=1e-4)


def test_the_prompt_among_several_tensors_is_the_one_called_so(tmp_path):
    import torch

    prompt, other = torch.randn(5, 8), torch.randn(3, 3)
    folder = manifest(tmp_path / "org" / "a", weights="w.pt")
    weights = {"encoder.prompt_embeddings.weight": prompt, "classifier.weight": other}
    (folder / "w.pt").write_bytes(saved(weights))
    assert np.array_equal(read_only(tmp_path).deltas[0].down, prompt.numpy())
    (folder / "w.pt").write_bytes(saved(prompt))
    assert np.array_equal(read_only(tmp_path).deltas[0].down, prompt.numpy())
    (folder / "w.pt").write_bytes(saved({"a": prompt, "b": prompt}))
    assert refusal(read_only, tmp_path) == "several adapters"
    manifest(folder, weights="w.pt", tensor="b")
    assert np.array_equal(read_only(tmp_path).deltas[0].down, prompt.numpy())
    manifest(folder, weights="w.pt", tensor="c")
    assert refusal(read_only, tmp_path) == "no weights"
    manifest(folder, weights="gone.pt")
    assert refusal(read_only, tmp_path) == "no weights"


@pytest.mark.parametrize("array", [np.ones(3), np.ones((2, 3, 4)), np.ones((0, 4)), np.full((2, 2), np.nan)])
def test_what_is_no_prompt_is_refused(array):
    assert refusal(read_bare_prompt, {"p": array.astype(np.float32)}, "b") in ("shape mismatch", "not finite")
    assert refusal(read_bare_prompt, {}, "b") == "no weights"


def test_a_prefix_gives_the_keys_and_values_that_p_tuning_v2_feeds_to_attention(tmp_path):
    import torch

    torch.manual_seed(0)
    layers, heads, width, tokens, hidden = 3, 2, 8, 5, 6

    def past_key_values(flat):  # THUDM/P-tuning-v2, model/sequence_classification.py, get_prompt, for a batch of one
        pairs = flat.view(1, tokens, 2 * layers, heads, width // heads).permute([2, 0, 3, 1, 4]).split(2)
        return [[part[0].permute(1, 0, 2).reshape(tokens, width).numpy() for part in pair] for pair in pairs]

    embedding = torch.nn.Embedding(tokens, width)
    trans = torch.nn.Sequential(torch.nn.Linear(width, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 2 * layers * width))
    plain = torch.randn(tokens, 2 * layers * width)
    projected = {f"embedding.{k}": v for k, v in embedding.state_dict().items()}
    projected |= {f"trans.{k}": v for k, v in trans.state_dict().items()}
    cases = [({"embedding.weight": plain}, plain, layers), (projected, trans(embedding.weight).detach(), None)]
    for state, flat, stated in cases:
        folder = manifest(
            tmp_path / "org" / "a", method="p-tuning-v2", weights="pytorch_model.bin", **({"layers": stated} if stated else {})
        )
        whole = {f"prefix_encoder.{name}": tensor for name, tensor in state.items()} | {"classifier.weight": torch.ones(2, 8)}
        (folder / "pytorch_model.bin").write_bytes(saved(whole))
        adapter = read_only(tmp_path)
        assert (adapter.method, adapter.variant, len(adapter.deltas)) == ("prefix", "p-tuning-v2", 3 * layers)
        found = {(delta.site.layer, delta.site.module): delta for delta in adapter.deltas}
        for layer, (keys, values) in enumerate(past_key_values(flat)):
            assert np.allclose(found[layer, "prefix.key"].shift, keys.mean(axis=0), atol=1e-5)
            assert np.allclose(found[layer, "prefix.value"].shift, values.mean(axis=0), atol=1e-5)
            product = found[layer, "prefix.product"]
            assert np.allclose(product.up @ product.down, values.T @ keys, atol=1e-5)


def test_a_prefix_that_does_not_fit_is_refused():
    flat = np.ones((4, 24), np.float32)
    assert refusal(read_bare_prefix, {"p": flat}, "b") == "bad config"
    assert refusal(read_bare_prefix, {"p": flat}, "b", layers=5) == "shape mismatch"
    assert refusal(read_bare_prefix, {"p": flat}, "b", layers=1000) == "shape mismatch"
    assert refusal(read_bare_prefix, {}, "b", layers=3) == "no weights"
    big = {
        "prefix_encoder.embedding.weight": np.ones((100_000, 1), np.float32),
        "prefix_encoder.trans.0.weight": np.ones((1, 1), np.float32),
        "prefix_encoder.trans.0.bias": np.ones(1, np.float32),
        "prefix_encoder.trans.2.weight": np.ones((100_000, 1), np.float32),
        "prefix_encoder.trans.2.bias": np.ones(100_000, np.float32),
    }
    assert refusal(read_bare_prefix, big, "b") == "shape mismatch"
    assert refusal(read_bare_prefix, {k: v for k, v in big.items() if "2.bias" not in k}, "b") == "incomplete"


def test_ia3_is_the_log_of_its_scales_and_with_the_base_the_change_of_the_weights():
    rng = np.random.default_rng(0)
    module = "encoder.block.0.layer.0.SelfAttention.k"
    scale, weight = rng.standard_normal((6, 1)).astype(np.float32), rng.standard_normal((6, 4)).astype(np.float32)
    scale[2] = 0
    tensors = {f"{module}.multi_lora_b": scale, f"{module}.multi_lora_a": np.ones((1, 4), np.float32)}
    plain = read_bare_ia3(tensors, "b")
    (delta,) = plain.deltas
    assert (delta.site.stack, delta.site.layer, delta.site.module) == ("encoder", 0, "layer.0.SelfAttention.k")
    assert delta.up.shape == (6, 0)
    assert np.allclose(delta.shift, np.log(np.maximum(np.abs(scale[:, 0]), 1e-6)))
    assert len(plain.warnings) == 1
    exact = read_bare_ia3(tensors, "b", base_tensors=bases({f"{module}.weight": weight}))
    (delta,) = exact.deltas
    assert np.allclose(delta.up @ delta.down, weight * scale - weight, atol=1e-5)
    assert exact.warnings == ()
    mixed = read_bare_ia3({**tensors, "x.1.o.multi_lora_b": scale}, "b", base_tensors=bases({f"{module}.weight": weight}))
    assert {delta.down.shape[0] for delta in mixed.deltas} == {0}
    assert refusal(read_bare_ia3, {f"{module}.multi_lora_a": scale.T}, "b") == "unsupported variant"
    assert refusal(read_bare_ia3, {f"{module}.multi_lora_b": scale.T}, "b") == "shape mismatch"
    assert refusal(read_bare_ia3, {}, "b") == "no weights"


@pytest.mark.parametrize("variant", ["bitfit", "ln", "diff"])
def test_tuned_parameters_are_what_changed_from_the_base(tmp_path, variant):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    model = BertForSequenceClassification(BertConfig(**sizes))
    base = {name: tensor.numpy().copy() for name, tensor in model.bert.state_dict().items()}
    tuned = tuned_names(model.state_dict(), variant)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tuned or name.startswith("classifier"):
                parameter.add_(torch.randn(parameter.shape))
    folder = manifest(tmp_path / "org" / "a", method=variant, weights="pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(saved(model.state_dict()))
    assert refusal(read_only, tmp_path) == "needs base"
    adapter = read_only(tmp_path, base_tensors=bases(base))
    assert (adapter.method, adapter.variant, adapter.warnings) == ("bias", variant, ())
    assert len(adapter.deltas) == len(tuned)
    state = model.state_dict()
    for delta in adapter.deltas:
        path = (
            f"encoder.layer.{delta.site.layer}.{delta.site.module}"
            if delta.site.layer >= 0
            else delta.site.module.removeprefix("bert.")
        )
        if delta.shift is not None:
            assert np.allclose(delta.shift, state[f"bert.{path}"].numpy() - base[path], atol=1e-6)
        else:
            change = state[f"bert.{path}.weight"].numpy() - base[f"{path}.weight"]
            assert np.allclose(delta.up @ delta.down, change, atol=1e-5)
    differences = {name: state[name].numpy() - base[name.removeprefix("bert.")] for name in tuned}
    manifest(folder, method=variant, weights="d.safetensors", stored="difference")
    save_file(differences, folder / "d.safetensors")
    again = read_only(tmp_path)
    for one, other in zip(adapter.deltas, again.deltas, strict=True):
        assert one.site == other.site
        assert np.allclose(one.up @ one.down, other.up @ other.down, atol=1e-6)
        assert one.shift is None or np.allclose(one.shift, other.shift, atol=1e-6)


def test_the_norms_of_every_family_are_found():
    names = [
        "encoder.layer.0.attention.output.LayerNorm.weight", "h.0.ln_1.bias", "ln_f.weight", "layers.0.input_layernorm.weight",
        "encoder.block.0.layer.0.layer_norm.weight", "decoder.layers.0.self_attn_layer_norm.bias", "layers.0.attn_norm.weight",
        "transformer.layer.0.sa_layer_norm.weight", "encoder.layer.0.layernorm_before.bias", "model.norm.weight",
    ]  # fmt: skip
    assert tuned_names(names, "ln") == names
    assert tuned_names(["encoder.layer.0.output.dense.weight", "classifier.norm.weight", "layers.0.normal.kernel"], "ln") == []


def test_gpt2_keeps_its_weights_transposed_and_gpt_neo_does_not():
    weight = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32)
    options = {"variant": "diff", "differences": True}
    for name in ("h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_fc.weight"):
        (delta,) = read_bare_tuned({name: weight}, "b", **options).deltas
        assert np.allclose(delta.up @ delta.down, weight.T)
    for name, tensor in {"h.0.attn.attention.q_proj.weight": weight, "h.0.mlp.c_fc.weight": weight.T}.items():
        (delta,) = read_bare_tuned({name: tensor}, "b", **options).deltas
        assert np.allclose(delta.up @ delta.down, tensor)


def test_what_the_base_does_not_have_is_left_out_and_said():
    one = {"encoder.layer.0.output.dense.bias": np.ones(4, np.float32)}
    options = {"variant": "bitfit", "base_tensors": bases(one)}
    adapter = read_bare_tuned({**one, "encoder.layer.0.extra.bias": np.ones(4, np.float32)}, "b", **options)
    assert len(adapter.deltas) == 1
    assert adapter.warnings == ("1 parameters that the base model does not have were left out",)
    assert refusal(read_bare_tuned, {"other.bias": np.ones(4, np.float32)}, "b", **options) == "incomplete"
    assert refusal(read_bare_tuned, {next(iter(one)): np.ones(5, np.float32)}, "b", **options) == "shape mismatch"
    assert refusal(read_bare_tuned, {next(iter(one)): np.full(4, np.inf, np.float32)}, "b", **options) == "not finite"
    assert refusal(read_bare_tuned, {}, "b", **options) == "no weights"


def test_the_reader_and_the_card_take_the_manifest_where_there_is_no_config(tmp_path):
    folder = manifest(tmp_path / "org" / "a", task="mrpc")
    np.save(folder / "w.npy", np.ones((2, 3), np.float32))
    hub = FolderHub(tmp_path)
    (listing,) = hub.discover(Query())
    assert read_adapters(listing, hub.open(listing))[0].method == "prompt"
    assert read_card(listing, hub.open(listing)).task == "mrpc"
    (folder / "adapter_config.json").write_text('{"peft_type": "NEW"}')
    (listing,) = hub.discover(Query())
    assert refusal(read_adapters, listing, hub.open(listing)) in ("unsupported method", "no base model")


@pytest.mark.parametrize("method", sorted(METHODS))
@given(seed=st.integers(0, 10_000))
def test_any_tensors_are_read_or_refused(method, seed):
    """Names that each family looks for, over shapes and values that fit nothing."""
    rng = np.random.default_rng(seed)
    prefix = [f"prefix_encoder.{part}" for part in ("embedding.weight", "trans.0.weight", "trans.0.bias", "trans.2.weight")]
    scales = ["a.1.b.multi_lora_b", "a.1.b.multi_lora_a", ".multi_lora_b"]
    tuned = ["layer.0.x.bias", "layer.0.LayerNorm.weight", "h.0.attn.c_attn.weight", "bert.layer.0.x.bias"]
    names = ["", "prompt", "soft.weight", *prefix, "prefix_encoder.trans.2.bias", f"x.{prefix[0]}", *scales, *tuned]
    arrays = {}
    for name in rng.choice(names, size=int(rng.integers(0, 6)), replace=False):
        array = rng.standard_normal(rng.integers(0, 5, size=int(rng.integers(0, 4)))).astype(np.float32)
        with np.errstate(all="ignore"):
            arrays[str(name)] = array * np.float32(rng.choice([0.0, 1.0, 1e38, np.inf]))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    value = json.dumps({**GOOD, "method": method, "weights": "w.npz", "layers": int(rng.integers(1, 4))}).encode()
    from hubrank.hubs.protocol import Listing
    from tests.builders import MemoryBundle

    stored = {"hubrank.json": value, "w.npz": buffer.getvalue()}
    listing = Listing("org/a", "r", None, {name: len(data) for name, data in stored.items()})
    known = {name: array for name, array in arrays.items() if rng.random() < 0.5}
    try:
        adapter = read_bare(listing, MemoryBundle(stored), base_tensors=bases(known) if rng.random() < 0.7 else None)
    except AdapterError:
        return
    for delta in adapter.deltas:
        assert delta.up.shape[1] == delta.down.shape[0]
        assert np.isfinite(delta.up).all()
        assert np.isfinite(delta.down).all()


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data")


@needs_data
def test_real_files_without_a_config_are_read(tmp_path):
    for task in ("mrpc", "rte", "sst2"):
        folder = manifest(tmp_path / "google" / task, base_model="google/t5-base-lm-adapt", weights=f"{task}.npy", task=task)
        shutil.copy(DATA / f"adapters/google-research__prompt-tuning__t5_1_1_lm100k_base-{task}/{task}.npy", folder)
    for task in ("SST2", "QQP"):
        folder = manifest(tmp_path / "thunlp" / task, base_model="roberta-base", weights="prompts_Roberta.npz", tensor=task)
        shutil.copy(DATA / "prompt_transfer/prompts_Roberta.npz", folder)
    folder = manifest(tmp_path / "r-three" / "t-few", base_model="bigscience/T0_3B", method="ia3", weights="t03b_ia3_finish.pt")
    shutil.copy(DATA / "adapters/r-three__t-few__t03b_ia3_finish/t03b_ia3_finish.pt", folder)
    hub = FolderHub(tmp_path)
    adapters = {listing.repo: read_adapters(listing, hub.open(listing))[0] for listing in hub.discover(Query())}
    assert adapters["google/sst2"].deltas[0].down.shape == (100, 768)
    assert adapters["thunlp/SST2"].deltas[0].shift.shape == (768,)
    ia3 = adapters["r-three/t-few"]
    assert (len(ia3.deltas), ia3.method) == (192, "ia3")
    assert {delta.site.stack for delta in ia3.deltas} == {"encoder", "decoder"}
    assert len(adapters) == 6


@needs_data
@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("vykhvan__fine-tuning-foundation-model__bert-lora", 24),
        ("deepbiolab__gpt2-classification-peft__peft_model", None),
        ("parikshit-06__domain-skeleton-gpt2__adapters-legal", None),
    ],
)
def test_real_lora_files_read_alike_from_either_kind(name, sites):
    hub = FolderHub(DATA / "adapters" / name)
    (listing,) = hub.discover(Query())
    bundle = hub.open(listing)
    file = open_tensors(listing, bundle, ["adapter_model.safetensors", "adapter_model.bin"])
    config = json.loads((DATA / "adapters" / name / "adapter_config.json").read_text())
    adapter = read_lora(config, file.read(wanted_tensors(file.tensors)), "b")
    assert len(adapter.deltas) == (sites or len(adapter.deltas)) > 0
    assert all(delta.site.layer >= 0 and delta.site.reads != delta.site.module for delta in adapter.deltas)


def test_a_sync_of_bare_files_adds_or_skips_and_never_breaks(tmp_path):
    folder = manifest(tmp_path / "zoo" / "org" / "prompt", task="sst2")
    np.save(folder / "w.npy", np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32))
    folder = manifest(tmp_path / "zoo" / "org" / "ia3", method="ia3", weights="w.pt")
    import torch

    (folder / "w.pt").write_bytes(saved({"encoder.block.0.layer.0.SelfAttention.k.multi_lora_b": torch.ones(4, 1) * 2}))
    manifest(tmp_path / "zoo" / "org" / "wrong", method="magic")
    report = sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache")
    assert report.added == 2
    assert dict(report.skipped) == {"bad config": 1}
