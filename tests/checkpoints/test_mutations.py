"""Thousands of broken and hostile weights files: each is read or refused, quickly, in little memory, and none runs code.

``HUBRANK_MUTANTS=100000`` makes as many; the default is twelve thousand.
"""

from __future__ import annotations

import io
import os
import resource
import time
import zipfile
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from hubrank.checkpoints.numpy_file import NumpyFile
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.checkpoints.torch_file import TorchFile
from hubrank.checkpoints.torch_pickle import run_pickle
from hubrank.errors import AdapterError
from tests.checkpoints.weights import RunsCode, pickled, read_all, saved, tensor_pickle, torch_zip

MUTANTS = int(os.environ.get("HUBRANK_MUTANTS", "12000"))
A_TIME = 25  # mutants of one seed
KINDS = ("pickle", "torch zip", "torch legacy", "safetensors", "npy", "npz")
CANARY = "/tmp/hubrank-canary-of-the-mutations"
PIECES = [
    *(n.to_bytes(size, "little") for size in (1, 2, 4, 8) for n in (0, 1, 2, 2 ** (8 * size) - 1, 2 ** (8 * size - 1))),
    f"cos\nsystem\nX{chr(len(CANARY) + 6)}\0\0\0touch {CANARY}\x85R".encode("latin-1"),
    pickled(RunsCode(os.system, f"touch {CANARY}")),
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n)R",
    *(bytes([code]) for code in b"(.0NKMJGXUCB]})te\x85\x86\x87asuqrhjcRbQ\x8a\x8c\x8f\x90\x93\x94\x95"),
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"),
    *(b"-1", b"9" * 30, b"[", b"{", b'"', b"null", b"1e999", b"NaN", b"\\ud800"),
]


@lru_cache(maxsize=1)
def samples() -> dict[str, list[bytes]]:
    """Sound files of each kind, small, so that most mutations hit something that matters."""
    import torch

    torch.manual_seed(0)
    weights = torch.nn.Linear(3, 2).state_dict() | {"half": torch.ones(3).half(), "n": 3, "state": {"a": torch.ones(2)}}
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float16)}
    npy, npz, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, arrays["a"])
    np.savez(npz, **arrays)
    np.savez_compressed(packed, **arrays)
    zipped = saved(weights)
    with zipfile.ZipFile(io.BytesIO(zipped)) as file:
        program = file.read("archive/data.pkl")
    plain = tensor_pickle((2, 2), (2, 1))
    return {
        "pickle": [program, plain],
        "torch zip": [zipped, torch_zip(plain, {"0": bytes(16)})],
        "torch legacy": [saved(weights, _use_new_zipfile_serialization=False)],
        "safetensors": [save(arrays)],
        "npy": [npy.getvalue()],
        "npz": [npz.getvalue(), packed.getvalue()],
    }


def mutant(rng: np.random.Generator, kind: str) -> bytes:
    """A sound file with one to six places changed."""
    sources = samples()[kind]
    data = bytearray(sources[int(rng.integers(len(sources)))])
    for _ in range(int(rng.integers(1, 7))):
        at = int(rng.integers(0, len(data) + 1))
        length = int(rng.integers(0, 12))
        piece = PIECES[int(rng.integers(len(PIECES)))]
        match int(rng.integers(6)):
            case 0 if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + len(piece)] = piece
            case 2:
                data[at:at] = piece
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + 8 * length]
            case 5:
                del data[at if length == 0 else len(data) :]
    return bytes(data)


def run(kind: str, data: bytes) -> object:
    match kind:
        case "pickle":
            run_pickle(data)
            return read_all(TorchFile, torch_zip(data, {"0": bytes(16), "1": bytes(8)}))
        case "safetensors":
            return read_all(SafetensorsFile, data)
        case "npy" | "npz":
            return read_all(NumpyFile, data)
        case _:
            return read_all(TorchFile, data)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=max(1, MUTANTS // A_TIME // len(KINDS)))
@given(seed=st.integers(0, 2**63))
def test_a_mutant_is_read_or_refused(kind, seed):
    rng = np.random.default_rng(seed)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(A_TIME):
        data = mutant(rng, kind)
        began = time.thread_time()
        try:
            run(kind, data)
        except AdapterError as error:
            assert error.reason in ("damaged file", "unsafe file", "file too large", "unsupported format", "unexpected dtype")  # noqa: PT017
            assert len(str(error)) < 400  # noqa: PT017
        assert time.thread_time() - began < 2
    assert not os.path.exists(CANARY)  # noqa: PTH110
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kB
