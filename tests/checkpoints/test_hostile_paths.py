"""Thousands of broken and hostile adapter folders through the whole path: each is signed or refused, and quickly.

Nothing is written, connected to or started on the way, and nothing warns (pytest makes warnings errors).
``HUBRANK_HOSTILE=10000`` makes as many mutants of folders; the default is 3,200.
"""

from __future__ import annotations

import copy
import io
import json
import os
import sys
import tempfile
import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
from safetensors.numpy import load, save

from hubrank.checkpoints.reader import read_adapters, read_card
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Listing
from hubrank.signatures.canonical import sign_adapter
from hubrank.signatures.encoding import decode_signature, encode_signature
from tests.builders import MemoryBundle
from tests.checkpoints import adapters_models, peft_models
from tests.checkpoints.weights import saved

MUTANTS = int(os.environ.get("HUBRANK_HOSTILE", "3200"))
SEEDS = 16
CONFIG, MANIFEST, README = "adapter_config.json", "hubrank.json", "README.md"
SAFE, BIN, ADAPTERS_BIN = "adapter_model.safetensors", "adapter_model.bin", "pytorch_adapter.bin"

LINEAR = {"target_modules": ["query", "value"]}
PEFT = {
    "lora": lambda: peft.LoraConfig(r=4, rank_pattern={"query": 3}, alpha_pattern={"value": 5}, **LINEAR),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, **LINEAR),
    "adalora": lambda: peft.AdaLoraConfig(init_r=4, total_step=10, **LINEAR),
    "ia3": lambda: peft.IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]),
    "loha": lambda: peft.LoHaConfig(r=3, **LINEAR),
    "lokr": lambda: peft.LoKrConfig(r=3, decompose_factor=4, **LINEAR),
    "vera": lambda: peft.VeraConfig(r=4, **LINEAR),
    "vera drawn": lambda: peft.VeraConfig(r=4, save_projection=False, **LINEAR),
    "fourierft": lambda: peft.FourierFTConfig(n_frequency=20, **LINEAR),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=8, **LINEAR),
    "boft": lambda: peft.BOFTConfig(boft_block_size=8, **LINEAR),
    "hra": lambda: peft.HRAConfig(r=4, **LINEAR),
    "miss": lambda: peft.MissConfig(r=4, **LINEAR),
    "ln": lambda: peft.LNTuningConfig(target_modules=["LayerNorm"]),
    "prefix": lambda: peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3),
    "prompt": lambda: peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3),
}
ADAPTERS = (
    *(
        "seq_bn",
        "double_seq_bn_inv",
        "par_bn",
        "compacter[reduction_factor=4]",
        "prefix_tuning[bottleneck_size=8]",
        "prefix_tuning_flat",
    ),
    *("lora", "dora", "ia3", "vera", "mtl_lora", "loreft", "direft", "mam", "unipelt", "prompt_tuning"),
)
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 8, 2**20, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308),
    *(float("nan"), float("inf"), "", "0", "8", "lora", "LORA", "a" * 10_000, "\ud800", "\x00", "\u202e\x1b[31m", "../../etc"),
    *([], [[]], [None], ["query", 3], [0] * 5000, ["q", "k", "v"], {}, {"": ""}, {"r": {"r": {}}}, {"architecture": "union"}),
    {"(a+)+$": 8, "(.*)*query": 3, "x{1,9999}": 2, "[": 1, "query": -1, "": 4},
    {"architecture": "union", "configs": ["seq_bn", {"architecture": "union", "configs": ["lora"]}, "lora"]},
    {"configs": ["mam"] * 9, "architecture": "union"},
)
FIELDS = (
    *("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "peft_type", "use_dora", "use_rslora", "config"),
    *("model_type", "architecture", "reduction_factor", "prefix_length", "prompt_length", "non_linearity"),
    *("phm_dim", "phm_layer", "scaling", "num_layers", "token_dim", "num_virtual_tokens", "num_attention_heads"),
    *("n_frequency", "projection_prng_key", "init_r", "hidden_size", "leave_out", "flat", "attn_matrices"),
    *("composition_mode", "use_gating", "vera_d", "version", "name", "using", "base_model_name_or_path"),
    *("model_name", "layers", "tensor", "weights", "method", "stored", "task", "fan_in_fan_out", "random_loc_seed"),
    *("decompose_both", "decompose_factor", "rank_dropout", "oft_block_size", "boft_block_size", "coft", "eps"),
    *("boft_n_butterfly_factor", "block_share", "init_weights", "mini_r", "fourierft_scaling"),
    *("n_frequency_pattern", "ln_before"),
)
CARDS = (
    b"",
    b"---\nbase_model: org/base\n---\n",
    b"---\nbase_model: [a, b]\ntags: {}\n---\n",
    b"---\n" + b"[" * 5000 + b"\n---\n",
    b"---\na: &a [x, x]\nb: &b [*a, *a]\nbase_model: *b\n---\n",
    b"---\n!!python/object/apply:os.system [ls]\n---\n",
    b"\xff\xfe---",
    b"---\nmodel-index: [{results: [{metrics: [{type: f1, value: .inf}], dataset: {name: 5}}]}]\n---\n",
    b"---\n? !!int ''\n---\n",
)
PIECES = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b"9" * 400,
)


@lru_cache(maxsize=1)
def samples() -> list[dict[str, bytes]]:
    """Sound folders of every method of both libraries, and of weights with a hubrank.json."""
    found = []
    for make in PEFT.values():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's advice on VeRA
            tuned = peft_models.tune("bert", make(), Path(folder), merge=False)
        found.append({CONFIG: json.dumps(tuned.config).encode(), SAFE: save(dict(tuned.tensors))})
    for name in ADAPTERS:
        config, tensors = adapters_models.example("bert", name)
        config = {**config, "model_name": "org/tiny"}
        state = {key: adapters_models.torch.from_numpy(value) for key, value in tensors.items()}
        found.append({CONFIG: json.dumps(config).encode(), ADAPTERS_BIN: saved(state)})
    rng = np.random.default_rng(0)
    prompt = io.BytesIO()
    np.save(prompt, rng.standard_normal((4, 16)).astype(np.float32))
    tensors = {
        "p-tuning-v2": {"prefix_encoder.embedding.weight": rng.standard_normal((3, 64)).astype(np.float32)},
        "ia3": {"encoder.block.0.layer.0.SelfAttention.k.multi_lora_b": np.full((8, 1), 2, np.float32)},
        "bitfit": {f"encoder.layer.{i}.output.dense.bias": np.ones(8, np.float32) for i in (0, 1)},
        "diff": {"encoder.layer.0.output.dense.weight": rng.standard_normal((8, 6)).astype(np.float32)},
    }
    bare = {"prompt": ("p.npy", prompt.getvalue())}
    bare |= {method: (f"{method}.safetensors", save(state)) for method, state in tensors.items()}
    for method, (file, data) in bare.items():
        manifest: dict[str, Any] = {"base_model": "org/tiny", "method": method, "weights": file, "task": "sst2"}
        if method in ("bitfit", "diff"):
            manifest["stored"] = "difference"
        if method == "p-tuning-v2":
            manifest["layers"] = 2
        found.append({MANIFEST: json.dumps(manifest).encode(), file: data})
    return found


def mutate_object(rng, value, other):
    """One place of a config changed: a value, a key, a field from another config, or a field that means something."""
    places = [(value, key) for key in value] if isinstance(value, dict) else []
    for key in list(value):
        if isinstance(value[key], dict):
            places += [(value[key], inner) for inner in value[key]]
    holder, key = places[int(rng.integers(len(places)))] if places else (value, "r")
    anything = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    match int(rng.integers(7)):
        case 0 | 1:
            holder[key] = anything
        case 2:
            holder.pop(key, None)
        case 3:
            holder[FIELDS[int(rng.integers(len(FIELDS)))]] = anything
        case 4:
            inside = value["config"] if isinstance(value.get("config"), dict) else value
            inside[FIELDS[int(rng.integers(len(FIELDS)))]] = anything
        case 5 if other:
            name = list(other)[int(rng.integers(len(other)))]
            value[name] = copy.deepcopy(other[name])
        case _:
            number = int(rng.integers(-3, 70))
            holder[key] = [number] if isinstance(holder.get(key), list) else number


def mutate_tensors(rng, data):
    """Another key, shape or number in a safetensors file."""
    tensors = dict(load(data))
    name = list(tensors)[int(rng.integers(len(tensors)))]
    tensor = tensors.pop(name)
    match int(rng.integers(7)):
        case 0:
            tensors[name + ".x"] = tensor
        case 1:
            tensors |= {name: tensor, name.replace("layer.0", "layer.1").replace("query", "key"): tensor}
        case 2:
            tensors[name] = np.ascontiguousarray(tensor.T)
        case 3:
            tensors[name] = tensor[:0]
        case 4:
            tensors[name] = tensor.reshape(-1)
        case 5:
            tensors[name] = tensor * np.float32([np.nan, np.inf, 0, 1e38][int(rng.integers(4))])
        case _:
            tensors[name] = tensor.repeat(2, axis=0)
    return save({key: np.ascontiguousarray(value) for key, value in tensors.items()})


def mutate_files(rng, files, other):
    """Files that go missing, change places, or come from another adapter."""
    names = list(files)
    name = names[int(rng.integers(len(names)))]
    strange = list(other)[int(rng.integers(len(other)))]
    match int(rng.integers(9)):
        case 0:
            del files[name]
        case 1:
            files[name] = other[strange]
        case 2:
            files[strange] = other[strange]
        case 3:
            files[(SAFE, BIN, ADAPTERS_BIN, "adapter.safetensors", CONFIG, MANIFEST)[int(rng.integers(6))]] = files[name]
        case 4:
            files[name] = files[name][: int(rng.integers(len(files[name]) + 1))]
        case 5:
            files[README] = CARDS[int(rng.integers(len(CARDS)))]
        case 6 if name.endswith(".safetensors"):
            with np.errstate(all="ignore"):
                files[name] = mutate_tensors(rng, files[name])
        case 7 if name.endswith(".safetensors"):
            state = {key: adapters_models.torch.from_numpy(value) for key, value in load(files[name]).items()}
            files[BIN] = saved(state)
            del files[name]
        case _:
            data = bytearray(files[name])
            at = int(rng.integers(len(data) + 1))
            piece = PIECES[int(rng.integers(len(PIECES)))]
            data[at : at + int(rng.integers(2)) * len(piece)] = piece
            files[name] = bytes(data)


def mutant(rng):
    """A sound folder with one to four things wrong."""
    every = samples()
    files, other = (dict(every[int(rng.integers(len(every)))]) for _ in range(2))
    marker = CONFIG if CONFIG in files else MANIFEST
    value, strange = json.loads(files[marker]), json.loads(other.get(CONFIG, other.get(MANIFEST, b"{}")))
    for _ in range(int(rng.integers(0, 4))):
        mutate_object(rng, value, strange)
    files[marker] = json.dumps(value).encode()
    if rng.random() < 0.4:
        mutate_files(rng, files, other)
    return files


@lru_cache(maxsize=1)
def base_tensors():
    """The weights of the tiny model that the adapters of peft were made for."""
    return {name: value.detach().numpy() for name, value in peft_models.tiny_model("bert").named_parameters()}


def whole_path(files, base=None):
    """What sync does with a folder, without the store."""
    listing = Listing("org/one", "r1", None, {name: len(data) for name, data in files.items()})
    bundle = MemoryBundle(files)
    adapters = read_adapters(listing, bundle, base_tensors=base)
    signatures = [sign_adapter(adapter) for adapter in adapters]
    read_card(listing, bundle)
    return [decode_signature(encode_signature(signature)) for signature in signatures]


def sound(files):
    """A sample; adapters' have a base model of another width."""
    return whole_path(files, base_tensors() if b'"peft_type"' in files.get(CONFIG, b"") else None)


WATCHED = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.system", "os.exec", "socket.connect", "subprocess.Popen")
deeds: list[str] | None = None


def watch(event, arguments):
    """Any file opened to be written, and whatever else leaves a trace; an audit hook cannot be taken away again."""
    if deeds is None:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in WATCHED:
        deeds.append(f"{event} {arguments[0]!r}")


@lru_cache(maxsize=1)
def start_watching():
    for files in samples():
        sound(files)  # whose imports write .pyc files
    sys.addaudithook(watch)


@pytest.fixture
def watched(tmp_path):
    """What was done since the test began, the folder made for it not counted."""
    global deeds  # noqa: PLW0603 - the hook outlives the fixture
    start_watching()
    deeds = []
    yield deeds
    deeds = None


def test_the_samples_are_sound():
    for files in samples():
        assert sound(files)


def test_the_watch_sees_a_file_that_is_written(watched, tmp_path):
    (tmp_path / "trace").write_text("x")
    assert len(watched) == 1


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_mutant_is_signed_or_refused(seed, watched):
    rng = np.random.default_rng(seed)
    refused = 0
    for number in range(-(-MUTANTS // SEEDS)):
        files = mutant(rng)
        began = time.thread_time()
        try:
            for signature in whole_path(files, base_tensors() if number % 2 else None):
                assert all(np.isfinite(part).all() for f in signature.factors for part in (f.u, f.s, f.v, f.spectrum))
        except AdapterError as error:
            refused += 1
            assert len(str(error)) < 400, number  # noqa: PT017
            assert str(error).isprintable(), number  # noqa: PT017
            assert 0 < len(error.reason) < 30, number  # noqa: PT017
        except Exception as error:
            marker = files.get(CONFIG) or files.get(MANIFEST, b"")
            raise AssertionError(f"mutant {number} of seed {seed}, {sorted(files)}: {marker[:2000]!r}") from error
        assert time.thread_time() - began < 2, number
    assert watched == []
    assert MUTANTS // SEEDS * 0.1 < refused < MUTANTS // SEEDS, "mutations that matter, and some that do not"
