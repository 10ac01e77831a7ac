"""torch checkpoints without torch: the same numbers as torch.load gives, and nothing that it would refuse."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.torch_file import TorchFile
from hubrank.checkpoints.torch_pickle import MAX_INSTRUCTIONS, run_pickle
from hubrank.errors import AdapterError
from tests.checkpoints.weights import (
    RunsCode,
    opened,
    pickled,
    read_all,
    saved,
    tensor_pickle,
    text,
    torch_zip,
)
from tests.real_data import DATA

FORMATS = [
    {},
    {"_use_new_zipfile_serialization": False},
    {"pickle_protocol": 3},
    {"pickle_protocol": 4},
    {"pickle_protocol": 5},
]
FOUR = np.arange(4, dtype="<f4").tobytes()


def refusal(data: bytes) -> str:
    with pytest.raises(AdapterError) as caught:
        read_all(TorchFile, data)
    assert len(caught.value.detail) < 300
    return caught.value.reason


@pytest.mark.parametrize("options", FORMATS)
def test_what_torch_writes_reads_as_torch_reads_it(options):
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 2)
    tagged, parameter = torch.randn(3), torch.nn.Parameter(torch.randn(2, 2))
    tagged.note = parameter.note = "an attribute"
    weights = {
        "f32": torch.randn(3, 4),
        "f16": torch.randn(5).half(),
        "bf16": torch.randn(2, 3).bfloat16(),
        "f64": torch.randn(3).double(),
        "transposed": torch.randn(4, 5).T,
        "slice": torch.randn(3, 8)[:, 2:5],
        "row": torch.randn(3, 8)[1],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": parameter,
        "tagged": tagged,
        "linear": linear.weight.detach(),
        "shared": linear.weight.detach(),
    }
    others = {
        "integers": torch.arange(3),
        "complex": torch.randn(2, dtype=torch.complex64),
        "step": 7,
        "lr": 1e-3,
        "note": "text",
        "big": 2**80,
        "set": {1, 2},
        "bytes": b"ab",
        "size": torch.Size([1]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "state": {0: {"exp_avg": torch.randn(2)}},
        "list": [None, True, (1, -2)],
    }
    data = saved(OrderedDict({**weights, **others}), **options)
    read = read_all(TorchFile, data)
    assert set(read) == set(weights)
    for name, array in read.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.array_equal(array, weights[name].detach().float().numpy()), name
    assert read["linear"] is read["shared"]


def test_eight_bit_floats_read_as_torch_reads_them():
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        every = torch.arange(256, dtype=torch.uint8).view(dtype)
        read = read_all(TorchFile, saved({"a": every}))["a"]
        assert np.array_equal(read, every.float().numpy(), equal_nan=True)


def test_a_state_dict_of_a_module_keeps_its_names():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    read = read_all(TorchFile, saved(module.state_dict()))
    assert list(read) == list(module.state_dict())


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "module"])
def test_weights_one_level_down_are_found(name):
    inside = {"a": torch.ones(2)}
    assert set(read_all(TorchFile, saved({"epoch": 3, name: inside, "optimizer": {"b": torch.ones(2)}}))) == {"a"}
    assert read_all(TorchFile, saved({"outer": {name: inside}})) == {}


def test_a_bare_tensor_has_no_name():
    assert read_all(TorchFile, saved(torch.ones(2, 3)))[""].shape == (2, 3)
    assert read_all(TorchFile, saved([torch.ones(2)])) == {}


def test_only_what_is_asked_for_is_read():
    data = saved({name: torch.randn(50_000) for name in "abcdef"})
    reads = []
    file = TorchFile(lambda start, stop: (reads.append((start, stop)), data[start:stop])[1], len(data))
    assert sum(stop - start for start, stop in reads) < 100_000
    reads.clear()
    assert set(file.read(["c"])) == {"c"}
    assert sum(stop - start for start, stop in reads) < 201_000
    reads.clear()
    file.read("abcdef")
    assert len(reads) == 1  # neighbours in one read


@given(seed=st.integers(0, 1000), dims=st.lists(st.integers(1, 5), max_size=4), legacy=st.booleans())
def test_any_dense_view_reads_as_torch_reads_it(seed, dims, legacy):
    rng = np.random.default_rng(seed)
    tensor = torch.from_numpy(rng.standard_normal([n + 2 for n in dims]).astype(np.float32))
    for axis, n in enumerate(dims):
        tensor = tensor.narrow(axis, int(rng.integers(0, 3)), n)
    tensor = tensor.permute(*rng.permutation(len(dims)).tolist()) if dims else tensor
    read = read_all(TorchFile, saved({"a": tensor}, _use_new_zipfile_serialization=not legacy))
    assert np.array_equal(read["a"], tensor.numpy())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data")
def test_real_files_read_as_torch_reads_them():
    files = [*DATA.glob("adapters/*/*.bin"), *DATA.glob("adapters/*/*.pt")]
    assert len(files) >= 4
    for path in files:
        read = read_all(TorchFile, path.read_bytes())
        expected = torch.load(path, weights_only=True, map_location="cpu")
        assert set(read) == set(expected)
        assert all(np.array_equal(read[name], expected[name].numpy()) for name in read)


def test_no_framework_is_imported(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(saved({"a": torch.ones(3)}))
    code = (
        "import sys; from hubrank.checkpoints.torch_file import TorchFile; data = open(sys.argv[1], 'rb').read();"
        "assert TorchFile(lambda a, b: data[a:b], len(data)).read(['a'])['a'].sum() == 3; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "safetensors"} & set(done.stdout.split())


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_and_not_run(tmp_path, protocol):
    canary = tmp_path / "canary"
    attacks = [
        RunsCode(os.system, f"touch {canary}"),
        RunsCode(os.mkdir, str(canary)),
        RunsCode(eval, f"open({str(canary)!r}, 'w')"),
        {"weight": RunsCode(os.mkdir, str(canary))},
        OrderedDict(a=[RunsCode(os.mkdir, str(canary))]),
    ]
    for attack in attacks:
        raw = pickled(attack, protocol)
        legacy = saved({}, _use_new_zipfile_serialization=False)[:137] + raw
        for data in (torch_zip(raw), raw, legacy):
            assert refusal(data) in ("unsafe file", "damaged file")
        if protocol >= 2:
            assert refusal(torch_zip(raw)) == "unsafe file"
    assert not canary.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3.0),
        np.float64(3),
        torch.nn.Linear(2, 2),
        argparse.Namespace(a=1),
        {"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(a=1)},
        torch.load,
        subprocess.run,
        slice(1, 2),
    ],
)
def test_what_is_no_state_dict_is_refused(value):
    with pytest.raises(Exception, match=r"weights_only|Weights only|Unsupported"):
        torch.load(io.BytesIO(saved(value)), weights_only=True)
    assert refusal(saved(value)) == "unsafe file"
    assert refusal(saved(value, _use_new_zipfile_serialization=False)) == "unsafe file"


def test_the_placeholder_classes_are_harmless():
    read = read_all(TorchFile, saved({"a": torch.ones(2), "d": defaultdict(dict, {"x": [1]}), "set": {1}}))
    assert set(read) == {"a"}


@pytest.mark.parametrize(
    ("shape", "strides", "options"),
    [
        ((1_000_000_000,), (0,), {}),
        ((2, 4), (0, 1), {}),
        ((4, 4), (1, 1), {}),
        ((5,), (1,), {}),
        ((4,), (2,), {}),
        ((4,), (1,), {"offset": 1}),
        ((4,), (1,), {"offset": -1}),
        ((-4,), (1,), {}),
        ((4,), (-1,), {}),
        ((1 << 62,), (1,), {}),
        ((0, 1 << 62), (1, 1), {}),
        ((4, 1), (1,), {}),
        ((1,) * 20, (1,) * 20, {}),
        ((4,), (1,), {"storage": "DoubleStorage", "count": 2}),
    ],
)
def test_a_view_that_claims_more_than_its_storage_is_refused(shape, strides, options):
    assert refusal(torch_zip(tensor_pickle(shape, strides, **options), {"0": FOUR})) == "unsafe file"


def test_a_plain_view_of_the_same_storage_is_read():
    read = read_all(TorchFile, torch_zip(tensor_pickle((2, 2), (1, 2)), {"0": FOUR}))
    assert read["weight"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("count", [3, 5, 0, -1, 1 << 62])
def test_a_storage_of_another_size_is_refused(count):
    assert refusal(torch_zip(tensor_pickle((1,), (1,), count=count), {"0": FOUR})) == "damaged file"


def test_a_missing_storage_is_refused():
    assert refusal(torch_zip(tensor_pickle((1,), (1,), key="../../etc/passwd"), {"0": FOUR})) == "damaged file"
    assert refusal(torch_zip(tensor_pickle((1,), (1,)))) == "damaged file"


def test_the_stride_zero_file_of_torch_itself_is_refused():
    data = saved({"a": torch.zeros(1).expand(10**9)})
    assert len(data) < 3000
    assert refusal(data) == "unsafe file"


def test_overlapping_views_cannot_multiply_memory():
    count = 60_000
    base = torch.zeros(count)
    # A thousand tensors, each nearly all of one storage: 240 MB out of a file of 300 kB.
    data = saved({f"t{i}": base[i:] for i in range(1000)})
    assert refusal(data) == "unsafe file"
    assert len(opened(TorchFile, data).read(["t0", "t1"])) == 2


def test_compressed_and_broken_zip_files_are_refused():
    bomb = torch_zip(
        tensor_pickle((10_000_000,), (1,), count=10_000_000), {"0": bytes(40_000_000)}, method=zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < 100_000
    assert refusal(bomb) == "unsafe file"
    assert refusal(saved({"a": torch.ones(3)})[:-1]) == "damaged file"
    assert refusal(b"PK\x03\x04") == "damaged file"
    assert refusal(b"") == "damaged file"
    assert refusal(b"ustar" * 200) in ("damaged file", "unsafe file")


def test_many_instructions_and_deep_nesting_end_soon():
    loads = [
        b"\x80\x02" + b"(" * 20 * MAX_INSTRUCTIONS,
        b"\x80\x02" + b"]" * 20 * MAX_INSTRUCTIONS,
        b"\x80\x02}" + b"\x94" * 20 * MAX_INSTRUCTIONS,
        b"\x80\x02)" + b"\x85" * 20 * MAX_INSTRUCTIONS + b".",  # nested tuples
        b"\x80\x02]" + (b"\x8a\x10" + b"\x01" * 16) * 800_000 + b".",
        b"\x80\x02" + b"X\xff\xff\xff\x7f",
    ]
    for load in loads:
        began = time.process_time()
        assert refusal(torch_zip(load)) in ("file too large", "damaged file")
        assert time.process_time() - began < 2


def test_nested_tuples_are_never_hashed():
    # Hashing ((x, x), (x, x)), ... takes time exponential in the depth.
    nested = b")" + b"q\x00h\x00\x86" * 200
    value = run_pickle(b"\x80\x02}" + nested + b"Ns" + text("a") + b"Ns.").value
    assert value == {"a": None}


@pytest.mark.parametrize(
    "program",
    [
        b".",
        b"q\x00.",
        b"h\x00.",
        b"R.",
        b"b.",
        b"s.",
        b"u.",
        b"e.",
        b"a.",
        b"t.",
        b"\x85.",
        b"Q.",
        b"NQ.",
        b"NNR.",
        b"0.",
        b"(.",
        b"c",
        b"",
    ],
)
def test_programs_that_make_no_sense_are_refused(program):
    with pytest.raises(AdapterError) as caught:
        run_pickle(b"\x80\x02" + program)
    assert caught.value.reason in ("damaged file", "unsafe file")


def test_a_file_over_the_cap_is_not_opened():
    with pytest.raises(AdapterError, match="file too large"):
        TorchFile(lambda start, stop: pytest.fail("nothing is read"), 1 << 40)


def test_big_endian_files_are_refused():
    assert refusal(torch_zip(tensor_pickle((4,), (1,)), {"0": FOUR}, byteorder=b"big")) == "unsupported format"
    legacy = saved({"a": torch.ones(3)}, _use_new_zipfile_serialization=False)
    assert refusal(legacy.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")) == "unsupported format"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_hostile_files_stay_within_their_memory(tmp_path):
    """In 400 MB of address space above what the interpreter takes, every attack ends in a refusal, not in a MemoryError."""
    files = {
        "stride": saved({"a": torch.zeros(1).expand(10**9)}),
        "views": saved({f"t{i}": torch.zeros(60_000)[i:] if i else torch.zeros(60_000) for i in range(3)}),
        "marks": torch_zip(b"\x80\x02" + b"(" * 2_000_000),
        "lists": torch_zip(b"\x80\x02" + b"]\x94" * 2_000_000),
        "text": torch_zip(b"\x80\x02X\xff\xff\xff\xff" + b"a" * 1000),
        "bomb": torch_zip(b"\x80\x02}.", {"0": bytes(40_000_000)}, method=zipfile.ZIP_DEFLATED),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import resource, sys, pathlib, numpy\n"
        "from hubrank.checkpoints.torch_file import TorchFile\n"
        "from hubrank.errors import AdapterError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    data = path.read_bytes()\n"
        "    try:\n"
        "        file = TorchFile(lambda a, b: data[a:b], len(data)); file.read(file.tensors); print(path.name, 'read')\n"
        "    except AdapterError as error: print(path.name, error.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == {
        "stride": "unsafe file",
        "views": "read",
        "marks": "file too large",
        "lists": "file too large",
        "text": "damaged file",
        "bomb": "unsafe file",
    }
