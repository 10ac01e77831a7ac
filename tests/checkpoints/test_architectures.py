"""Module paths to sites, and the maps that say which hidden space each module reads."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import combinations

import pytest

from hubrank.checkpoints.architectures import site_of


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
    found = site_of("model.layers.3.self_attn.q_proj")
    assert found.reads == found.writes == "self_attn.q_proj"
    elsewhere = site_of("model.blocks.3.attention.self.query")  # the module of a mapped family, in another family's layers
    assert elsewhere.reads == "attention.self.query"


def test_every_map_names_modules_with_spaces():
    maps = [file for file in files("hubrank.checkpoints.architectures").iterdir() if file.name.endswith(".json")]
    assert maps
    for file in maps:
        value = json.loads(file.read_text("utf-8"))
        assert value["families"]
        assert value["layer"].endswith(".{layer}")
        for module, space in value["modules"].items():
            found = site_of(f"{value['layer'].format(layer=7)}.{module}")
            assert (found.layer, found.module, found.reads, found.writes) == (7, module, space["reads"], space["writes"])


def test_modules_that_share_a_space_of_the_map_read_the_very_same_tensor():
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = BertModel(BertConfig(vocab_size=40, max_position_embeddings=16, **shape)).eval()
    inputs = {}
    for name, module in model.named_modules():
        if name.startswith("encoder.layer.0.") and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, args, __, name=name: inputs.update({name: args[0]}))
    with torch.no_grad():
        model(input_ids=torch.arange(8)[None])
    mapped = json.loads((files("hubrank.checkpoints.architectures") / "bert.json").read_text("utf-8"))["modules"]
    assert {f"encoder.layer.0.{module}" for module in mapped} == set(inputs)
    for one, other in combinations(inputs, 2):
        same = inputs[one].shape == inputs[other].shape and torch.equal(inputs[one], inputs[other])
        assert (site_of(one).reads == site_of(other).reads) == same, (one, other)
