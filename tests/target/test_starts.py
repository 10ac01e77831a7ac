"""Published numbers on a model of ours do what the libraries' own loaders make of them; a hostile config changes nothing."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.checkpoints.reader import read_published
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.target.base import load_base
from hubrank.target.frameworks import import_adapters, import_peft, import_torch
from hubrank.target.methods import attach
from hubrank.target.starts import put, start_of
from tests.builders import write_lora
from tests.ranking.builders import BASE, make_base, modules, one_thread

QUERY = "encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


def fresh(base):
    return load_base(base)[0]


def states(model, virtual=0):
    """Hidden states [2, 6, d] of the user's own tokens."""
    torch = import_torch()
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 15, 16, 17, 3, 0]])
    with torch.inference_mode():
        out = model.eval()(input_ids=ids, attention_mask=(ids > 0).long())
    return out.last_hidden_state[:, virtual:].float().numpy()


def start(folder, base):
    """The start that an adapter's folder is, read as the zoo reads it."""
    hub = FolderHub(folder)
    (listing,) = hub.discover(Query())
    return start_of(read_published(listing, hub.open(listing), base_tensors=FolderTensors(base.folder)), fresh(base))


def ours(folder, base):
    """Hidden states of the base with the adapter on it."""
    found = start(folder, base)
    attached = attach(fresh(base), found.placement)
    put(found, attached)
    return states(attached.model, attached.virtual)


def publish(folder, base, config, *, seed=3):
    """What peft saves of an adapter with random numbers, and the states that peft itself gives with it."""
    peft, torch = import_peft(), import_torch()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = peft.get_peft_model(fresh(base), config)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                spread = (1.5 if "hada" in name else 0.3) * torch.randn_like(parameter)
                positive = "magnitude" in name or "ia3" in name
                parameter.data = parameter.data * (1 + spread) if positive else spread
        model.save_pretrained(folder)
    whole = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**whole, "base_model_name_or_path": BASE}))
    return states(model, getattr(config, "num_virtual_tokens", 0) or 0)


CONFIGS = {
    "lora": lambda p: p.LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value"]),
    "rslora": lambda p: p.LoraConfig(r=4, lora_alpha=12, use_rslora=True, target_modules=["query", "dense"]),
    "patterns": lambda p: p.LoraConfig(
        r=4, lora_alpha=8, target_modules=["query", "key"], rank_pattern={"query": 2}, alpha_pattern={"layer.0.*key": 40}
    ),
    "dora": lambda p: p.LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["query", "value"]),
    "loha": lambda p: p.LoHaConfig(r=2, alpha=4, target_modules=["query"]),
    "ia3": lambda p: p.IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    "prompt": lambda p: p.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_computes_what_peft_computes(tmp_path, base, kind):
    expected = publish(tmp_path / "org/one", base, CONFIGS[kind](import_peft()))
    assert np.abs(expected - states(fresh(base))).max() > 0.01
    assert ours(tmp_path, base) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("kind", "tunable"), [("lora", True), ("patterns", True), ("dora", False), ("loha", True)])
def test_what_has_small_factors_can_be_tuned_further(tmp_path, base, kind, tunable):
    publish(tmp_path / "org/one", base, CONFIGS[kind](import_peft()))
    assert start(tmp_path, base).tunable is tunable


def test_a_lora_keeps_its_scale(tmp_path, base):
    publish(tmp_path / "org/one", base, CONFIGS["lora"](import_peft()))
    placement = start(tmp_path, base).placement
    assert (placement.size, placement.alpha) == (4, 12)


def publish_bottleneck(folder, base, config):
    adapters, torch = import_adapters(), import_torch()
    model = fresh(base)
    folder.parent.mkdir(parents=True)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(5)
        adapters.init(model)
        model.add_adapter("theirs", config=config)
        model.train_adapter("theirs")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.3 * torch.randn_like(parameter)
        model.save_adapter(str(folder), "theirs")
    whole = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**whole, "model_name": BASE}))
    return states(model)


@pytest.mark.parametrize("name", ["SeqBnConfig", "DoubleSeqBnConfig", "ParBnConfig"])
def test_it_computes_what_adapters_computes(tmp_path, base, name):
    config = getattr(import_adapters(), name)(reduction_factor=4, leave_out=[1])
    expected = publish_bottleneck(tmp_path / "org/one", base, config)
    assert np.abs(expected - states(fresh(base))).max() > 0.01
    assert ours(tmp_path, base) == pytest.approx(expected, abs=1e-4)


def test_a_bottleneck_that_computes_something_else_is_not_run(tmp_path, base):
    config = import_adapters().SeqBnConfig(reduction_factor=4, non_linearity="gelu")
    publish_bottleneck(tmp_path / "org/one", base, config)
    with pytest.raises(AdapterError, match="non_linearity is 'gelu', which no seq_bn of ours has"):
        start(tmp_path, base)


# What a config of a stranger could want.

HARMLESS = {
    "auto_mapping": {"base_model_class": "os.system", "parent_library": "os"},
    "target_modules": ["(a+)+$", "../../etc"],
    "exclude_modules": "(x+x+)+y",
    "revision": "../../elsewhere",
    "runtime_config": {"ephemeral_gpu_offload": True},
    "megatron_core": "os",
    "megatron_config": {"x": 1},
    "eva_config": {"rho": 2},
    "loftq_config": {"loftq_bits": 4},
    "trust_remote_code": True,
    "peft_version": "99",
    "unknown_field": {"__class__": "x"},
}


def test_what_a_hostile_config_says_beyond_sizes_changes_nothing(tmp_path, base):
    where = modules()
    write_lora(tmp_path / "plain/org/one", sites=where, d=32, base=BASE)
    write_lora(tmp_path / "hostile/org/one", sites=where, d=32, base=BASE, config=HARMLESS)
    plain, hostile = start(tmp_path / "plain", base), start(tmp_path / "hostile", base)
    assert plain.placement == hostile.placement
    assert plain.placement.modules == tuple(where)
    assert all(np.array_equal(plain.numbers[name], hostile.numbers[name]) for name in plain.numbers)


REFUSED = {
    "an init that changes the base": ({"init_lora_weights": "corda"}, "changed the base weights"),
    "an update after certain tokens": ({"alora_invocation_tokens": [1, 2]}, "only after certain tokens"),
    "a replication of layers": ({"layer_replication": [[0, 2]]}, "layer_replication is set"),
    "a variant that is not read": ({"use_qalora": True}, "use_qalora is set"),
    "a pattern that never ends": ({"rank_pattern": {"(" * 99 + "a{9}": 2}}, "is not matched"),
    "a rank that is no number": ({"r": "8; rm -rf"}, "not a number"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_change_the_function_is_refused(tmp_path, base, what):
    config, why = REFUSED[what]
    write_lora(tmp_path / "org/one", sites=modules(), d=32, base=BASE, config=config)
    with pytest.raises(AdapterError, match=why):
        start(tmp_path, base)


def test_modules_that_the_base_lacks_are_refused(tmp_path, base):
    write_lora(tmp_path / "org/one", sites=["encoder.layer.7.attention.self.query"], d=32, base=BASE)
    with pytest.raises(AdapterError, match=r"no linear module encoder\.7\.attention"):
        start(tmp_path, base)


def test_an_embedding_is_refused(tmp_path, base):
    write_lora(tmp_path / "org/one", sites=["embeddings.word_embeddings"], d=32, base=BASE)
    with pytest.raises(AdapterError, match=r"no linear module .*embeddings"):
        start(tmp_path, base)


def test_another_width_is_refused(tmp_path, base):
    write_lora(tmp_path / "org/one", sites=[QUERY], d=16, base=BASE)
    with pytest.raises(AdapterError, match="the base model has"):
        start(tmp_path, base)


def test_a_bias_that_a_low_rank_update_cannot_hold_is_refused(tmp_path, base):
    folder = write_lora(tmp_path / "org/one", sites=[QUERY], d=32, base=BASE, config={"lora_bias": True})
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"base_model.model.{QUERY}.lora_B.bias"] = np.ones(32, np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="more than a low-rank update"):
        start(tmp_path, base)


def test_copies_of_whole_modules_are_said_to_be_left_out(tmp_path, base):
    write_lora(tmp_path / "org/one", sites=[QUERY], d=32, base=BASE, config={"modules_to_save": ["classifier"]})
    assert start(tmp_path, base).warnings == ("run without its modules_to_save",)


def test_numbers_and_parameters_must_be_the_same(tmp_path, base):
    write_lora(tmp_path / "org/one", sites=[QUERY], d=32, base=BASE)
    found = start(tmp_path, base)
    name = next(iter(found.numbers))
    for wrong in ({name: found.numbers[name]}, {**found.numbers, "x": found.numbers[name]}):
        broken = type(found)(found.placement, wrong)
        with pytest.raises(AdapterError, match="only in one of the adapter and the model"):
            put(broken, attach(fresh(base), found.placement))
