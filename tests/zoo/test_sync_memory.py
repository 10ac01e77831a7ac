"""A LoRA of an 8B model through sync: what it adds to a process, as the operating system accounts for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

LAYERS, RANK = 32, 16
WIDTHS = {
    **{f"self_attn.{name}_proj": (4096 if name in "qo" else 1024, 4096) for name in "qkvo"},
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
PROGRAM = """
import sys
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from pathlib import Path
with Zoo(Path(sys.argv[2]), create=True) as zoo:
    report = sync_hubs(zoo, [FolderHub(sys.argv[1])], Query())
# Not ru_maxrss, which a process takes over from the one that started it.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(report.added, report.seconds, peak)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_a_large_lora_takes_under_four_times_its_file_and_200_mb(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {}
    for module, (d_out, d_in) in WIDTHS.items():
        a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((RANK, d_in), (d_out, RANK)))
        for layer in range(LAYERS):
            path = f"base_model.model.model.layers.{layer}.{module}"
            tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    folder = tmp_path / "org" / "large"
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/8b", "r": RANK, "lora_alpha": 2 * RANK}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert 80e6 < size < 90e6
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    added, _, peak = done.stdout.split()
    assert added == "1"
    assert int(peak) * 1024 < 4 * size + 200e6
