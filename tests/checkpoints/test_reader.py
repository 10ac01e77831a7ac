"""From the files of one adapter to its deltas: what is read, what is not, and why an adapter is skipped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

from hubrank.checkpoints.card import MAX_CARD_BYTES
from hubrank.checkpoints.reader import read_adapters, read_card
from hubrank.errors import AdapterError
from hubrank.hubs.protocol import Listing
from hubrank.types import CardFacts
from tests.builders import MODULES, MemoryBundle, lora_tensors

CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2, "lora_alpha": 4}


def adapter_files(**config) -> dict[str, bytes]:
    return {
        "adapter_config.json": json.dumps({**CONFIG, **config}).encode(),
        "adapter_model.safetensors": save(lora_tensors()),
    }


def listing_of(files, **changes) -> Listing:
    return Listing("org/one", "r1", None, {name: len(data) for name, data in files.items()}, **changes)


def refused(files) -> str:
    with pytest.raises(AdapterError) as caught:
        read_adapters(listing_of(files), MemoryBundle(files))
    assert len(str(caught.value)) < 300
    return caught.value.reason


def test_a_lora_is_read():
    files = adapter_files()
    (adapter,) = read_adapters(listing_of(files), MemoryBundle(files))
    assert (adapter.base, adapter.method, adapter.warnings) == ("org/base", "lora", ())
    assert [f"encoder.layer.{d.site.layer}.{d.site.module}" for d in adapter.deltas] == list(MODULES)
    tensors = lora_tensors()
    for delta, module in zip(adapter.deltas, MODULES, strict=True):
        up, down = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "BA")
        np.testing.assert_allclose(delta.up @ delta.down, 2.0 * up @ down, rtol=1e-5, atol=1e-5)


def test_the_head_s_bytes_are_not_read():
    head = np.ones((300, 300), np.float32)
    files = adapter_files()
    files["adapter_model.safetensors"] = save({**lora_tensors(), "base_model.model.classifier.weight": head})
    bundle = MemoryBundle(files)
    read_adapters(listing_of(files), bundle)
    read = sum(stop - start for name, start, stop in bundle.reads if name == "adapter_model.safetensors")
    assert read < len(files["adapter_model.safetensors"]) - head.nbytes + 100


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no config"),
        ({"adapter_config.json": b"{not json"}, "bad config"),
        ({"adapter_config.json": b"[]"}, "bad config"),
        ({"adapter_config.json": b"{}"}, "unsupported format"),
        ({"adapter_config.json": b" " * 5_000_000}, "file too large"),
        ({**adapter_files(), "adapter_model.safetensors": b"junk"}, "damaged file"),
        ({**adapter_files(), "adapter_model.safetensors": b""}, "damaged file"),
        ({"adapter_config.json": adapter_files()["adapter_config.json"], "adapter_model.bin": b"pickle"}, "unsafe file"),
    ],
    ids=["nothing", "not json", "list", "empty object", "large", "junk weights", "empty weights", "pickle only"],
)
def test_files_that_are_missing_or_damaged(files, reason):
    assert refused(files) == reason


@pytest.mark.parametrize("base", [None, "", 5, ["org/base"], "\u202e\x00", "  \n"])
def test_no_base_model(base):
    assert refused(adapter_files(base_model_name_or_path=base)) == "no base model"


@pytest.mark.parametrize("kind", ["BONE", "lora", "", 5, ["LORA"], {"LORA": 1}, "\x1b[31m" * 100])
def test_an_unsupported_method(kind):
    files = adapter_files(peft_type=kind)
    with pytest.raises(AdapterError) as caught:
        read_adapters(listing_of(files), MemoryBundle(files))
    assert caught.value.reason == "unsupported method"
    assert str(kind).replace("\x1b", "")[:30] in caught.value.detail, "it is skipped by name"


def test_a_config_of_another_library():
    assert refused(adapter_files(peft_type=None)) == "unsupported format"


@pytest.mark.parametrize("name", ["org/\x1b[31mba\u202ese", "org/" + "x" * 1000, "org/na me", "/tmp/base"])
def test_a_base_that_is_no_id_is_refused_in_a_short_printable_line(name):
    files = adapter_files(base_model_name_or_path=name)
    with pytest.raises(AdapterError) as caught:
        read_adapters(listing_of(files), MemoryBundle(files))
    assert caught.value.reason == "no base model"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("depth", [10, 100, 500, 900, 990, 1000, 5000])
@pytest.mark.parametrize("field", ["r", "peft_type", "use_dora", "rank_pattern", "lora_alpha", "base_model_name_or_path"])
def test_a_deeply_nested_field_is_refused(field, depth):
    files = adapter_files()
    deep = "[" * depth + "]" * depth
    files["adapter_config.json"] = json.dumps({**CONFIG, field: "@"}).replace('"@"', deep).encode()
    assert refused(files) in ("bad config", "unsupported method", "no base model")


def test_the_card_comes_from_the_listing_or_from_the_readme():
    files = {"README.md": b"---\nlicense: mit\n---\n"}
    assert read_card(listing_of(files), MemoryBundle(files)) == CardFacts(license="mit")
    bundle = MemoryBundle(files)
    assert read_card(listing_of(files, card={"license": "gpl"}), bundle) == CardFacts(license="gpl")
    assert bundle.reads == []
    assert read_card(listing_of({}), MemoryBundle({})) == CardFacts()


def test_of_an_endless_card_only_the_beginning_is_read():
    files = {"README.md": b"---\nlicense: mit\n---\n" + b"x" * (2 * MAX_CARD_BYTES)}
    bundle = MemoryBundle(files)
    assert read_card(listing_of(files), bundle) == CardFacts(license="mit")
    assert bundle.reads == [("README.md", 0, MAX_CARD_BYTES)]
