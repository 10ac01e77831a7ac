"""docs/method.md and its figures say what bench/results and the measured rows say."""

from __future__ import annotations

import importlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
FOLDERS = [str(REPOSITORY / "bench" / "transfer"), str(REPOSITORY / "bench"), str(DOCS)]


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules; they import each other by name, as scripts in one folder do."""
    before, paths = set(sys.modules), list(sys.path)
    sys.path[:0] = FOLDERS
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("plots", "method_tables", "render_method")})
    sys.path[:] = paths
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and sys.modules[name].__file__.startswith(tuple(FOLDERS)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def evidence(scripts):
    return scripts.method_tables.Evidence.read()


def test_the_page_is_what_its_template_and_the_results_give(scripts, evidence):
    page = scripts.render_method.rendered(scripts.render_method.TEMPLATE.read_text("utf-8"), evidence)
    assert scripts.render_method.PAGE.read_text("utf-8") == page, "run `make docs`"
    assert "{{" not in page
    assert "nan" not in page.split()


def test_the_figures_are_what_the_results_give(scripts):
    for name, drawn in scripts.plots.plots().items():
        assert (DOCS / name).read_text("utf-8") == drawn, "run `make docs`"
        ET.fromstring(drawn)  # well-formed, or no browser shows it
        assert f"({name})" in scripts.render_method.PAGE.read_text("utf-8")


def test_a_changed_result_changes_the_page(scripts, evidence):
    results = deepcopy(dict(evidence.results))
    results["rivals"]["all sources"]["three-views"]["mean, low, high"]["regret@1"] = [0.98765, 0.9, 0.99]
    changed = replace(evidence, results=results)
    assert "98.8 [90.0, 99.0]" in scripts.method_tables.TABLES["transfer"](changed)


def test_every_table_is_on_the_page(scripts):
    template = scripts.render_method.TEMPLATE.read_text("utf-8")
    assert set(re.findall(r"\{\{table ([^{}]+)\}\}", template)) == set(scripts.method_tables.TABLES)


def test_a_figure_that_is_not_in_the_results_stops_the_rendering(scripts, evidence):
    with pytest.raises(KeyError):
        scripts.render_method.rendered("{{rivals/all sources/nobody | interval}}", evidence)


def test_the_table_was_made_from_the_rows_that_are_committed(scripts, evidence):
    """A target's best source, and what is lost to it, by the rows themselves."""
    told = evidence.results["rivals"]
    for target in evidence.targets:
        assert told["targets"][target.name] == {"seeds": len(target.complete), "sources": int(target.there.sum())}
        truth = target.truth[target.there]
        lost = [
            (truth.max() - target.truth[max(range(len(one)), key=lambda i, one=one: one[i] if target.there[i] else -9e9)])
            / truth.max()
            for one in evidence.values("three-views", target)
        ]
        assert told["all sources"]["three-views"]["targets"][target.name]["regret@1"] == pytest.approx(
            sum(lost) / len(lost), abs=2e-5
        )


def test_rows_and_results_of_other_sources_are_refused(scripts, tmp_path):
    result = json.loads(scripts.plots.RIVALS.read_text("utf-8"))
    other = tmp_path / "rivals.json"
    other.write_text(json.dumps(result | {"sources": result["sources"][1:]}), encoding="utf-8")
    with pytest.raises(ValueError, match="different sources"):
        scripts.plots.plots(other)


def test_the_recipe_on_the_page_is_that_of_the_code(scripts):
    from hubrank.ranking.background import ENOUGH
    from hubrank.ranking.estimators.standardised_compute import ENOUGH_PAIRS
    from hubrank.ranking.runs import EVERY
    from hubrank.ranking.stability import AGREEMENT, LEAST_STEPS, PERSISTENCE, WINDOW
    from hubrank.ranking.verdict import BAR
    from hubrank.signatures.canonical import TOLERANCE
    from hubrank.target.methods import LEARNING_RATES
    from hubrank.target.objectives import SIZES
    from hubrank.target.tuning import STEPS

    page = " ".join(scripts.render_method.PAGE.read_text("utf-8").split())
    batch, rate = SIZES["classification"].batch, LEARNING_RATES["lora"]
    assert f"{STEPS} steps of batch {batch} for a classification" in page
    assert rate == 1e-3
    assert "rate 1e-3 for a LoRA" in page
    assert f"Every {EVERY} steps" in page
    assert f"each of the {WINDOW} lists before it" in page
    assert f"persistence {PERSISTENCE}) of at least {AGREEMENT}, not before step {LEAST_STEPS}" in page
    assert f"A zoo of fewer than {ENOUGH} sources" in page
    assert (ENOUGH_PAIRS, TOLERANCE) == (5, 1e-3)
    assert "fewer than six prompts" in page
    assert "under a thousandth of the largest" in page
    assert f"From {BAR} on" in page


def test_the_sources_that_the_page_names_as_failures_are_what_the_rows_say(evidence):
    def outlook(name, *, kin):
        """(task of the best source, its places, tasks of the first ones, the target)."""
        target = next(one for one in evidence.targets if one.name == name)
        stays = target.there if kin else target.there & ~target.kin
        order = [sorted((i for i in range(len(one)) if stays[i]), key=lambda i, one=one: -one[i])
                 for one in evidence.values("three-views", target)]  # fmt: skip
        best = max((i for i in range(len(stays)) if stays[i]), key=lambda i: target.truth[i])
        task = [source.partition("-lora")[0] for source in evidence.sources]
        return task[best], [one.index(best) + 1 for one in order], [task[one[0]] for one in order], target, order

    best, places, firsts, target, order = outlook("ag_news", kin=True)
    assert (best, set(firsts)) == ("clinc_domain", {"tweet_sentiment"})
    assert min(places) > 3
    gains = np.round(100 * (target.truth - target.scratch))
    assert {gains[one[0]] for one in order} == {3}
    assert gains[np.nanargmax(target.truth)] == 20
    best, places, *_ = outlook("sts_semeval", kin=False)
    assert best == "scitail"
    assert min(places) > 5
    assert sorted(outlook("sts_semeval", kin=True)[2]) == ["sts_semeval", "tweet_sentiment"]
    for name in ("mrpc", "qqp", "sick_e"):
        best, places, firsts, *_ = outlook(name, kin=True)
        assert best in {"sts_semeval", "med_monotonicity"}
        assert max(places) <= 2
        assert ("subj" in firsts) is (name == "mrpc")
        assert set(firsts) <= {"sts_semeval", "med_monotonicity", "subj"}
    for name in ("chemprot", "sciie_relation"):
        *_, target, order = outlook(name, kin=False)
        assert all(abs(target.truth[i] - target.scratch[i]) < 0.01 for i in order[0])
    rivals = evidence.results["rivals"]["all sources"]
    assert (
        min(line["mean, low, high"]["regret@1"][0] for name, line in rivals.items() if name != "noise ceiling")
        == (rivals["LogME"]["mean, low, high"]["regret@1"][0])
    )
    assert rivals["LogME"]["mean, low, high"]["regret@3"][0] < 0.002  # "nearly always"
