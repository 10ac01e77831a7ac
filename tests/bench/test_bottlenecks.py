"""Which estimator ranks bottleneck adapters best: candidates by hand, the nested choice, and the script on made adapters."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from hubrank.benchmark.transfer import MeasuredTarget
from hubrank.ranking.estimators.four_views import known_z_scores
from hubrank.ranking.estimators.three_views import three_views, z_scores
from hubrank.ranking.first_order import Evidence
from hubrank.ranking.standardise import standardise
from tests.ranking.builders import one_thread

WIDTH, UNITS, LAYERS = 12, 3, 2
FIT = {"clinc_domain": "clinc150", "trec6": "subj", "sst5": "sst2"}
"""Which source's adapter each made target's looks like, and transfers from best."""


@pytest.fixture(scope="module")
def scripts(bench):
    return SimpleNamespace(
        plan=bench.plan, **{name: importlib.import_module(name) for name in ("bottlenecks", "targets", "rival_arrays")}
    )


# Candidates


@pytest.fixture
def tables(scripts):
    """(similarities [5] of a target, [5, 5] of the sources with each other, NaN on the diagonal), each by view."""
    random = np.random.default_rng(0)
    zoo = {view: np.where(np.eye(5) > 0, np.nan, random.random((5, 5))) for view in scripts.bottlenecks.VIEWS}
    return {view: random.random(5) for view in zoo}, zoo


def test_a_plain_candidate_is_its_similarity_and_the_shipped_sum_is_the_estimator(scripts, tables):
    similarities, zoo = tables
    candidate = scripts.bottlenecks.Candidate
    np.testing.assert_allclose(candidate(("R_1",)).values(similarities, zoo), z_scores(similarities["R_1"]))
    expected = three_views(compute=similarities["C_1"], read=similarities["R_0"], write=similarities["W_0.5"])
    np.testing.assert_allclose(candidate(("C_1", "R_0", "W_0.5")).values(similarities, zoo), expected)


def test_what_is_usual_for_a_source_is_taken_off_or_it_is_standardised(scripts, tables):
    similarities, zoo = tables
    candidate = scripts.bottlenecks.Candidate
    usual = np.nanmedian(zoo["C_1"], axis=0)
    for part in (0.5, 1.0):
        found = candidate(("C_1",), part).values(similarities, zoo)
        np.testing.assert_allclose(found, z_scores(similarities["C_1"] - part * usual), atol=1e-5)
    found = candidate(("C_1", "W_1"), None).values(similarities, zoo)
    expected = sum(z_scores(standardise(similarities[view], zoo[view])) for view in ("C_1", "W_1"))
    np.testing.assert_allclose(found, expected)


def test_another_number_is_summed_only_where_a_candidate_has_it(scripts, tables):
    similarities, zoo = tables
    candidate, said = scripts.bottlenecks.Candidate, Evidence(np.array([0.0, np.nan, 0.0, 0.0, 9.0]), 64, 2)
    plain = candidate(("C_1",)).values(similarities, zoo, said)
    np.testing.assert_allclose(plain, z_scores(similarities["C_1"]))
    found = candidate(("C_1",), rows=True).values(similarities, zoo, said)
    np.testing.assert_allclose(found, plain + 0.5 * known_z_scores(said.values))
    with pytest.raises(ValueError, match="C_1 \\+ rows: needs what the rows say"):
        candidate(("C_1",), rows=True).values(similarities, zoo)


def test_candidates_have_names_of_their_own(scripts):
    few, many = (scripts.bottlenecks.candidates(rows=rows) for rows in (False, True))
    assert set(few) < set(many)
    assert len({str(one) for one in many}) == len(many) == 2 * len(few)
    candidate = scripts.bottlenecks.Candidate
    assert str(candidate(("C_1", "R_1"), 0.5)) == "C_1 + R_1, less 0.5 of what is usual"
    assert str(candidate(("W_1",), None, rows=True)) == "W_1 + rows, standardised per source"


# The choice


def measured(name, *truth):
    return MeasuredTarget(name, "accuracy", np.array([truth]), np.full(3, 0.1), np.zeros(3, dtype=bool))


def made_similar(scripts, targets):
    """C_1 finds the best source of every target but the last, where R_1 does."""
    views = dict.fromkeys(scripts.bottlenecks.VIEWS, np.zeros(3))
    of_targets = {}
    for i, target in enumerate(targets):
        right, wrong = ("R_1", "C_1") if i == len(targets) - 1 else ("C_1", "R_1")
        of_targets[target.name] = [{**views, right: target.truth, wrong: -target.truth}]
    return scripts.bottlenecks.Similar(of_targets, dict.fromkeys(views, np.full((3, 3), np.nan)), {})


def test_no_target_chooses_for_itself(scripts):
    targets = [measured("a", 0.9, 0.5, 0.3), measured("b", 0.2, 0.8, 0.4), measured("c", 0.1, 0.2, 0.6)]
    tried = [scripts.bottlenecks.Candidate((view,)) for view in ("R_1", "C_1")]
    choice = scripts.bottlenecks.choose(made_similar(scripts, targets), targets, tried)
    assert choice.regrets.shape == (2, 3, 4)
    # The regrets that c and b give a, 0 and 75 or 83.3 and 0; a and c to b, 66.7 and 0 or 0 and 83.3; to c C_1 is right twice.
    np.testing.assert_allclose(choice.regrets[:, :, 0], [[100 * 6 / 9, 75, 0], [0, 0, 100 * 5 / 6]])
    assert {name: str(one) for name, one in choice.chosen.items()} == {"a": "R_1", "b": "R_1", "c": "C_1"}
    assert str(choice.best) == "C_1"


def test_a_single_target_has_nobody_to_choose_for_it(scripts):
    targets = [measured("a", 0.9, 0.5, 0.3)]
    choice = scripts.bottlenecks.choose(made_similar(scripts, targets), targets, scripts.bottlenecks.candidates(rows=False))
    assert choice.chosen == {}


# The script


def config(name, base):
    fields = {
        "mh_adapter": False,
        "output_adapter": True,
        "reduction_factor": WIDTH / UNITS,
        "non_linearity": "relu",
        "original_ln_before": True,
        "original_ln_after": True,
        "residual_before_ln": True,
        "is_parallel": False,
        "scaling": 1.0,
    }
    return {"config": fields, "hidden_size": WIDTH, "model_type": "bert", "model_name": base, "name": name}


def tensors(name, random):
    found = {}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}.output.adapters.{name}"
        found |= {
            f"{at}.adapter_down.0.weight": random.normal(size=(UNITS, WIDTH)),
            f"{at}.adapter_down.0.bias": random.normal(size=UNITS),
            f"{at}.adapter_up.weight": random.normal(size=(WIDTH, UNITS)),
            f"{at}.adapter_up.bias": random.normal(size=WIDTH),
        }
    return {key: value.astype(np.float32) for key, value in found.items()}


@pytest.fixture(scope="module")
def folders(scripts, tmp_path_factory):
    """Made sources, tuned targets that are noisy copies of one of them, and rows: two seeds, one of the last target."""
    folder, base, random = tmp_path_factory.mktemp("bottlenecks"), scripts.rival_arrays.BASE, np.random.default_rng(3)
    of_task = {}
    for source in scripts.plan.BOTTLENECK:
        here = folder / "trained" / source.name
        here.mkdir(parents=True)
        (here / "adapter_config.json").write_text(json.dumps(config(source.task, base)))
        of_task[source.task] = tensors(source.task, random)
        save_file(of_task[source.task], here / "adapter.safetensors")
    (folder / "targets").mkdir()
    rows = []
    for target, best in FIT.items():
        for seed in (0, 1):
            mine = {
                key.replace(f".{best}.", ".target."): value + random.normal(0, 0.3, value.shape).astype(np.float32)
                for key, value in of_task[best].items()
            }
            stated = {"steps": 75, "seconds": 1.5, "adapter_config": config("target", base)}
            save_file(mine, folder / "targets" / f"{target}-75-{seed}.safetensors", {"config": json.dumps(stated)})
            shared = {"method": "bottleneck", "set": "bottleneck", "target": target, "rows": 200, "seed": seed}
            rows.append(shared | {"source": None, "value": 0.3})
            if target == "sst5" and seed:
                continue
            for source in scripts.plan.BOTTLENECK:
                kin, value = scripts.plan.kinship(source.task, target), 0.8 if source.task == best else 0.4
                rows.append(shared | {"source": source.name, "kin": kin, "value": value})
    # A target that is still being measured, and of which no adapter is tuned.
    rows.append(rows[1] | {"target": "qqp"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(scripts, folders, monkeypatch, *more):
    out = folders / "result.json"
    given = ["--targets", "targets", "--trained", "trained", "--transfer", "rows.jsonl", "--work", "work"]
    paths = [word if word.startswith("--") else str(folders / word) for word in given]
    monkeypatch.setattr(sys, "argv", ["bottlenecks.py", *paths, "--out", str(out), *more])
    scripts.bottlenecks.main()
    return json.loads(out.read_text())


def test_the_script_tells_references_rivals_and_the_choice_in_percent(scripts, folders, monkeypatch, capsys):
    found = run(scripts, folders, monkeypatch)
    lines = found["all sources"]
    references = ["chance", "no transfer", "source prior, leave one target out", "noise ceiling"]
    assert list(lines)[:4] == references
    assert {"three-views", "flattened weights", "complex reasoning", "nested choice"} <= set(lines)
    assert not {"read-write", "four-views", "first-order LogME"} & set(lines)  # which ask rows that are not there
    assert {name: one["transfer_seeds"] for name, one in found["targets"].items()} == {"clinc_domain": 2, "sst5": 1, "trec6": 2}
    assert "qqp" in found["targets_left_out"]
    assert lines["chance"]["regret@1"] == pytest.approx([50 * 11 / 12] * 3, abs=0.01)
    for name in ("three-views", "flattened weights", "nested choice"):
        assert lines[name]["regret@1"] == [0, 0, 0]
    assert lines["chance"]["minus the shipped one"] is None
    assert sum(found["nested_choices"].values()) == len(FIT)
    assert len(found["by_candidate"]) == found["candidates"] == 40
    # Without kin the others transfer alike to two targets, and subj is no kin of trec6.
    assert found["without kin"]["three-views"]["regret@1"][0] == 0
    assert "left out: ag_news, qqp" in capsys.readouterr().out


def test_with_the_rows_of_tasks_rivals_look_at_those(scripts, folders, monkeypatch):
    shop = scripts.rival_arrays.Workshop

    def states(self, task):
        random = np.random.default_rng(len(task))
        return {"states": random.normal(size=(4, 8)), "seconds": np.array(0.5)}

    monkeypatch.setattr(shop, "of_task", states)
    monkeypatch.setattr(shop, "of_target", states)
    monkeypatch.setattr(shop, "evidence", lambda self, packed, target: (Evidence(np.arange(12.0), 200, 2), 0.25))
    monkeypatch.setattr(shop, "rows_trained_on", lambda self, source: len(source.task))
    with one_thread():
        found = run(scripts, folders, monkeypatch, "--data", str(folders))
    assert {"TextEmb", "data size"} <= set(found["all sources"])
    assert found["command"].endswith("--data DIR")
    lines = found["all sources"]
    assert {"read-write", "four-views", "first-order LogME"} <= set(lines)
    assert lines["read-write"]["minus the shipped one"] is None
    assert lines["chance"]["minus the shipped one"]["regret@1"] is not None
    assert found["candidates"] == 80
    assert {"C_1", "C_1 + rows"} <= set(found["by_candidate"])


# The targets


def test_a_target_is_tuned_by_a_bottleneck_and_read_back_by_the_librarys_reader(scripts, tmp_path, monkeypatch):
    rows = [{"text": f"a {word} film number {i}", "label": i % 2} for i, word in enumerate(["good", "bad"] * 8)]
    monkeypatch.setattr(scripts.targets, "draws", lambda *_: {"sst2": SimpleNamespace(rows=rows)})
    given = ["--data", str(tmp_path), "--out", str(tmp_path), "--method", "bottleneck", "--seeds", "1", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["targets.py", *given])
    with one_thread():
        scripts.targets.main()
    places = {"zoo": tmp_path, "trained": tmp_path, "targets": tmp_path}
    shop = scripts.rival_arrays.Workshop(tmp_path, tmp_path / "work", **places)
    own = shop.tuned("sst2", 2, 0)
    assert own.seconds > 0
    assert own.name == "target"
    assert shop.tuned("sst2", 2, 1) is None
    assert {value.shape for key, value in own.tensors.items() if key.endswith("adapter_down.0.weight")} == {(24, 384)}
    updates = [factors for factors in own.signature.factors if not factors.site.module.endswith(".shift")]
    assert [factors.site.layer for factors in updates] == list(range(6))
    with safe_open(tmp_path / "sst2-2-0.safetensors", "np") as file:
        stated = json.loads(file.metadata()["config"])
    assert stated["adapter_config"]["model_name"] == scripts.rival_arrays.BASE


def test_a_random_start_is_of_loras_only(scripts, tmp_path, monkeypatch, capsys):
    given = ["--data", str(tmp_path), "--out", str(tmp_path), "--method", "bottleneck", "--random-start"]
    monkeypatch.setattr(sys, "argv", ["targets.py", *given])
    with pytest.raises(SystemExit):
        scripts.targets.main()
    assert "--random-start: only LoRAs start otherwise than at random" in capsys.readouterr().err
