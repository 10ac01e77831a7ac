"""The search from file to ranking, on a tiny random base and a small zoo; and everything it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hubrank.checkpoints.peft_lora import read_lora
from hubrank.errors import BaseModelError, EmptyZooError, TargetError, UsageError
from hubrank.ranking.bases import auto_base
from hubrank.ranking.search import SearchSettings, choose_base, choose_methods, search
from hubrank.target.base import load_base
from hubrank.target.methods import Placement
from hubrank.target.rows import read_target
from hubrank.target.tuning import TuningPlan, tune
from hubrank.zoo.store import Zoo
from tests.ranking.builders import (
    BASE,
    make_base,
    modules,
    one_thread,
    random_deltas,
    rewritten,
    sign,
    source,
    toy_rows,
    write_lines,
)

STEPS = 8
TWIN = "org/twin"


class Listening:
    """Writes down what it hears."""

    def __init__(self):
        self.stages, self.steps, self.notes, self.snapshots = [], [], [], []

    def stage(self, message):
        self.stages.append(message)

    def step(self, done, total):
        self.steps.append((done, total))

    def note(self, message):
        self.notes.append(message)

    def ranking(self, snapshot):
        self.snapshots.append(snapshot)


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("models") / "local")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("target") / "toy.jsonl", toy_rows())


@pytest.fixture(scope="module")
def cache(tmp_path_factory, base, file):
    """A zoo of 12 strangers and of the very adapter that the search with seed 0 makes, published with other factors."""
    folder = tmp_path_factory.mktemp("zoo") / "cache"
    plan = TuningPlan(Placement("lora", tuple(modules()), 4, 8.0), steps=STEPS, seed=0, aligned=True)
    tuned = tune(*load_base(base), read_target(file), plan)
    random = np.random.default_rng(0)
    with Zoo(folder, create=True) as zoo:
        for i in range(12):
            zoo.put(source(f"org/stranger{i:02}"), sign(random_deltas(random, modules())))
        zoo.put(source(TWIN), sign(rewritten(random, read_lora(tuned.config(), tuned.tensors(), BASE).deltas)))
    return folder


@pytest.fixture
def run(base, cache, file):
    """A search with small settings, all of which can be changed."""

    def run(**changes):
        options = {
            "base": f"{BASE}={base.folder}",
            "steps": STEPS,
            "cache_dir": cache,
            "device": "cpu",
            "reuse": False,
        } | changes
        return search(options.pop("target", file), **options)

    return run


def zoo_of(folder: Path, *bases: str, method: str = "lora", gone: bool = False) -> Path:
    """A zoo with one source for each base given."""
    random = np.random.default_rng(1)
    with Zoo(folder, create=True) as zoo:
        for i, name in enumerate(bases):
            found = source(f"org/{method}{i:02}", base=name, method=method)
            zoo.put(found, sign(random_deltas(random, modules())))
            if gone:
                zoo.mark(found, gone=True)
    return folder


# The whole way.


def test_a_ranking_with_all_its_fields(run, base, file):
    ranking = run(top=None)
    assert (ranking.base, ranking.base_folder) == (BASE, str(base.folder))
    assert (ranking.methods, ranking.estimator) == (("lora",), "four-views")
    target = ranking.target
    assert (target.path, target.examples, target.task, target.labels) == (str(file), 24, "classification", 2)
    assert (target.steps, target.device) == (STEPS, "cpu")
    assert 0 < target.seconds < 60
    assert (ranking.sources, ranking.compared, ranking.skipped) == (13, 13, {})
    assert [row.rank for row in ranking.rows] == list(range(1, 14))
    assert len({row.source.name for row in ranking.rows}) == 13
    for row in ranking.rows:
        assert isinstance(row.score, float)
        assert -1 <= row.similarity <= 1
        assert len(row.layers) == 2
        assert all(-1 <= layer <= 1 for layer in row.layers)
        assert (row.coverage, row.warnings, row.source.task) == (1.0, (), "toy")
        assert np.isfinite(row.evidence)
    assert 0 <= ranking.energy <= 1
    assert ranking.notes == ()


def test_the_targets_own_adapter_is_first(run):
    """Through tuning, signing, the store's int8 and the zoo's basis."""
    ranking = run()
    first, second, *_ = ranking.rows
    assert first.source.name == TWIN
    assert first.similarity == pytest.approx(1.0, abs=0.02)
    assert first.layers == pytest.approx([1.0, 1.0], abs=0.02)
    assert first.score > second.score + 1
    assert ranking.verdict.relevant
    # From another seed, too: a few steps leave little else than the start, and it starts along the task's own gradient.
    other, stranger, *_ = run(seed=1).rows
    assert other.source.name == TWIN
    assert 0.9 > other.similarity > 3 * stranger.similarity


def timeless(ranking):
    """A ranking but for how long it took, and whether it had to be tuned."""
    runs = tuple(replace(run, seconds=0.0, cached=False, overlap=None) for run in ranking.runs)
    return replace(ranking, target=replace(ranking.target, seconds=0.0), runs=runs)


def test_same_seed_same_ranking_and_another_seed_another(run):
    first, again, other = (run(seed=seed) for seed in (3, 3, 4))
    assert timeless(first) == timeless(again)
    assert [row.value for row in first.rows] != [row.value for row in other.rows]


def test_top_is_how_many_rows_are_given_not_compared(run):
    everything, three = run(top=None), run(top=3)
    assert three.rows == everything.rows[:3]
    assert three.compared == 13
    assert len(run(top=1000).rows) == 13


def test_what_left_its_hub_is_ranked_on_request_and_marked(run, cache, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    with Zoo(tmp_path / "cache") as zoo:
        zoo.mark(next(one for one in zoo.sources() if one.name == TWIN), gone=True)
    without = run(cache_dir=tmp_path / "cache")
    assert TWIN not in {row.source.name for row in without.rows}
    assert without.sources == 12
    twice = [run(cache_dir=tmp_path / "cache", gone=True) for _ in range(2)]
    assert [ranking.rows[0].source.name for ranking in twice] == [TWIN, TWIN]
    assert twice[0].sources == 13
    assert twice[0].rows[0].warnings == ("no longer on its hub",)
    assert twice[0].rows[1].warnings == ()
    # Ranking it once does not bring it back.
    assert run(cache_dir=tmp_path / "cache").rows == without.rows


def test_settings_by_object_and_by_name(run):
    settings = SearchSettings(top=2, seed=5)
    assert [row.value for row in run(settings=settings).rows] == [row.value for row in run(top=2, seed=5).rows]
    assert len(run(settings=settings, top=4).rows) == 4


def test_a_target_that_was_read_before(run, file):
    assert run(target=read_target(file)).rows == run().rows
    assert run(target=str(file)).rows == run().rows


def test_an_open_zoo_is_used_and_left_open(run, cache):
    with Zoo(cache) as zoo:
        assert run(zoo=zoo, cache_dir=None).rows == run().rows
        assert len(zoo.sources()) == 13


def test_the_users_file_is_only_read(run, tmp_path):
    file = write_lines(tmp_path / "mine.jsonl", toy_rows())
    file.chmod(0o444)
    before = (file.read_bytes(), file.stat().st_mtime_ns, sorted(tmp_path.iterdir()))
    run(target=file)
    assert (file.read_bytes(), file.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == before


def test_the_base_model_is_only_read(run, base):
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in base.folder.iterdir()}
    run()
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in base.folder.iterdir()} == before


def test_the_listener_hears_stages_steps_and_notes(run, tmp_path):
    rows = toy_rows()
    rows[0]["text"] = "w1 " * 10_000
    file = write_lines(tmp_path / "long.jsonl", rows)
    listener = Listening()
    run(target=file, listener=listener)
    assert listener.stages == [f"loading {BASE}", f"reading long.jsonl with {BASE}", "tuning lora on 24 rows of long.jsonl"]
    assert listener.steps == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert listener.notes == [f"{file}: line 1: text cut to its first 20,000 characters"]


def test_a_regression_over_pairs(run, tmp_path):
    rows = [{"premise": row["text"], "hypothesis": "w3 w12", "score": 0.5 * i} for i, row in enumerate(toy_rows())]
    target = run(target=write_lines(tmp_path / "pairs.jsonl", rows), steps=5).target
    assert (target.task, target.labels) == ("regression", 0)


def test_other_bases_and_methods_are_counted_as_skipped(run, cache, tmp_path):
    folder = Path(shutil.copytree(cache, tmp_path / "cache"))
    random = np.random.default_rng(2)
    some = sign(random_deltas(random, modules()))
    with Zoo(folder) as zoo:
        zoo.put(source("org/other-base", base="org/other"), some)
        zoo.put(source("org/other-method", method="ia3"), some)
        zoo.put(source("org/other-sites"), sign(random_deltas(random, ["encoder.layer.0.output.dense"])))
    ranking = run(cache_dir=folder, top=None)
    assert (ranking.sources, ranking.compared) == (16, 13)
    assert ranking.skipped == {"other base": 1, "other method": 1, "no comparable sites": 1}


def test_a_small_zoo_gives_a_ranking_without_scores_and_says_so(run, tmp_path):
    ranking = run(cache_dir=zoo_of(tmp_path / "cache", BASE, BASE, BASE))
    assert [row.score for row in ranking.rows] == [None] * 3
    assert ranking.notes == ("the zoo is too small for a common scale: no scores are given",)


def test_without_a_base_the_one_with_the_most_sources_is_taken(run, cache, base, tmp_path, monkeypatch):
    """It then has to be found by its name: here, in the HF cache."""
    from huggingface_hub import constants

    repo = tmp_path / "hf" / "models--tiny--bert"
    shutil.copytree(base.folder, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    listener = Listening()
    ranking = run(base=None, listener=listener, offline=True)
    assert (ranking.base, ranking.base_folder) == (BASE, None)
    assert (
        ranking.notes
        == tuple(listener.notes)
        == (f"base model {BASE}: most sources in the zoo (13) of those that fit classification and cpu",)
    )
    assert ranking.rows == run().rows


# Which base.


def test_only_sources_that_can_be_compared_count(tmp_path):
    """Neither methods that no target is tuned by, nor others than those that were asked for."""
    folder = tmp_path / "cache"
    zoo_of(folder, "org/a", "org/a", "org/a", method="reft")
    zoo_of(folder, "org/b", "org/b", method="lora")
    zoo_of(folder, "org/c", method="prefix")
    with Zoo(folder) as zoo:
        assert next(iter(zoo.bases())) == "org/a"
        found = auto_base(zoo, "classification", "cpu")
        assert found.name == "org/b"
        picked = auto_base(zoo, "classification", "cpu", methods=("prefix",))
        assert picked.name == "org/c"
        assert picked.why == "base model org/c: most prefix sources in the zoo (1) of those that fit classification and cpu"
        with pytest.raises(EmptyZooError, match="the zoo has no ia3 source for org/"):
            choose_methods(zoo, auto_base(zoo, "classification", "cpu", methods=("ia3",)).name, ("ia3",))


@pytest.fixture
def zoo(tmp_path):
    with Zoo(zoo_of(tmp_path / "cache", "org/small", "org/large", "org/large", "other/small")) as zoo:
        yield zoo


def test_a_base_by_its_name(zoo):
    assert choose_base(zoo, None) == ("org/large", None)
    assert choose_base(zoo, "org/small") == ("org/small", None)
    assert choose_base(zoo, "Org/SMALL") == ("org/small", None)


def folder_at(path: Path, config: str = "{}") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(config)
    return path


def test_a_folder_and_what_it_is_outright(zoo, tmp_path):
    folder = folder_at(tmp_path / "models" / "mine")
    assert choose_base(zoo, f"org/large={folder}") == ("org/large", folder)
    with pytest.raises(EmptyZooError, match=r"nothing for base org/larg; .* did you mean org/large\?"):
        choose_base(zoo, f"org/larg={folder}")


@pytest.mark.parametrize(
    ("path", "config", "name"),
    [
        ("mine", '{"_name_or_path": "org/small"}', "org/small"),
        ("org/small", "{}", "org/small"),
        ("org/small", "not JSON", "org/small"),
        ("org/small", "[]", "org/small"),
        ("org/small", '{"_name_or_path": ["a list"]}', "org/small"),
        ("org/small", '{"_name_or_path": {"an": "object"}}', "org/small"),
        ("org/small", "[" * 100_000, "org/small"),
        ("anywhere/large", "{}", "org/large"),
        ("models--org--small/snapshots/" + "a" * 40, "{}", "org/small"),
        ("other/small", '{"_name_or_path": "org/large"}', "org/large"),
    ],
    ids=lambda value: value[:40],
)
def test_a_folder_is_recognised_by_its_config_or_its_path(zoo, tmp_path, path, config, name):
    folder = folder_at(tmp_path / "models" / path, config)
    assert choose_base(zoo, str(folder)) == (name, folder)


def test_a_folder_below_the_home_folder(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = folder_at(tmp_path / "org" / "small")
    assert choose_base(zoo, "~/org/small") == ("org/small", folder)
    assert choose_base(zoo, "org/large=~/org/small") == ("org/large", folder)


@pytest.mark.parametrize("path", ["mine", "anywhere/small"])
def test_an_ambiguous_folder_asks_for_its_id(zoo, tmp_path, path):
    folder = folder_at(tmp_path / "models" / path)
    with pytest.raises(BaseModelError) as caught:
        choose_base(zoo, str(folder))
    assert f"--base ID={folder}, ID one of org/large (2), org/small (1), other/small (1)" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "not a model",
        "a/b/c",
        "org/small=/no/such/folder",
        "",
        "=",
        "=/tmp",
        "x" * 5000,
        "org/" + "y" * 300,
        "nul\0",
        "~no-such-user/model",
    ],
)
def test_nonsense(zoo, given):
    with pytest.raises(BaseModelError, match=r"neither a folder that is there nor a model id such as org/name$"):
        choose_base(zoo, given)


def test_nothing_for_that_base(zoo):
    with pytest.raises(EmptyZooError) as caught:
        choose_base(zoo, "someone/bert")
    assert str(caught.value) == (
        "the zoo has nothing for base someone/bert; it has org/large (2), org/small (1), other/small (1); "
        "`hubrank sync --base someone/bert` looks for some"
    )
    with pytest.raises(EmptyZooError, match=r"did you mean org/large\?"):
        choose_base(zoo, "org/largee")


def test_many_bases_are_not_all_listed(tmp_path):
    with (
        Zoo(zoo_of(tmp_path / "cache", *(f"org/b{i}" for i in range(9)))) as zoo,
        pytest.raises(EmptyZooError, match="and 4 more;"),
    ):
        choose_base(zoo, "someone/bert")


# What is refused.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "--steps 0: give a number from 1 to 100000"),
        ({"steps": -5}, "--steps -5"),
        ({"steps": 100_001}, "--steps 100001"),
        ({"top": 0}, "--top 0: give a number from 1"),
        ({"top": -1}, "--top -1"),
        ({"seed": -1}, "--seed -1: give a number from 0 to 2147483647"),
        ({"seed": 2**31}, "--seed 2147483648"),
        ({"estimator": "best"}, "--estimator best: unknown; there is compute-std, four-views, read-write, three-views"),
        ({"repeats": 0}, "--repeats 0: give a number from 1 to 100"),
        ({"budget": 0.0}, "--budget 0: give a time above 0"),
        ({"budget": float("nan")}, "--budget nan"),
        ({"methods": ("lora", "magic")}, "--method magic: a target is tuned by lora, bottleneck"),
        ({"device": "gpu"}, "--device gpu: unknown"),
    ],
)
def test_settings_out_of_range(run, changes, said):
    with pytest.raises(UsageError) as caught:
        run(**changes)
    assert str(caught.value).startswith(said)


def test_the_largest_seed_works(run):
    assert run(seed=2**31 - 1, steps=1).rows


def test_a_setting_that_does_not_exist(run):
    with pytest.raises(TypeError, match="epochs"):
        run(epochs=3)


def test_a_bad_target_is_refused_before_the_zoo_is_opened(run, tmp_path):
    with pytest.raises(TargetError, match="no such file"):
        run(target=tmp_path / "nothing.jsonl", cache_dir=tmp_path / "cache")


def test_an_empty_zoo_says_how_to_fill_it(run, tmp_path):
    with pytest.raises(EmptyZooError, match=r"cache: the zoo is empty; fill it with `hubrank sync`"):
        run(cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(EmptyZooError, match=r"every source in it \(1\) has left its hub; .*--gone"):
        run(cache_dir=zoo_of(tmp_path / "gone", BASE, gone=True))


def test_a_zoo_with_nothing_of_the_method(run, tmp_path):
    folder = zoo_of(tmp_path / "cache", BASE, method="ia3")
    with pytest.raises(EmptyZooError, match=rf"no lora source for {BASE}; it has ia3 \(1\)"):
        run(cache_dir=folder, methods=("lora",))
    with pytest.raises(EmptyZooError, match=r"of a method that can be tuned here; it has rotation \(1\)"):
        run(cache_dir=zoo_of(tmp_path / "other", BASE, method="rotation"))


def test_a_zoo_whose_sources_have_nothing_in_common(run, tmp_path):
    """Each adapts a module of its own, so that no site is worth comparing."""
    random = np.random.default_rng(0)
    with Zoo(tmp_path / "cache", create=True) as zoo:
        for i in range(12):
            zoo.put(source(f"org/a{i:02}"), sign(random_deltas(random, [f"encoder.layer.{i}.output.dense"])))
    with pytest.raises(EmptyZooError, match="nothing in common"):
        run(cache_dir=tmp_path / "cache")


def test_a_base_that_lacks_the_zoos_modules(run, tmp_path):
    random = np.random.default_rng(0)
    with Zoo(tmp_path / "cache", create=True) as zoo:
        zoo.put(source("org/a"), sign(random_deltas(random, ["h.0.attn.c_attn"])))
    with pytest.raises(BaseModelError, match="none of the modules"):
        run(cache_dir=tmp_path / "cache")


def test_a_base_of_another_width(run, tmp_path):
    random = np.random.default_rng(0)
    with Zoo(tmp_path / "cache", create=True) as zoo:
        zoo.put(source("org/a"), sign(random_deltas(random, modules(), d=48)))
    with pytest.raises(EmptyZooError, match="no source in the zoo"):
        run(cache_dir=tmp_path / "cache")


def test_a_folder_without_a_model(run, tmp_path):
    with pytest.raises(BaseModelError, match=r"holds no config\.json with model weights"):
        run(base=f"{BASE}={tmp_path}")
