"""What docs/hubs.md shows is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.builders import write_lora

DOCS = Path(__file__).parents[2] / "docs" / "hubs.md"


def test_the_private_hub_of_the_docs_syncs(tmp_path):
    for seed, name in enumerate(("one", "two")):
        write_lora(tmp_path / "tree" / "team" / name, seed=seed)
    (tmp_path / "tree" / "team" / "bad").mkdir()
    (tmp_path / "tree" / "team" / "bad" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with tarfile.open(tmp_path / "adapters.tar", "w") as archive:
        archive.add(tmp_path / "tree" / "team", "team")
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    env = {**os.environ, "HUBRANK_CACHE": str(tmp_path / "zoo")}
    said = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    assert said[0].startswith("2 added, 0 unchanged, {'")
    assert said[1].startswith("0 added, 2 unchanged, {'")
