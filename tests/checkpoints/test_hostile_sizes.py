"""Files of kilobytes that stand for matrices of gigabytes: a signature or a typed skip, in little memory and little time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, time
import numpy as np
import torch
from hubrank.checkpoints import peft_products, peft_random, peft_rotations
from hubrank.errors import AdapterError
from hubrank.signatures.canonical import sign_adapter
from hubrank.types import Delta

rng = np.random.default_rng(0)
LAYERS, D = int(sys.argv[2]), 4096
names = [f"base_model.model.model.layers.{i}.self_attn.q_proj" for i in range(LAYERS)]
some = lambda *shape: rng.standard_normal(shape).astype(np.float32)

class Base:
    def shape(self, name):
        return (D, D)
    def get(self, name):
        raise AssertionError("no matrix is needed")

def lokr(config, parts):
    return peft_products.read_lokr(config, {f"{n}.{k}": v for n in names for k, v in parts().items()}, "b")

def read(kind):
    if kind == "lokr whole":
        return lokr({"r": 8, "alpha": 8}, lambda: {"lokr_w1": some(64, 64), "lokr_w2": some(64, 64)})
    if kind == "lokr factors":
        return lokr({"r": 4, "alpha": 8}, lambda: {"lokr_w1": some(64, 64), "lokr_w2_a": some(64, 4), "lokr_w2_b": some(4, 64)})
    if kind == "lokr long":
        return lokr({"r": 8, "alpha": 8}, lambda: {"lokr_w1": some(D, 1), "lokr_w2": some(1, D)})
    if kind == "lokr wide":
        return lokr({"r": 8, "alpha": 8}, lambda: {"lokr_w1": some(D, 1), "lokr_w2": some(D, 1)})
    if kind == "fourierft":
        tensors = {f"{n}.fourierft_spectrum": some(1000) for n in names}
        return peft_random.read_fourierft({"n_frequency": 1000}, tensors, "b", base_tensors=Base())
    if kind == "fourierft connected":
        tensors = {f"{n}.fourierft_spectrum": some(9000) for n in names}
        return peft_random.read_fourierft({"n_frequency": 9000}, tensors, "b", base_tensors=Base())
    if kind == "vera":
        parts = lambda: {"vera_lambda_b": some(D), "vera_lambda_d": some(256)}
        tensors = {f"{n}.{k}": v for n in names for k, v in parts().items()}
        return peft_random.read_vera({"r": 256}, tensors, "b", base_tensors=Base())
    if kind == "oft":
        config = {"oft_block_size": 32, "r": 0}
        return peft_rotations.read_oft(config, {f"{n}.oft_R.weight": some(D // 32, 496) / 50 for n in names}, "b")
    if kind == "boft":
        parts = lambda: {"boft_R": some(3, D // 4, 4, 4) / 10, "boft_s": some(D, 1)}
        return peft_rotations.read_boft({}, {f"{n}.{k}": v for n in names for k, v in parts().items()}, "b")

np.linalg.eigh(np.eye(300)), np.linalg.qr(np.eye(300)), torch.randperm(10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
try:
    adapter = read(sys.argv[1])
    sites = len(sign_adapter(adapter).factors)
    outcome = f"signed {sites}"
except AdapterError as error:
    outcome = error.reason
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(outcome, (after - before) // 1000, round(time.process_time() - started, 1), sep="|")
"""


@pytest.mark.parametrize(
    ("kind", "layers", "outcome"),
    [
        ("lokr whole", 32, "signed 32"),
        ("lokr factors", 32, "signed 32"),
        ("lokr long", 32, "signed 32"),
        ("lokr wide", 4, "too large"),
        ("fourierft", 16, "signed 16"),
        ("fourierft connected", 16, "too large"),
        ("oft", 8, "signed 8"),
        ("boft", 4, "too large"),
        ("vera", 32, "signed 32"),
    ],
)
def test_modules_of_4096_columns_from_a_small_file(kind, layers, outcome):
    """Under 200 MB over what importing costs, and some seconds of processor time."""
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, kind, str(layers)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        timeout=300,
    )
    found, megabytes, seconds = run.stdout.strip().split("|")
    assert found == outcome
    assert int(megabytes) < 200
    assert float(seconds) < 10
