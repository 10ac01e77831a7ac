"""One id per base model, from whatever a config and a card call it."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank import sync
from hubrank.checkpoints.base_names import _table, all_names, canonical_base, canonical_name, is_model_id
from hubrank.checkpoints.reader import read_adapters
from hubrank.errors import AdapterError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from tests.builders import write_lora


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("roberta-base", "FacebookAI/roberta-base"),
        ("gpt2", "openai-community/gpt2"),
        ("distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
        ("xlm-roberta-base", "FacebookAI/xlm-roberta-base"),
        ("t5-small", "google-t5/t5-small"),
        ("albert-base-v2", "albert/albert-base-v2"),
        ("distilgpt2", "distilbert/distilgpt2"),
        ("bert-base-uncased/", "google-bert/bert-base-uncased"),
        ("https://huggingface.co/gpt2", "openai-community/gpt2"),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("org/some.model_v1-2", "org/some.model_v1-2"),
        ("somebodys-model", "somebodys-model"),
        ("/root/.cache/huggingface/hub/models--roberta-base/snapshots/abc", "FacebookAI/roberta-base"),
        ("/root/.cache/huggingface/hub/models--org--name/snapshots/abc", "org/name"),
        ("C:\\Users\\me\\.cache\\models--org--name\\snapshots\\abc", "org/name"),
        ("NousResearch/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
    ],
)
def test_names_of_one_model_become_one_id(name, base):
    assert canonical_base(name, None) == (base, ())
    assert canonical_base(base, None) == (base, ())


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit", "Qwen/Qwen2.5-7B-Instruct"),
        ("unsloth/something-new-bnb-4bit", "unsloth/something-new"),
        ("TheBloke/Mistral-7B-v0.1-GPTQ", "mistralai/Mistral-7B-v0.1"),
        ("TheBloke/Llama-2-7b-Chat-AWQ", "meta-llama/Llama-2-7b-chat-hf"),
        ("TheBloke/Unheard-Of-GPTQ", "TheBloke/Unheard-Of-GPTQ"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B-Instruct"),
    ],
)
def test_quantised_copies_lead_to_their_original_with_a_warning(name, base):
    found, warnings = canonical_base(name, None)
    assert found == base
    assert len(warnings) == 1
    assert "quantised" in warnings[0]


def test_the_card_helps_where_the_original_is_unknown():
    assert canonical_base("TheBloke/Unheard-Of-GPTQ", "maker/unheard-of")[0] == "maker/unheard-of"


@pytest.mark.parametrize(
    "path",
    [
        "/content/drive/MyDrive/llama",
        "/home/me/models/bert-base-uncased",
        "./bert",
        "../bert",
        "~/bert",
        "C:\\models\\bert",
        "D:/models/bert",
        "models/bert-base",
        "results/checkpoint-500",
        "out/checkpoint-500",
        "a/b/c",
        "..",
        "",
        None,
        "   ",
        "org/name with spaces",
        "-/-",
    ],
)
def test_a_path_is_replaced_by_what_the_card_says_or_refused(path):
    base, warnings = canonical_base(path, "roberta-base")
    assert base == "FacebookAI/roberta-base"
    assert "the card's base model FacebookAI/roberta-base was taken" in warnings[0]
    for card in (None, "", "/also/a/path", "two words"):
        with pytest.raises(AdapterError) as caught:
            canonical_base(path, card)
        assert caught.value.reason == "no base model"


def test_a_card_that_disagrees_is_a_warning():
    assert canonical_base("bert-base-cased", "google-bert/bert-base-cased") == ("google-bert/bert-base-cased", ())
    base, warnings = canonical_base("org/a", "org/b")
    assert base == "org/a"
    assert warnings == ("the card names another base model, org/b",)
    assert canonical_base("org/a", "not an id") == ("org/a", ())


def test_the_table_is_consistent():
    for names in _table().values():
        for name, base in names.items():
            assert is_model_id(name)
            assert is_model_id(base)
            assert canonical_name(base) == base, base


@given(name=st.text(max_size=400), card=st.text(max_size=400))
def test_any_text_gives_an_id_or_a_refusal(name, card):
    try:
        base, warnings = canonical_base(name, card)
    except AdapterError as error:
        assert error.reason == "no base model"  # noqa: PT017
        return
    assert is_model_id(base)
    assert all(warning.isprintable() for warning in warnings)


@pytest.mark.parametrize("piece", ["a", "-", ".", "a-", "models--a--", "a/", "-4bit", "-gptq"])
def test_long_names_take_no_time(piece):
    began = time.thread_time()
    for _ in range(100):
        with contextlib.suppress(AdapterError):
            canonical_base(piece * 20_000, piece * 50)
    assert time.thread_time() - began < 2


def test_all_names_lead_to_the_same_files():
    assert all_names("gpt2") == all_names("openai-community/gpt2") == ("openai-community/gpt2", "gpt2")
    assert all_names("GPT2") == ("openai-community/gpt2", "gpt2", "GPT2")
    assert all_names("org/own") == ("org/own",)


def test_the_reader_takes_the_base_from_the_card_where_the_config_has_a_path(tmp_path):
    card = "---\nbase_model: bert-base-uncased\n---\n"
    write_lora(tmp_path / "org" / "a", base="/content/drive/MyDrive/bert", card=card)
    write_lora(tmp_path / "org" / "b", base="bert-base-uncased")
    write_lora(tmp_path / "org" / "c", base=None, card="---\ntags: [base_model:adapter:roberta-base, lora]\n---\n")
    write_lora(tmp_path / "org" / "d", base="./local", card="---\nbase_model: [a/b, c/d]\n---\n")
    hub = FolderHub(tmp_path)
    found = {}
    for listing in hub.discover(Query()):
        try:
            adapter = read_adapters(listing, hub.open(listing))[0]
        except AdapterError as error:
            found[listing.repo] = (error.reason, 0)
        else:
            found[listing.repo] = (adapter.base, len(adapter.warnings))
    assert found == {
        "org/a": ("google-bert/bert-base-uncased", 1),
        "org/b": ("google-bert/bert-base-uncased", 0),
        "org/c": ("FacebookAI/roberta-base", 1),
        "org/d": ("no base model", 0),
    }


def test_sync_finds_a_base_by_its_older_name(tmp_path):
    write_lora(tmp_path / "zoo" / "org" / "a", base="google-bert/bert-base-uncased")
    write_lora(tmp_path / "zoo" / "org" / "b", base="org/other")
    report = sync([tmp_path / "zoo"], bases=["bert-base-uncased"], cache_dir=tmp_path / "cache")
    assert (report.added, dict(report.skipped)) == (1, {"other base": 1})
