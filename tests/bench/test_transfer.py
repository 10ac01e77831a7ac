"""The runner of measured transfer, without a model: its plan, its rows, its ledger and what it makes of the scores."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Path(__file__).parents[2]
NOT_TO_PUBLISH = {"ag_news", "sick_e", "qqp", "anli_r3", "atis", "mrpc", "meld_sentiment", "emorynlp_emotion"}


# The plan


def test_a_run_stands_once_and_the_first_seed_of_a_matrix_comes_first(bench):
    runs = bench.plan.all_runs()
    assert len({run.key for run in runs}) == len(runs)
    lora = [run for run in runs if run.group == "first" and run.rows == 200]
    assert [run.seed for run in lora] == sorted(run.seed for run in lora)
    pairs = Counter(run.seed for run in lora if run.source)
    assert pairs == dict.fromkeys(range(6), 24 * 16)
    assert runs[: pairs[0]] == lora[: pairs[0]]


def test_every_shape_has_its_no_transfer_row_for_every_target_and_seed(bench):
    runs = bench.plan.all_runs()
    fresh = {(run.shape, run.target, run.rows, run.seed) for run in runs if run.source is None}
    assert {(run.shape, run.target, run.rows, run.seed) for run in runs} == fresh


def test_no_source_has_a_targets_init_and_the_second_set_has_the_firsts_tasks(bench):
    plan = bench.plan
    sources = (*plan.FIRST, *plan.SECOND, *plan.BOTTLENECK, *plan.QA)
    assert not {source.seed for source in sources} & {run.seed for run in plan.all_runs()}
    assert len({source.seed for source in sources}) == len(sources)
    assert Counter(source.task for source in plan.FIRST) == Counter(source.task for source in plan.SECOND)
    assert {source.shape.sites for source in plan.SECOND} == set(plan.SITES)
    assert not NOT_TO_PUBLISH & {source.task for source in sources}


def test_the_zoo_holds_what_the_plan_takes_from_it(bench):
    families = set()
    for source in (*bench.plan.FIRST, *bench.plan.SECOND):
        if source.zoo:
            config = json.loads((REPOSITORY / "examples" / "zoo" / source.zoo / "adapter_config.json").read_text())
            assert (config["r"], config["lora_alpha"]) == (source.shape.rank, source.shape.alpha)
            assert set(config["target_modules"]) == set(bench.plan.SITES[source.shape.sites])
            families.add(source.zoo.partition("/")[0])
    assert families == {folder.name for folder in (REPOSITORY / "examples" / "zoo").iterdir() if folder.is_dir()}


def test_large_targets_have_rows_that_no_source_was_trained_on(bench):
    assert not set(bench.plan.LARGE_TARGETS) & set(bench.plan.SOURCE_TASKS)


def test_steps_grow_with_the_rows_and_kinship_is_told(bench):
    assert [bench.plan.steps_for(rows) for rows in (200, 1000)] == [36, 180]
    kinship = bench.plan.kinship
    assert (kinship("mr", "mr"), kinship("sst2", "sst5"), kinship("mr", "trec6")) == ("same task", "same corpus", "")


# The rows


def rows(*texts, **more):
    return [{"text": text, "label": "x", **more} for text in texts]


def test_a_source_that_saw_a_targets_texts_is_left_out_and_a_stray_row_goes(bench):
    pool = rows(*(f"pool {i}" for i in range(100)))
    test = rows(*(f"test {i}" for i in range(100)))
    seen = {
        "often": frozenset(f"test {i}" for i in range(3)),
        "once": frozenset({"pool 7"}),
        "never": frozenset({"something else"}),
    }
    drawn = bench.overlap.draw("target", pool, test, seen, wanted=90, tested=50)
    assert drawn.left_out == {"often": pytest.approx(0.03)}
    assert (len(drawn.rows), len(drawn.test)) == (90, 50)
    assert "pool 7" not in {row["text"] for row in bench.overlap.draw("target", pool, test, seen, wanted=99).rows}
    with pytest.raises(ValueError, match="99 rows are left of 100, 100 are wanted"):
        bench.overlap.draw("target", pool, test, seen, wanted=100)


def test_a_targets_own_source_stays_and_the_rows_that_it_saw_go(bench):
    pool, test = rows(*(f"pool {i}" for i in range(100))), rows(*(f"test {i}" for i in range(50)))
    seen = {"target": frozenset([f"pool {i}" for i in range(40)] + ["test 1"])}
    drawn = bench.overlap.draw("target", pool, test, seen, wanted=60)
    assert drawn.left_out == {}
    assert {row["text"] for row in drawn.rows} == {f"pool {i}" for i in range(40, 100)}
    assert {row["text"] for row in drawn.test} == {f"test {i}" for i in range(50) if i != 1}


def test_texts_are_the_same_whatever_their_case_and_tokenisation(bench):
    assert bench.overlap.seen_by(rows("It 's  GOOD ."), "mr") == bench.overlap.seen_by(rows("it's good"), "mr")
    pair = rows("a text", text_pair="another")[0]
    assert bench.overlap.texts_of(pair, "sick_e") == {"a text", "another"}
    assert bench.overlap.texts_of(pair, "tweet_stance") == {"a text"}  # the pair is a topic


def test_no_row_is_both_tuned_and_scored_on_and_the_draw_repeats_itself(bench):
    pool, test = rows(*(f"row {i}" for i in range(60))), rows(*(f"row {i}" for i in range(50, 90)))
    drawn = bench.overlap.draw("target", pool, test, {}, wanted=40)
    assert not {row["text"] for row in drawn.rows} & {row["text"] for row in drawn.test}
    assert drawn == bench.overlap.draw("target", pool, test, {}, wanted=40)


# The ledger and the queue


def test_a_row_is_written_once_whoever_asks(bench, tmp_path):
    one, two = bench.ledger.Ledger(tmp_path), bench.ledger.Ledger(tmp_path)
    assert one.claim("a")
    assert not two.claim("a")
    one.write("lora", "a", {"value": 1})
    assert not two.claim("a")
    assert "a" in two.done
    assert not bench.ledger.Ledger(tmp_path).claim("a")
    assert (tmp_path / "rows-lora.jsonl").read_text() == '{"key": "a", "value": 1}\n'


def test_a_claim_that_is_let_go_of_can_be_taken(bench, tmp_path):
    one, two = bench.ledger.Ledger(tmp_path), bench.ledger.Ledger(tmp_path)
    assert one.claim("a")
    one.release("a")
    assert two.claim("a")


def test_a_line_that_a_killed_worker_left_unfinished_is_cut_off(bench, tmp_path):
    file = tmp_path / "rows-lora.jsonl"
    file.write_text('{"key": "a", "value": 1}\n{"key": "b", "val')
    ledger = bench.ledger.Ledger(tmp_path)
    assert ledger.done == {"a"}
    assert ledger.claim("b")
    ledger.write("lora", "b", {"value": 2})
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["a", "b"]


class Bench:
    """A workbench that counts what it is asked for."""

    device = "cpu"

    def __init__(self, left_out=(), absent=()):
        self.left_out, self.absent, self.measured, self.trained = set(left_out), set(absent), [], []

    def target(self, *_):
        return SimpleNamespace(metric="accuracy", test_rows=400, left_out={})

    def allowed(self, run):
        return run.source is None or run.source.task not in self.left_out

    def has(self, source):
        return source.task not in self.absent

    def train(self, source):
        self.absent.remove(source.task)
        self.trained.append(source.task)
        return {"value": 0.5}

    def measure(self, runs):
        if len(self.measured) + len(runs) > 40:
            raise KeyboardInterrupt
        self.measured += [run.key for run in runs]
        return [0.5] * len(runs)


def test_the_queue_goes_on_where_it_was_stopped_and_trains_what_is_missing(bench, tmp_path):
    plan = bench.plan
    runs = list(plan.matrix("first", plan.FIRST, ("trec6", "subj"), 200, 0))
    first, second = Bench({"mr"}, {"cb"}), Bench({"mr"})
    with pytest.raises(KeyboardInterrupt):
        bench.run.work(runs, bench.ledger.Ledger(tmp_path), first, tmp_path / "log.txt")
    ledger = bench.ledger.Ledger(tmp_path)
    assert not bench.run.work(runs, ledger, second, tmp_path / "log.txt")
    assert first.trained == ["cb"]
    assert first.measured
    assert sorted(first.measured + second.measured) == sorted(
        run.key for run in runs if not run.source or run.source.task != "mr"
    )
    assert not bench.run.work(runs, ledger, third := Bench({"mr"}), tmp_path / "log.txt")
    assert third.measured == []
    written = [json.loads(line) for line in (tmp_path / "rows-lora.jsonl").read_text().splitlines()]
    assert {row["kin"] for row in written if row["source_task"] == "trec6" and row["target"] == "trec6"} == {"same task"}


def test_what_another_worker_has_is_waited_for(bench, tmp_path):
    runs = list(bench.plan.matrix("first", bench.plan.FIRST[:1], ("trec6",), 200, 0))
    other = bench.ledger.Ledger(tmp_path)
    assert other.claim(runs[1].key)
    worker = Bench()
    assert bench.run.work(runs, bench.ledger.Ledger(tmp_path), worker, tmp_path / "log.txt")
    assert worker.measured == [runs[0].key]


# Question answering


def test_f1_is_squads(bench):
    f1 = bench.qa.f1
    assert f1("The Moondance Diner", "moondance diner.") == 1
    assert f1("a big red bus", "red bus") == pytest.approx(0.8)
    assert f1("cat", "dog") == 0


@given(st.integers(1, 500), st.data(), st.integers(0, 2**32 - 1))
def test_the_window_holds_the_answer_and_stays_in_the_passage(bench, tokens, data, seed):
    low = data.draw(st.integers(0, tokens - 1))
    high = data.draw(st.integers(low, min(tokens - 1, low + bench.qa.LONGEST - 1)))
    start = bench.qa.window(tokens, low, high, seed)
    assert 0 <= start <= low
    assert high < start + bench.qa.WINDOW
    assert start + bench.qa.WINDOW <= max(tokens, bench.qa.WINDOW)


def test_the_target_and_the_source_of_a_qa_task_share_no_passage(bench):
    given_rows = [{"text": f"passage {i % 150}", "id": i} for i in range(600)]
    target, source = bench.qa.reserve("task", given_rows)
    assert len(target) + len(source) == 600
    assert bench.qa.RESERVED <= len(target) < bench.qa.RESERVED + 4
    assert not {row["text"] for row in target} & {row["text"] for row in source}


# The summary


def row(source, seed, value, target="t", kin=""):
    shape = {"method": "lora", "set": "first", "sites": "qv", "rank": 8, "alpha": 16.0, "rows": 200, "metric": "accuracy"}
    return {**shape, "source": source, "seed": seed, "value": value, "target": target, "kin": kin}


def test_the_ceiling_chance_and_gain_by_hand(bench):
    written = [
        *(row(name, 0, value) for name, value in zip("abcd", (0.8, 0.6, 0.4, 0.2), strict=True)),
        *(row(name, 1, value) for name, value in zip("abcd", (0.6, 0.8, 0.4, 0.2), strict=True)),
        row("a", 2, 0.9),  # a seed under way
        row(None, 0, 0.5),
        row(None, 1, 0.7),
    ]
    line = bench.summarise.summarise(written)["lora first, 200 rows"]["all sources"]["targets"][0]
    assert line["seeds"] == 2
    assert (line["ceiling@1"], line["ceiling@3"]) == (pytest.approx(25), 0)
    assert line["best"] == pytest.approx(0.7)
    assert line["gain of the best"] == pytest.approx(0.1)
    assert line["chance@1"] == pytest.approx(100 * (0.7 - 0.5) / 0.7)


def test_sources_of_the_targets_own_task_can_be_left_out(bench):
    written = [row("a", 0, 0.9, kin="same task"), row("b", 0, 0.5), row("c", 0, 0.4), row(None, 0, 0.3)]
    parts = bench.summarise.summarise(written)["lora first, 200 rows"]
    assert [parts[name]["targets"][0]["best source"] for name in ("all sources", "without kin")] == ["a", "b"]


@given(st.lists(st.floats(0.1, 1), min_size=3, max_size=6), st.integers(1, 3))
def test_chance_is_the_mean_over_all_orders(bench, values, k):
    truth = np.array(values)
    orders = itertools.permutations(range(len(values)))
    regrets = [bench.summarise.regret(-np.argsort(order).astype(float), truth, k) for order in orders]
    assert bench.summarise.chance(truth, k) == pytest.approx(np.mean(regrets), abs=1e-9)


def test_a_file_that_is_still_growing_can_be_read(bench, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"value": 1}\n{"val')
    assert bench.summarise.read_rows([tmp_path / "rows.jsonl"]) == [{"value": 1}]
