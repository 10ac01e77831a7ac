"""adapter_config.json of all ages, brought to one form."""

from __future__ import annotations

import pytest
from adapters.configuration import ADAPTER_CONFIG_MAP

from hubrank.checkpoints.adapters_config import parse_adapters_config
from hubrank.errors import AdapterError

# Fields that a name must stand for, because a reader looks at them and their absence would mean something else.
LOOKED_AT = (
    *("architecture", "mh_adapter", "output_adapter", "is_parallel", "scaling", "inv_adapter", "phm_layer", "non_linearity"),
    *("r", "alpha", "composition_mode", "attn_matrices", "use_dora", "vera_d", "vera_b", "use_gating", "orthogonality"),
    *("prefix_length", "flat", "prompt_length", "prefix_positions", "suffix_positions", "tied_weights"),
)
# What a missing field means to the readers.
DEFAULTS = {"scaling": 1.0, "composition_mode": "add"}


def seen(values):
    found = {key: values.get(key, DEFAULTS.get(key)) for key in LOOKED_AT}
    return {key: value for key, value in found.items() if value not in (None, False)}


@pytest.mark.parametrize("name", ADAPTER_CONFIG_MAP)
def test_a_name_stands_for_what_the_library_says(name):
    library = ADAPTER_CONFIG_MAP[name].to_dict()
    named, spelled = parse_adapters_config({"config": name}), parse_adapters_config({"config": library})
    assert named.union == spelled.union
    for (architecture, values), (other, others) in zip(named.methods, spelled.methods, strict=True):
        assert architecture == other
        assert seen(values) == seen(others)


@pytest.mark.parametrize(("name", "union"), [("mam", "mam"), ("unipelt", "unipelt"), ("parallel", ""), ("lora", "")])
def test_unions_by_name(name, union):
    assert parse_adapters_config({"config": name}).union == union


def test_another_union_is_just_that():
    configs = [{"architecture": "lora"}, {"architecture": "reft"}]
    assert parse_adapters_config({"config": {"architecture": "union", "configs": configs}}).union == "union"


def test_fields_of_the_file():
    parsed = parse_adapters_config({"name": "md", "model_type": "bert", "hidden_size": 768, "version": "adapters.1.0.1"})
    assert (parsed.name, parsed.model_type, parsed.hidden_size) == ("md", "bert", 768)
    assert not parsed.old_task
    assert not parsed.old_activations
    assert parse_adapters_config({"type": "text_task"}).old_task


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"config": "warp"}, "unsupported variant"),
        ({"config": 3}, "bad config"),
        ({"config": ["pfeiffer"]}, "bad config"),
        ({"config": {"using": "warp"}}, "unsupported variant"),
        ({"config": {str(i): 0 for i in range(1001)}}, "bad config"),
        ({"config": {"architecture": "union"}}, "bad config"),
        ({"config": {"architecture": "union", "configs": []}}, "bad config"),
        ({"config": {"architecture": "union", "configs": ["lora"] * 9}}, "bad config"),
        ({"config": {"architecture": "union", "configs": ["lora", "ia3"]}}, "unsupported variant"),
        ({"config": {"architecture": "union", "configs": ["mam"]}}, "unsupported variant"),
        ({"config": {"architecture": "union", "configs": [7]}}, "bad config"),
        ({"config": {"architecture": ["lora"]}}, "bad config"),
        ({"config": {"head_type": "classification", "layers": 2}}, "no weights"),
        ({"config": {"key": True, "query": True, "value": True, "value_initialized": False}}, "unsupported variant"),
        ({"hidden_size": "768"}, "bad config"),
        ({"hidden_size": -1}, "bad config"),
        ({"hidden_size": float("nan")}, "bad config"),
    ],
)
def test_what_is_not_understood_is_refused(config, reason):
    with pytest.raises(AdapterError) as caught:
        parse_adapters_config(config)
    assert caught.value.reason == reason
