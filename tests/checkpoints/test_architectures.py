"""The architecture maps against the models they describe: every Linear of a layer is mapped, no entry is stale."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from functools import lru_cache
from importlib.resources import files
from itertools import combinations

import pytest

from hubrank.checkpoints.architectures import site_of

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50}
SEQ2SEQ = {
    "d_model": 32, "vocab_size": 50, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 50}
DEBERTA = SIZES | {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 4, "share_att_key": False}
TINY = {
    "bert": [SIZES, SIZES | {"is_decoder": True, "add_cross_attention": True}],
    "distilbert": [{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 50}],
    "deberta": [DEBERTA],
    "deberta-v2": [SIZES, DEBERTA],
    "albert": [SIZES | {"embedding_size": 16}],
    "modernbert": [SIZES | {"pad_token_id": 0}],
    "gpt2": [GPT, GPT | {"add_cross_attention": True}],
    "gpt_neo": [SIZES | {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}],
    "gptj": [GPT | {"rotary_dim": 4}],
    "opt": [SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32}],
    "bloom": [SIZES | {"n_layer": 2, "n_head": 4}],
    "mistral": [SIZES | {"num_key_value_heads": 2}],
    **{
        family: [SIZES | {"num_key_value_heads": 4, "head_dim": 8}]
        for family in ("qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
    },
    "phi3": [SIZES | {"pad_token_id": 0}],
    "t5": [T5, T5 | {"feed_forward_proj": "gated-gelu"}],
    "bart": [SEQ2SEQ],
    "mbart": [SEQ2SEQ],
    "vit": [{k: v for k, v in SIZES.items() if k != "vocab_size"} | {"image_size": 8, "patch_size": 4}],
}


def maps() -> dict[str, dict]:
    folder = files("hubrank.checkpoints.architectures")
    return {file.name: json.loads(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".json")}


def tiny(model_type: str, sizes: dict, task: str = "AutoModel"):
    """A model of random weights, built from its configuration alone."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(model_type, **sizes)
        return getattr(transformers, task).from_config(config)


@lru_cache(maxsize=64)
def linears(model_type: str) -> frozenset[str]:
    """Paths of the Linears inside the layers of a family's tiny models."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    models = [tiny(model_type, sizes) for sizes in TINY.get(model_type, [SIZES])]
    paths = {path for model in models for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    return frozenset(path for path in paths if site_of(path).layer >= 0)


@pytest.mark.parametrize("name", sorted(maps()))
def test_every_linear_is_mapped_and_no_entry_is_stale(name):
    value = maps()[name]
    seen = set()
    for family in value["families"]:
        assert linears(family), family
        for path in linears(family):
            site = site_of(path)
            assert site.module in value["modules"], path
            space = value["modules"][site.module]
            assert (site.reads, site.writes) == (space["reads"], space["writes"]), path
            seen.add(site.module)
    assert seen == set(value["modules"])


def test_maps_that_share_a_module_agree():
    spaces = defaultdict(set)
    for value in maps().values():
        for layer in value["layers"]:
            for module, space in value["modules"].items():
                spaces[layer, module].add((space["reads"], space["writes"]))
    assert {key: found for key, found in spaces.items() if len(found) > 1} == {}


@pytest.mark.parametrize("family", sorted({family for value in maps().values() for family in value["families"]}))
def test_query_key_and_value_read_one_space(family):
    by_layer = defaultdict(set)
    for path in linears(family):
        site = site_of(path)
        if site.writes in ("attention.query", "attention.key", "attention.value", "attention.qkv"):
            by_layer[site.stack, site.layer].add(site.reads)
    assert len(by_layer) >= (1 if family == "albert" else 2)
    assert all(reads == {"attention.in"} for reads in by_layer.values())


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bert", "AutoModelForSequenceClassification"),
        ("distilbert", "AutoModelForSequenceClassification"),
        ("deberta-v2", "AutoModelForTokenClassification"),
        ("albert", "AutoModelForSequenceClassification"),
        ("modernbert", "AutoModelForSequenceClassification"),
        ("gpt2", "AutoModelForCausalLM"),
        ("gpt_neo", "AutoModelForSequenceClassification"),
        ("opt", "AutoModelForCausalLM"),
        ("bloom", "AutoModelForCausalLM"),
        ("llama", "AutoModelForCausalLM"),
        ("llama", "AutoModelForSequenceClassification"),
        ("phi3", "AutoModelForCausalLM"),
        ("t5", "AutoModelForSeq2SeqLM"),
        ("bart", "AutoModelForSeq2SeqLM"),
        ("bart", "AutoModelForSequenceClassification"),
        ("vit", "AutoModelForImageClassification"),
    ],
)
def test_a_head_on_the_model_changes_no_site(family, task):
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    sizes = TINY.get(family, [SIZES])[0]
    modules = tiny(family, sizes, task).named_modules()
    headed = {site_of(path) for path, module in modules if isinstance(module, nn.Linear | Conv1D)}
    assert {site_of(path) for path in linears(family)} >= {site for site in headed if site.layer >= 0}
    assert any(site.layer >= 0 for site in headed)


def test_stacks_are_kept_apart():
    encoder, decoder = (site_of(f"{stack}.block.1.layer.0.SelfAttention.q") for stack in ("encoder", "decoder"))
    assert encoder != decoder
    assert (encoder.stack, encoder.layer, encoder.module) == ("encoder", 1, "layer.0.SelfAttention.q")
    assert site_of("model.decoder.layers.0.encoder_attn.k_proj").reads == "cross.memory"
    text, vision = (site_of(f"{tower}.encoder.layers.0.self_attn.q_proj") for tower in ("text_model", "vision_model"))
    assert text != vision


def test_an_unknown_backbone_still_has_sites():
    site = site_of("foo.bars.12.mixer.in_proj")
    assert (site.stack, site.layer, site.module, site.reads, site.writes) == (
        "bars",
        12,
        "mixer.in_proj",
        "mixer.in_proj",
        "mixer.in_proj",
    )
    assert site_of("wrapped.foo.bars.12.mixer.in_proj") == site
    assert site_of("down_blocks.0.attn.to_q") != site_of("up_blocks.0.attn.to_q")
    assert site_of("embeddings.word_embeddings").layer == -1
    assert site_of("3.q").layer == 3


def site(module: str) -> tuple[str, int, str]:
    found = site_of(module)
    return found.stack, found.layer, found.module


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("encoder.layer.3.attention.self.query", ("encoder", 3, "attention.self.query")),
        ("bert.encoder.layer.11.output.dense", ("encoder", 11, "output.dense")),
        ("transformer.h.0.attn.c_attn", ("", 0, "attn.c_attn")),
        ("h.0.attn.c_attn", ("", 0, "attn.c_attn")),
        ("model.layers.31.self_attn.q_proj", ("", 31, "self_attn.q_proj")),
        ("decoder.block.2.layer.1.EncDecAttention.q", ("decoder", 2, "layer.1.EncDecAttention.q")),
        ("encoder.block.2.layer.0.SelfAttention.q", ("encoder", 2, "layer.0.SelfAttention.q")),
        ("0.auto_model.encoder.layer.3.x", ("", 0, "auto_model.encoder.layer.3.x")),
        ("lm_head", ("", -1, "lm_head")),
        ("conv1.layer2b.x", ("", -1, "conv1.layer2b.x")),
    ],
)
def test_stack_layer_and_module(module, expected):
    assert site(module) == expected


def test_an_absurd_layer_number_is_no_layer():
    assert site_of("layer.12345.query").layer == -1
    assert site_of("layer.9999.query").layer == 9999


def test_sites_sort_by_stack_and_layer_number():
    names = ["encoder.layer.10.a", "encoder.layer.2.b", "encoder.layer.2.a", "decoder.layer.3.a", "embeddings"]
    assert [str(s) for s in sorted(map(site_of, names))] == [
        "-1.embeddings",
        "decoder.3.a",
        "encoder.2.a",
        "encoder.2.b",
        "encoder.10.a",
    ]


def test_query_key_and_value_read_one_space_and_write_their_own():
    q, k, v = (site_of(f"encoder.layer.0.attention.self.{name}") for name in ("query", "key", "value"))
    assert q.reads == k.reads == v.reads
    assert len({q.writes, k.writes, v.writes}) == 3
    assert site_of("encoder.layer.0.output.dense").writes == site_of("encoder.layer.0.attention.output.dense").writes


def test_a_backbone_without_a_map_has_spaces_of_its_own():
    elsewhere = site_of("model.blocks.3.attention.self.query")  # the module of a mapped family, in another family's layers
    assert elsewhere.reads == "attention.self.query"


# Names of the arguments that a family's model is called with, where they are not input_ids alone.
CALLS = {"t5": ("input_ids", "decoder_input_ids"), "bart": ("input_ids", "decoder_input_ids"), "vit": ("pixel_values",)}


@pytest.mark.parametrize("family", sorted({family for value in maps().values() for family in value["families"]}))
def test_modules_share_a_space_exactly_where_they_read_one_tensor(family):
    import torch

    torch.manual_seed(0)
    sizes = TINY.get(family, [SIZES])[-1]
    model = tiny(family, sizes).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)  # two norms that are still as they were made are not one
    inputs = {}
    for path in linears(family) & {path for path, _ in model.named_modules()}:
        model.get_submodule(path).register_forward_hook(lambda _, args, __, path=path: inputs.update({path: args[0]}))
    given = {name: torch.arange(8)[None] for name in CALLS.get(family, ("input_ids",))}
    if family == "vit":
        given = {"pixel_values": torch.randn(1, 3, 8, 8)}
    if sizes.get("add_cross_attention"):
        given["encoder_hidden_states"] = torch.randn(1, 5, 32)
    with torch.no_grad():
        model(**given)
    by_layer = defaultdict(list)
    for path in inputs:
        site = site_of(path)
        by_layer[site.stack, site.layer].append((path, site.reads))
    assert by_layer
    for layer in by_layer.values():
        for (one, reads), (other, also) in combinations(layer, 2):
            same = inputs[one].shape == inputs[other].shape and torch.equal(inputs[one], inputs[other])
            assert (reads == also) == same, (one, other)
