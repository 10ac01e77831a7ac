"""The side-by-side benchmark, without the packages: what is measured, how rankings are judged, what a rerun skips."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

BENCH = str(Path(__file__).parents[2] / "bench")


@pytest.fixture(scope="module")
def scripts():
    """The two scripts as modules, imported as from their own folder."""
    before = set(sys.modules)
    sys.path.insert(0, BENCH)
    yield Namespace(peers=importlib.import_module("peers"), side=importlib.import_module("peers_side"))
    sys.path.remove(BENCH)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(BENCH):
            del sys.modules[name]


@pytest.fixture(scope="module")
def peers(scripts):
    return scripts.peers


def row(source, target, value, *, seed=0, kin="", rows=200, group="first", method="lora"):
    return {
        "method": method, "set": group, "source": source, "target": target, "rows": rows, "seed": seed, "value": value,
        "kin": kin, "metric": "accuracy", "sites": "qv", "rank": 8, "alpha": 16.0,
    }  # fmt: skip


def truth(peers, values, kin=(), target="t"):
    return peers.Truth(target, 1, values, frozenset(kin))


def test_only_complete_seeds_of_the_first_set_count(peers):
    rows = [row(name, "t", value, seed=seed) for seed in (0, 1) for name, value in (("a", 0.5 + seed / 10), ("b", 0.7))]
    rows += [row("a", "t", 0.9, seed=2)]  # b is not measured under seed 2 yet
    rows += [row("c", "t", 0.9, group="second"), row("a", "t", 0.9, rows=1000), row(None, "t", 0.1)]
    (found,) = peers.truths(rows)
    assert (found.target, found.seeds) == ("t", 2)
    assert found.values == {"a": pytest.approx(0.55), "b": pytest.approx(0.7)}


def test_kin_is_known_from_the_rows(peers):
    (found,) = peers.truths([row("a", "t", 0.5), row("b", "t", 0.7, kin="same task")])
    assert found.kin == {"b"}


def test_a_ranking_is_judged_by_what_its_first_places_lose(peers):
    found = [truth(peers, {"a": 0.5, "b": 0.8, "c": 0.4})]
    right = peers.judged({"t": [{"a": 2.0, "b": 3.0, "c": 1.0}]}, found, kin=True)
    assert (right["targets"], right["regret@1"]["mean"], right["ndcg"]["mean"]) == (1, 0.0, 1.0)
    wrong = peers.judged({"t": [{"a": 2.0, "b": 0.0, "c": 3.0}]}, found, kin=True)
    assert wrong["regret@1"]["mean"] == pytest.approx(50.0)
    assert wrong["regret@3"]["mean"] == 0.0
    both = peers.judged({"t": [{"a": 2.0, "b": 3.0, "c": 1.0}, {"a": 2.0, "b": 0.0, "c": 3.0}]}, found, kin=True)
    assert both["regret@1"]["mean"] == pytest.approx(25.0)


def test_a_source_without_a_score_comes_last(peers):
    found = [truth(peers, {"a": 0.5, "b": 0.8})]
    assert peers.judged({"t": [{"a": -9.0}]}, found, kin=True)["regret@1"]["mean"] == pytest.approx(37.5)


def test_kin_can_be_left_out(peers):
    found = [truth(peers, {"a": 0.5, "b": 0.8, "c": 0.4}, kin=["b"])]
    scores = {"t": [{"a": 2.0, "b": 1.0, "c": 0.0}]}
    assert peers.judged(scores, found, kin=True)["regret@1"]["mean"] == pytest.approx(37.5)
    assert peers.judged(scores, found, kin=False)["regret@1"]["mean"] == 0.0


def test_chance_is_the_mean_over_all_orders(peers):
    found = [truth(peers, {"a": 0.2, "b": 0.4, "c": 0.6})]
    assert peers.judged(peers.of_chance(found), found, kin=True)["regret@1"]["mean"] == pytest.approx(100 / 3, abs=1e-3)


def test_all_are_judged_on_the_targets_that_all_have(peers):
    found = [truth(peers, {"a": 0.5, "b": 0.8}, target=name) for name in ("t", "u")]
    scores = [{"a": 1.0, "b": 2.0}]
    whole = peers.result(
        found, {"one": {"t": scores, "u": scores}, "other": {"u": scores}}, {"one": {"bytes": 7}}, {"rows": 200}
    )
    assert list(whole["targets"]) == ["u"]
    assert whole["rankings"]["one"]["all sources"]["targets"] == 1
    assert whole["rankings"]["one"]["bytes"] == 7
    assert set(whole["rankings"]) == {"one", "other", "chance"}
    assert whole["per target"]["u"]["one"]["regret@1"] == 0.0
    assert json.dumps(whole, allow_nan=False)


def test_seconds_of_one_model_after_another(peers):
    assert peers.scaled_seconds(48.0, 24, 1000) == pytest.approx(2000.0)


def test_rows_have_one_kind_of_label_and_no_empty_pair(peers):
    assert peers.plain_row({"text": "a", "label": 3}) == {"text": "a", "label": "3"}
    assert peers.plain_row({"text": "a", "text_pair": None, "label": "x"}) == {"text": "a", "label": "x"}
    assert peers.plain_row({"text": "a", "text_pair": "b", "label": 0.5}) == {"text": "a", "text_pair": "b", "label": 0.5}


def test_the_sources_are_in_the_example_zoo(peers):
    folder = peers.HERE.parent / "examples/zoo"
    assert len(peers.plan.FIRST) == 24
    for source in peers.plan.FIRST:
        assert (folder / source.zoo / "adapter_model.safetensors").exists()


def test_the_packages_are_pinned_and_installed_apart(peers):
    lines = (peers.HERE / "peers-requirements.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert set(peers.PACKAGES) <= set(pinned)
    project = (peers.HERE.parent / "pyproject.toml").read_text("utf-8")
    assert not any(package in project for package in peers.PACKAGES)


def test_what_was_ranked_is_not_ranked_again(scripts, tmp_path):
    calls = []

    def ranked(target, chosen):
        calls.append(target["name"])
        return dict.fromkeys(chosen, 1.0), {"cpu_seconds": 2.0, "wall_seconds": 3.0}

    for _ in range(2):
        scripts.side.once(tmp_path / "scores" / "t.json", {"name": "t"}, ranked, ["a", "b"])
    assert calls == ["t"]
    assert scripts.peers.read_scores(tmp_path / "scores")["t"]["scores"] == {"a": 1.0, "b": 1.0}
    assert scripts.peers.read_scores(tmp_path / "scores")["t"]["sources"] == 2


def test_costs_are_means_over_the_timed_targets(scripts, tmp_path):
    write = scripts.side.write
    for target, seconds in (("t", 10.0), ("u", 20.0), ("v", 900.0)):
        write(
            tmp_path / "scores/transformer-ranker" / f"{target}.json",
            {"target": target, "sources": 24, "scores": {}, "cpu_seconds": seconds},
        )
    for target in ("t", "u"):
        for count in (30, 1000):
            write(tmp_path / "times" / f"hf-dataset-selector-{target}-{count}.json", {"cpu_seconds": count / 10})
    write(tmp_path / "size-hf-dataset-selector.json", {"bytes": 591_000.4})
    write(tmp_path / "size-transformer-ranker.json", {"bytes": 90_000_000})
    costs = scripts.peers.package_costs({"timed": ["t", "u"], "counts": [30, 1000], "sources": [{}] * 24}, tmp_path)
    assert costs["hf-dataset-selector"]["seconds"] == {"targets": ["t", "u"], "30": 3.0, "1000": 100.0}
    assert costs["hf-dataset-selector"]["bytes"] == 591_000
    assert costs["transformer-ranker"]["seconds"]["1000"] == pytest.approx(15.0 * 1000 / 24)
    assert costs["transformer-ranker"]["seconds"]["scaled from"] == 24
