"""Every family through the one door: whatever a config or a file says, an adapter or an AdapterError comes out, and soon."""

from __future__ import annotations

import json
import time
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import save

from hubrank.checkpoints import peft_modules
from hubrank.checkpoints.peft_families import PEFT_FAMILIES, read_peft, wanted_peft_tensors
from hubrank.checkpoints.reader import read_adapters
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Listing
from tests.builders import MemoryBundle
from tests.checkpoints.peft_models import tune

Q = {"target_modules": ["query", "dense"]}
FAMILIES = {
    "LORA": ("LoraConfig", "bert", {"r": 2, "lora_bias": True, **Q}),
    "DORA": ("LoraConfig", "bert", {"r": 2, "use_dora": True, **Q}),
    "ADALORA": ("AdaLoraConfig", "bert", {"init_r": 3, "target_r": 2, "total_step": 10, **Q}),
    "LOHA": ("LoHaConfig", "bert", {"r": 2, **Q}),
    "LOKR": ("LoKrConfig", "bert", {"r": 2, "decompose_factor": 4, **Q}),
    "VERA": ("VeraConfig", "bert", {"r": 2, **Q}),
    "FOURIERFT": ("FourierFTConfig", "bert", {"n_frequency": 5, **Q}),
    "MISS": ("MissConfig", "bert", {"r": 4, **Q}),
    "MISS bat": ("MissConfig", "bert", {"r": 4, "init_weights": "bat", **Q}),
    "MISS mini": ("MissConfig", "bert", {"r": 4, "init_weights": "mini", "mini_r": 2, **Q}),
    "IA3": ("IA3Config", "bert", {"feedforward_modules": ["dense"], **Q}),
    "OFT": ("OFTConfig", "bert", {"oft_block_size": 8, **Q}),
    "OFT constrained": ("OFTConfig", "bert", {"oft_block_size": 8, "coft": True, "use_cayley_neumann": False, **Q}),
    "BOFT": ("BOFTConfig", "bert", {"boft_block_size": 8, **Q}),
    "HRA": ("HRAConfig", "bert", {"r": 2, **Q}),
    "LN_TUNING": ("LNTuningConfig", "bert", {"target_modules": ["LayerNorm"]}),
    "PREFIX_TUNING": ("PrefixTuningConfig", "gpt2-lm", {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}),
    "PROMPT_TUNING": ("PromptTuningConfig", "gpt2-lm", {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}),
    "P_TUNING": ("PromptEncoderConfig", "gpt2-lm", {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}),
    "MULTITASK_PROMPT_TUNING": ("MultitaskPromptTuningConfig", "t5", {"num_virtual_tokens": 3, "task_type": "SEQ_2_SEQ_LM"}),
}
HOSTILE = (
    0,
    -1,
    3,
    10**12,
    1 << 70,
    1e308,
    -1e-300,
    0.5,
    float("nan"),
    float("inf"),
    "8",
    "",
    True,
    False,
    None,
    [],
    [1],
    {},
    {"a": 1},
)
REASONS = {
    *(
        "incomplete",
        "shape mismatch",
        "not finite",
        "unsupported variant",
        "unsupported method",
        "bad config",
        "several adapters",
    ),
    *("ambiguous modules", "unsafe pattern", "no weights", "no LoRA tensors", "needs base", "too large"),
}


@pytest.fixture(scope="module")
def tuned_as(tmp_path_factory):
    @cache
    def make(family):
        import peft

        name, kind, config = FAMILIES[family]
        return tune(kind, getattr(peft, name)(**config), tmp_path_factory.mktemp("one"), merge=False)

    return make


def attempt(config, tensors, base):
    """Read it both ways; anything but an adapter of finite numbers or an AdapterError fails the test."""
    started = time.thread_time()
    for base_tensors in (None, base):
        try:
            adapter = read_peft(config, tensors, "b", base_tensors=base_tensors)
        except AdapterError as error:
            assert error.reason in REASONS  # noqa: PT017
            assert len(str(error)) < 300  # noqa: PT017
        else:
            for delta in adapter.deltas:
                assert delta.up.dtype == delta.down.dtype == np.float32
                assert delta.up.shape[1] == delta.down.shape[0]
                assert np.isfinite(delta.up).all()
                assert np.isfinite(delta.down).all()
    assert time.thread_time() - started < 2


def test_the_cases_cover_the_table():
    assert {name.split(" ")[0] for name in FAMILIES} - {"DORA"} == set(PEFT_FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_as_it_was_saved(family, tuned_as):
    tuned = tuned_as(family)
    adapter = tuned.read(base=True)
    assert adapter.deltas
    assert adapter.base == "org/tiny"
    assert [d.site for d in adapter.deltas] == sorted(d.site for d in adapter.deltas)
    assert adapter.variant or family == "LORA"
    foreign = {"base_model.model.classifier.weight": np.full(2, np.nan, np.float32)}
    foreign |= {f"{name}.modules_to_save.{name}": value for name, value in tuned.tensors.items()}
    assert set(wanted_peft_tensors([*tuned.tensors, *foreign], tuned.config)) == set(tuned.tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_a_field_holds(family, tuned_as):
    tuned = tuned_as(family)
    for field in (*tuned.config, "rank_pattern", "alpha_pattern"):
        for value in HOSTILE:
            attempt({**tuned.config, field: value}, tuned.tensors, tuned.base)
        attempt({k: v for k, v in tuned.config.items() if k != field}, tuned.tensors, tuned.base)


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_a_tensor_is(family, tuned_as):
    tuned = tuned_as(family)
    for name in sorted(tuned.tensors)[:8]:
        tensor = tuned.tensors[name]
        without = {n: t for n, t in tuned.tensors.items() if n != name}
        changed = [tensor[..., :-1], tensor[:1], tensor[:0], tensor[None], tensor.ravel(), tensor.T, np.float32(1).reshape(())]
        changed += [np.concatenate([tensor, tensor]), np.full_like(tensor, np.nan), np.full_like(tensor, 3e38)]
        changed += [np.zeros_like(tensor), np.full_like(tensor, -np.inf), np.full_like(tensor, 1e-45)]
        attempt(tuned.config, without, tuned.base)
        for value in changed:
            attempt(tuned.config, {**without, name: value}, tuned.base)
    attempt(tuned.config, {}, tuned.base)


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_the_base_is(family, tuned_as):
    tuned = tuned_as(family)
    for make in (lambda t: t[:-1], lambda t: t.T, lambda t: t[None], lambda t: t * np.nan, lambda t: t[..., :1]):
        attempt(tuned.config, tuned.tensors, {name: make(tensor) for name, tensor in tuned.base.items()})
    attempt(tuned.config, tuned.tensors, {})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_s_name_in_the_keys_does_not_matter(family, tuned_as):
    """As files of old peft versions have it."""
    tuned = tuned_as(family)
    if "prompt_embeddings" in tuned.tensors:
        return
    named = {}
    for name, tensor in tuned.tensors.items():
        stem, _, leaf = name.rpartition(".")
        named[f"{stem}.default.{leaf}" if leaf in ("weight", "bias") else f"{name}.default"] = tensor
    assert set(wanted_peft_tensors(named, tuned.config)) == set(named)
    renamed = read_peft(tuned.config, named, "b", base_tensors=tuned.base)
    for one, other in zip(tuned.read(base=True).deltas, renamed.deltas, strict=True):
        assert one.site == other.site
        assert np.array_equal(one.up, other.up)
    second = {name.replace(".default", ".other"): tensor for name, tensor in named.items()}
    with pytest.raises(AdapterError, match="several adapters"):
        read_peft(tuned.config, named | second, "b", base_tensors=tuned.base)


@pytest.mark.parametrize("kind", ["VBLORA", "BONE", "lora", "", None, 5, ["LORA"], {"LORA": 1}, "\x1b[31m" * 100, "XLORA"])
def test_other_methods_are_refused_by_name(kind):
    for call in (lambda c: wanted_peft_tensors([], c), lambda c: read_peft(c, {}, "b")):
        with pytest.raises(AdapterError) as caught:
            call({"peft_type": kind})
        assert caught.value.reason == "unsupported method"
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 100
    with pytest.raises(AdapterError, match="unsupported method"):
        read_peft({}, {}, "b")


@pytest.mark.parametrize(
    ("family", "method", "variant"), [("LOHA", "lora", "loha"), ("IA3", "ia3", "ia3"), ("PREFIX_TUNING", "prefix", "prefix")]
)
def test_the_reader_takes_any_family(family, method, variant, tuned_as):
    tuned = tuned_as(family)
    files = {"adapter_config.json": json.dumps(tuned.config).encode(), "adapter_model.safetensors": save(dict(tuned.tensors))}
    listing = Listing("org/one", "r1", None, {name: len(data) for name, data in files.items()})
    (adapter,) = read_adapters(listing, MemoryBundle(files))
    assert (adapter.base, adapter.method, adapter.variant) == ("org/tiny", method, variant)
    for one, other in zip(adapter.deltas, tuned.read().deltas, strict=True):
        assert one.site == other.site
        assert np.array_equal(one.up, other.up)


class Asked(dict):
    """Base weights that count what they are asked for."""

    count = 0

    def get(self, name, default=None):
        self.count += 1
        return super().get(name, default)


@pytest.mark.parametrize("family", ["DORA", "IA3", "OFT", "BOFT"])
def test_no_more_of_the_base_is_fetched_than_can_be_used(family, tuned_as, monkeypatch):
    tuned = tuned_as(family)
    whole, small = Asked(tuned.base), Asked(tuned.base)
    read_peft(tuned.config, tuned.tensors, "b", base_tensors=whole)
    monkeypatch.setattr(peft_modules, "MAX_ENTRIES", 6_000)
    try:
        read_peft(tuned.config, tuned.tensors, "b", base_tensors=small)
    except AdapterError as error:
        assert error.reason == "too large"  # noqa: PT017
    assert small.count < whole.count


def test_no_framework_is_loaded_to_read_what_needs_none():
    import subprocess
    import sys

    code = "import sys, hubrank.checkpoints.peft_families; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "peft", "adapters"} & set(done.stdout.split())
