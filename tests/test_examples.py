"""The example zoo and the example targets are what the README and the cards say they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hubrank import read_target
from hubrank.checkpoints.card import front_matter
from hubrank.checkpoints.safetensors_file import SafetensorsFile
from hubrank.cli.app import app

ROOT = Path(__file__).parent.parent
ADAPTERS = sorted(config.parent for config in (ROOT / "examples/zoo").glob("*/*/adapter_config.json"))
TARGETS = ("banking", "contradiction", "intents", "topics", "monotonicity")


def test_the_zoo_is_large_varied_and_small_on_disk():
    assert len(ADAPTERS) >= 30
    assert sum(file.stat().st_size for file in (ROOT / "examples/zoo").rglob("*") if file.is_file()) < 8e6
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in ADAPTERS]
    assert {config["r"] for config in configs} == {4, 8, 16}
    assert len({tuple(sorted(config["target_modules"])) for config in configs}) >= 3
    assert len({front_matter((folder / "README.md").read_bytes())["datasets"][0] for folder in ADAPTERS}) >= 18
    assert len({folder.parent.name for folder in ADAPTERS}) >= 8


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_an_adapter_is_as_peft_publishes_it_and_beats_its_baseline(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["base_model_name_or_path"]) == ("LORA", "sentence-transformers/all-MiniLM-L6-v2")
    data = (folder / "adapter_model.safetensors").read_bytes()
    file = SafetensorsFile(lambda start, stop: data[start:stop], len(data))
    assert {info.dtype for info in file.tensors.values()} == {"F16"}
    text = (folder / "README.md").read_text()
    front = front_matter(text.encode())
    assert {"base_model", "datasets", "license", "tags", "model-index"} <= set(front)
    (metric,) = front["model-index"][0]["results"][0]["metrics"]
    stated = float(re.search(rf"^\| {metric['type']} on \d+ held-out rows \| ([\d.]+) \|", text, re.MULTILINE)[1])
    baseline = float(re.search(r"^\| baseline \| ([\d.]+) ", text, re.MULTILINE)[1])
    assert stated == metric["value"]
    assert stated >= (0.3 if metric["type"] == "spearman" else baseline + 0.05)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_can_be_read_and_its_licence_is_stated(name):
    target = read_target(ROOT / f"examples/{name}.jsonl")
    assert 100 <= len(target) <= 300
    assert target.notes == ()
    assert f"`{name}.jsonl`" in (ROOT / "examples/README.md").read_text()


def test_no_target_stands_alone_and_no_other_file_is_there():
    assert {path.stem for path in (ROOT / "examples").glob("*.jsonl")} == set(TARGETS)


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert len(names) == 9
    for name in names:
        assert f"`hubrank {name}" in readme, name
