"""The library's sync, from files that the real libraries saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from hubrank import Zoo, sync
from hubrank.api import ensure_base, plan
from hubrank.checkpoints.base_names import canonical_name
from hubrank.errors import BaseModelError, UsageError
from hubrank.target.base import BaseModel
from hubrank.zoo.defaults import DEFAULT_BASES
from tests.standin import stand_in_hub
from tests.zoo.hub_repos import quick_hub, repo

BASE = "org/tiny"


@pytest.fixture
def ln_adapter(tmp_path):
    """An adapter that holds nothing but new layer norms, and the base model that says what they were."""
    name = "encoder.layer.{}.output.LayerNorm.{}"
    old = {name.format(layer, kind): np.full(8, 1.0 + layer, np.float32) for layer in range(2) for kind in ("weight", "bias")}
    new = {key: value + np.arange(8, dtype=np.float32) for key, value in old.items()}
    folder = tmp_path / "zoo" / "org" / "norms"
    folder.mkdir(parents=True)
    saved_as = {key: "base_model.model.{}.ln_tuning_layers.{}".format(*key.rsplit(".", 1)) for key in new}
    save_file({saved_as[key]: value for key, value in new.items()}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LN_TUNING", "base_model_name_or_path": BASE}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    base = tmp_path / "base"
    base.mkdir()
    save_file(old, base / "model.safetensors")
    (base / "config.json").write_text("{}")
    return base


def write_adapter(folder, config, tensors) -> None:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": BASE, **config}))


@pytest.fixture
def needy(tmp_path):
    """An adapter of every method that says nothing without its base model, and that base model."""
    rng = np.random.default_rng(0)
    dense = "encoder.layer.{}.output.dense"
    base = {dense.format(layer) + ".weight": rng.standard_normal((8, 12)).astype(np.float32) for layer in range(2)}
    base |= {dense.format(layer) + ".bias": rng.standard_normal(8).astype(np.float32) for layer in range(2)}
    modules = ["base_model.model." + dense.format(layer) for layer in range(2)]
    zoo = tmp_path / "zoo" / "org"
    spectra = {f"{module}.fourierft_spectrum": rng.standard_normal(5).astype(np.float32) for module in modules}
    write_adapter(zoo / "fourierft", {"peft_type": "FOURIERFT", "n_frequency": 5}, spectra)
    vera = {f"{module}.vera_lambda_{part}": np.ones(n, np.float32) for module in modules for part, n in (("b", 8), ("d", 2))}
    write_adapter(zoo / "vera", {"peft_type": "VERA", "r": 2, "save_projection": False}, vera)
    for method, leaf in (("bitfit", "bias"), ("diff", "weight")):
        folder = zoo / method
        folder.mkdir(parents=True)
        save_file({name: value + 1 for name, value in base.items() if name.endswith(leaf)}, folder / "tuned.safetensors")
        note = {"base_model": BASE, "method": method, "weights": "tuned.safetensors"}
        (folder / "hubrank.json").write_text(json.dumps(note))
    (tmp_path / "base").mkdir()
    save_file(base, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text("{}")
    return BaseModel(BASE, tmp_path / "base", "folder")


def test_every_method_that_needs_the_base_model_waits_for_it_and_says_so(needy, tmp_path, monkeypatch):
    def missing(name, **options):
        raise BaseModelError(f"{name}: not here")

    monkeypatch.setattr("hubrank.api.find_base", missing)
    report = sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache")
    assert (report.added, dict(report.skipped)) == (0, {"needs base": 4})
    assert sorted(name for name, _ in report.skips) == ["org/bitfit", "org/diff", "org/fourierft", "org/vera"]
    assert all(why.startswith("needs base: ") and len(why) > 40 for _, why in report.skips)
    monkeypatch.setattr("hubrank.api.find_base", lambda name, *, offline: needy)
    assert sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache").added == 4
    with Zoo(tmp_path / "cache") as zoo:
        signatures = {source.variant: zoo.signature(source) for source in zoo.sources()}
    assert {variant: len(signature.factors) for variant, signature in signatures.items()} == dict.fromkeys(
        ("fourierft", "vera", "bitfit", "diff"), 2
    )
    for variant in ("fourierft", "vera", "diff"):
        assert {(len(f.u), len(f.v)) for f in signatures[variant].factors} == {(8, 12)}


def test_what_needs_the_base_model_is_read_once_it_is_on_disk(ln_adapter, tmp_path, monkeypatch):
    def missing(name, **options):
        raise BaseModelError(f"{name}: not here")

    monkeypatch.setattr("hubrank.api.find_base", missing)
    report = sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache")
    assert (report.added, dict(report.skipped)) == (0, {"needs base": 1})

    def found(name, *, offline):
        assert (name, offline) == (BASE, True)
        return BaseModel(name, ln_adapter, "folder")

    monkeypatch.setattr("hubrank.api.find_base", found)
    # Not remembered as unreadable: the base model may come.
    assert sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache").added == 1
    with Zoo(tmp_path / "cache") as zoo:
        (source,) = zoo.sources()
        signature = zoo.signature(source)
    assert (source.method, source.variant) == ("bias", "ln")
    assert len(signature.factors) == 4
    for factors in signature.factors:
        assert factors.site.module.endswith(".shift")
        shift = (factors.u * factors.s) @ factors.v.T
        np.testing.assert_allclose(shift[:, 0], np.arange(8), atol=0.05)


def test_a_union_is_stored_as_its_parts_and_goes_whole(tmp_path):
    from tests.checkpoints.adapters_models import model_with, saved

    folder = tmp_path / "zoo" / "org" / "mam"
    folder.mkdir(parents=True)
    saved(model_with("bert", "mam"), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "model_name": BASE}))
    assert sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache").added == 1
    with Zoo(tmp_path / "cache") as zoo:
        parts = zoo.sources()
        assert [(part.name, part.method, part.variant) for part in parts] == [
            ("org/mam", "prefix", "mam"),
            ("org/mam#bottleneck", "bottleneck", "mam"),
        ]
        assert all(zoo.signature(part).factors for part in parts)
        assert zoo.verify() == []
    assert sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache").unchanged == 1
    # The next revision holds one method only: the other part is no more.
    for file in folder.iterdir():
        file.unlink()
    saved(model_with("bert", "pfeiffer"), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "model_name": BASE}))
    assert sync([tmp_path / "zoo"], cache_dir=tmp_path / "cache").updated == 1
    with Zoo(tmp_path / "cache") as zoo:
        assert [(part.name, part.method) for part in zoo.sources()] == [("org/mam", "bottleneck")]
        assert zoo.verify() == []


# What is synced where nothing is said


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in_hub() as running:
        running.add(repo("org/one", 1))
        running.add(repo("org/two", 2, base="org/second"))
        running.add(repo("org/roberta", 3, base="roberta-base"))
        yield running


def names(folder) -> list[str]:
    with Zoo(folder) as zoo:
        return [source.name for source in zoo.sources()]


def test_an_empty_zoo_takes_the_stated_bases_and_a_full_one_its_own(hub, tmp_path):
    hubs = [quick_hub(hub)]
    assert sync(hubs, cache_dir=tmp_path).added == 1
    assert names(tmp_path) == ["org/roberta"]
    assert sync(hubs, cache_dir=tmp_path, bases=["org/second"]).added == 1
    hub.add(repo("org/three", 4, base="org/second"))
    assert sync(hubs, cache_dir=tmp_path).added == 1
    assert names(tmp_path) == ["org/roberta", "org/three", "org/two"]
    assert sync(hubs, cache_dir=tmp_path, bases=["all"]).added == 1
    assert len(names(tmp_path)) == 4


def test_the_stated_bases_are_ids_that_they_go_by():
    assert [canonical_name(base) for base in DEFAULT_BASES] == list(DEFAULT_BASES)
    assert len(set(DEFAULT_BASES)) == len(DEFAULT_BASES) <= 15


def test_a_base_that_the_zoo_lacks_is_announced_and_read(hub, tmp_path):
    told = []
    report = ensure_base("org/second", hubs=[quick_hub(hub)], cache_dir=tmp_path, announce=told.append)
    assert report.added == 1
    assert [plan.new for plan in told] == [("org/two",)]
    hub.clear()
    assert ensure_base("org/second", hubs=[quick_hub(hub)], cache_dir=tmp_path, announce=told.append) is None
    assert not hub.seen
    assert len(told) == 1


def test_whoever_hears_the_announcement_may_refuse(hub, tmp_path):
    def refuse(plan):
        raise UsageError("not now")

    with pytest.raises(UsageError, match="not now"):
        ensure_base("org/second", hubs=[quick_hub(hub)], cache_dir=tmp_path, announce=refuse)
    assert names(tmp_path) == []


def test_a_plan_makes_no_zoo(hub, tmp_path):
    assert plan([quick_hub(hub)], cache_dir=tmp_path / "zoo", bases=("all",)).new == ("org/one", "org/two", "org/roberta")
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("setting", ["limit", "jobs", "min_downloads"])
def test_a_number_out_of_range_is_refused(setting, tmp_path):
    with pytest.raises(UsageError, match="give a number from"):
        sync([tmp_path], cache_dir=tmp_path / "cache", **{setting: -1})
