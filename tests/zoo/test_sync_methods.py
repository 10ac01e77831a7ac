"""``sync --method``: other methods cost at most a config, are counted under a reason of their own, and lose nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubrank.api import sync as sync_zoo
from hubrank.checkpoints.peft_families import peft_method, read_peft
from hubrank.checkpoints.reader import METHODS, READER_VERSION, methods_of, read_adapters
from hubrank.errors import AdapterError, UsageError
from hubrank.hubs.protocol import Listing, Query
from hubrank.zoo.plan import plan_sync
from hubrank.zoo.store import Zoo
from tests.builders import MemoryBundle, write_lora
from tests.checkpoints.peft_models import tune
from tests.checkpoints.test_peft_families import FAMILIES
from tests.standin import Repo, StandInHub, stand_in_hub
from tests.standin_population import family_files
from tests.zoo.hub_repos import contents, fresh, lora, quick_hub, repo, sync

LORA, PROMPT = Query(methods=("lora",)), Query(methods=("prompt",))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as running:
        yield running


@pytest.fixture
def zoo(tmp_path):
    with Zoo(tmp_path / "cache", create=True) as zoo:
        yield zoo


def prompt(name: str, **fields) -> Repo:
    return Repo(name, dict(family_files()["peft PROMPT_TUNING"]), tags=["peft", "base_model:adapter:org/tiny"], **fields)


def files_asked(hub: StandInHub) -> list[str]:
    return [path.partition("/resolve/")[2].partition("/")[2] for _, path in hub.requests if "/resolve/" in path]


def counts(report) -> tuple[int, int, int, int, dict]:
    return report.added, report.updated, report.removed, report.unchanged, dict(report.skipped)


def test_a_config_says_the_methods_that_reading_finds():
    for name, files in family_files().items():
        listing = Listing("org/one", "r1", None, {file: len(data) for file, data in files.items()})
        told = methods_of(listing, MemoryBundle(files))
        try:
            assert told == {adapter.method for adapter in read_adapters(listing, MemoryBundle(files))}, name
        except AdapterError as error:
            assert (error.reason, name.split()[0]) == ("needs base", "peft")  # noqa: PT017 -- see the next test
    assert len(family_files()) > 25


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_peft_type_says_the_method_that_reading_finds(family, tmp_path):
    import peft

    name, kind, config = FAMILIES[family]
    tuned = tune(kind, getattr(peft, name)(**config), tmp_path, merge=False)
    adapter = read_peft(tuned.config, tuned.tensors, "org/base", base_tensors=tuned.base)
    assert peft_method(tuned.config["peft_type"]) == adapter.method
    assert adapter.method in METHODS


def test_what_is_no_peft_type_has_no_method():
    assert [peft_method(kind) for kind in (None, "XLORA", ["LORA"], "lora")] == [None] * 4


def test_another_method_costs_its_config_once_and_is_counted(hub, zoo, tmp_path):
    hub.add(repo("org/lora", 1))
    hub.add(prompt("org/prompt"))
    assert counts(sync(zoo, hub, LORA)) == (1, 0, 0, 0, {"other method": 1})
    assert files_asked(hub).count("adapter_config.json") == 2
    assert files_asked(hub).count("adapter_model.safetensors") == 1  # of the LoRA
    hub.clear()
    assert counts(sync(zoo, hub, LORA)) == (0, 0, 0, 1, {"other method": 1})
    assert files_asked(hub) == []
    assert counts(sync(zoo, hub)) == (1, 0, 0, 1, {})  # read as soon as it is wanted
    assert contents(zoo) == fresh(tmp_path, hub)


def test_what_the_list_tells_costs_nothing(hub, zoo, tmp_path):
    hub.add(repo("org/lora", 1, config={"peft": {"peft_type": "LORA"}}))
    hub.add(prompt("org/prompt", config={"peft": {"peft_type": "PROMPT_TUNING"}}))
    hub.add(prompt("org/odd", config={"peft": {"peft_type": ["LORA"]}}))
    plan = plan_sync(zoo, [quick_hub(hub)], LORA)
    assert (plan.new, plan.skipped) == (("org/lora", "org/odd"), ("org/prompt",))
    hub.clear()
    assert counts(sync(zoo, hub, LORA)) == (1, 0, 0, 0, {"other method": 2})
    assert not any("org/prompt" in path for _, path in hub.requests)
    assert counts(sync(zoo, hub)) == (2, 0, 0, 1, {})
    assert contents(zoo) == fresh(tmp_path, hub)


def test_what_the_list_tells_is_of_the_adapter_beside_the_card_alone(hub, zoo):
    inner = {f"inner/{name}": data for name, data in lora(1).items()}
    hub.add(prompt("org/both", config={"peft": {"peft_type": "PROMPT_TUNING"}})).files.update(inner)
    assert counts(sync(zoo, hub, LORA)) == (1, 0, 0, 0, {"other method": 1})
    assert [source.name for source in zoo.sources()] == ["org/both/inner"]


def test_nothing_is_gone_for_being_of_another_method(hub, zoo):
    hub.add(repo("org/lora", 1))
    hub.add(prompt("org/prompt"))
    sync(zoo, hub)
    del hub.repos["org/lora"]
    assert counts(sync(zoo, hub, PROMPT)) == (0, 0, 0, 1, {})
    assert counts(sync(zoo, hub, LORA)) == (0, 0, 0, 1, {})  # stored already, and as it was
    assert len(zoo.sources()) == 2
    assert sync(zoo, hub).removed == 1


def test_a_prompt_of_an_older_reader_is_read_again_where_it_has_not_moved(hub, zoo):
    """Its figures mean something else now; a LoRA's do not."""
    hub.add(repo("org/lora", 1))
    hub.add(prompt("org/prompt"))
    sync(zoo, hub)
    for source in zoo.sources():
        zoo.revise(replace(source, reader=2))
    assert plan_sync(zoo, [quick_hub(hub)], Query()).changed == ("org/prompt",)
    sync(zoo, hub)
    assert {source.name: source.reader for source in zoo.sources()} == {"org/lora": 2, "org/prompt": READER_VERSION}


def test_a_base_and_a_method_together(hub, zoo):
    hub.add(repo("org/lora", 1))
    hub.add(repo("org/other", 2, base="org/tiny"))
    hub.add(prompt("org/prompt"))
    wanted = Query(bases=("org/tiny",), methods=("prompt",))
    assert counts(sync(zoo, hub, wanted)) == (1, 0, 0, 0, {"other method": 1})
    assert [source.name for source in zoo.sources()] == ["org/prompt"]


def test_a_branch_of_the_wanted_method_is_found_and_none_is_lost(hub, zoo, tmp_path):
    """The versions of a repository may be of several methods; what was left out is still asked for later."""
    versions = prompt("org/versions", branches={"v1": lora(1), "v2": dict(family_files()["peft IA3"])})
    versions.tags = ["adapter-transformers"]
    hub.add(versions)
    assert counts(sync(zoo, hub, LORA)) == (1, 0, 0, 0, {"other method": 2})
    hub.clear()
    assert sync(zoo, hub, LORA).requests == 2  # the lists: its branches were dealt with
    assert counts(sync(zoo, hub, PROMPT))[0] == 1
    assert counts(sync(zoo, hub))[0] == 1
    assert contents(zoo) == fresh(tmp_path, hub)
    assert sync(zoo, hub).requests == 2


def test_of_several_methods_in_one_file_all_are_kept_where_one_is_wanted(hub, zoo):
    union = family_files()["adapters mam"]
    hub.add(Repo("AdapterHub/mam", dict(union), tags=["adapter-transformers"]))
    assert counts(sync(zoo, hub, LORA)) == (0, 0, 0, 0, {"other method": 1})
    assert counts(sync(zoo, hub, Query(methods=("prefix",)))) == (1, 0, 0, 0, {})
    assert {source.method for source in zoo.sources()} == {"prefix", "bottleneck"}


def test_a_broken_config_is_no_other_method(hub, zoo):
    hub.add(repo("org/bad", 1)).files["adapter_config.json"] = b"{'peft_type': "
    hub.add(repo("org/unknown", 1)).files["adapter_config.json"] = lora(1, peft_type="XLORA")["adapter_config.json"]
    assert counts(sync(zoo, hub, PROMPT))[4] == counts(sync(zoo, hub))[4] == {"bad config": 1, "unsupported method": 1}


def test_the_library_takes_methods_and_refuses_what_is_none(tmp_path):
    write_lora(tmp_path / "hub" / "org" / "a")
    report = sync_zoo([tmp_path / "hub"], cache_dir=tmp_path / "cache", methods=["prefix", "ia3"])
    assert counts(report) == (0, 0, 0, 0, {"other method": 1})
    assert counts(sync_zoo([tmp_path / "hub"], cache_dir=tmp_path / "cache", methods=["lora"]))[0] == 1
    with pytest.raises(UsageError, match=r"--method lore: adapters are of lora, bottleneck, prefix, prompt, ia3, bias, "):
        sync_zoo([tmp_path / "hub"], cache_dir=tmp_path / "cache", methods=["lore"])
