"""What is new since the last check, and which target it leads."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hubrank import check
from hubrank.check.findings import TargetStanding
from hubrank.check.policy import Policy, TargetPolicy
from hubrank.check.seen import Seen, identity, parse_since, read_seen, write_seen
from hubrank.check.targets import SignedTarget, stand, target_findings
from hubrank.errors import EmptyZooError, StoreDamagedError, StoreError, UsageError
from hubrank.zoo.packed_files import open_packed
from hubrank.zoo.store import Zoo
from tests.builders import BASE, make_source, random_signature
from tests.check.builders import NOW, card, good_adapter, make_zoo


def run(cache, *, now=NOW, **settings):
    return check(cache_dir=cache, new=True, now=now, policy=settings.pop("policy", Policy()), offline=True, **settings)


def test_everything_is_new_once(tmp_path):
    cache = make_zoo(tmp_path, 3)
    first = run(cache)
    assert first.new == ("zoo/a0", "zoo/a1", "zoo/a2")
    assert [judged.name for judged in first.adapters] == list(first.new)
    assert "first check" in first.notes[0]
    again = run(cache, now=NOW + timedelta(days=1))
    assert again.new == ()
    assert again.adapters == ()
    assert not again.notes


def test_what_came_and_what_changed_is_new(tmp_path):
    cache = make_zoo(tmp_path, 3)
    run(cache)
    good_adapter(tmp_path / "hub" / "zoo" / "a1", seed=77, card=card(without=["license"]))
    make_zoo(tmp_path, 1, start=3)
    found = run(cache, now=NOW + timedelta(days=1))
    assert found.new == ("zoo/a1", "zoo/a3")
    assert [f.rule for f in found.findings] == ["card-license"]


def test_since_a_day_or_so_long_ago(tmp_path):
    cache = make_zoo(tmp_path, 2)
    run(cache)
    make_zoo(tmp_path, 1, start=2)
    run(cache, now=NOW + timedelta(days=5))
    later = NOW + timedelta(days=6)
    assert run(cache, now=later).new == ()
    assert run(cache, now=later, since="2d").new == ("zoo/a2",)
    assert run(cache, now=later, since="2026-11-29").new == ("zoo/a2",)
    assert run(cache, now=later, since="2026-11-24").new == ("zoo/a0", "zoo/a1", "zoo/a2")


def test_adapters_whose_files_are_out_of_reach_are_judged_by_what_the_zoo_keeps(tmp_path):
    cache = make_zoo(tmp_path, 9)
    good_adapter(tmp_path / "hub" / "zoo" / "b", seed=3, card=card(without=["license"]))
    make_zoo(tmp_path, 0)
    shutil.rmtree(tmp_path / "hub")
    found = run(cache)
    assert not any(judged.whole for judged in found.adapters)
    assert {(f.adapter, f.rule) for f in found.findings} == {("zoo/b", "card-license")}
    assert any("10 newcomers were judged by what the zoo keeps" in note for note in found.notes)


def test_an_empty_zoo_and_a_since_that_is_none(tmp_path):
    with pytest.raises(EmptyZooError):
        run(tmp_path / "none")
    cache = make_zoo(tmp_path, 1)
    with pytest.raises(UsageError, match="--since yesterday"):
        run(cache, since="yesterday")
    with pytest.raises(UsageError, match="nothing to check"):
        check(cache_dir=cache)
    with pytest.raises(UsageError, match="needs --new"):
        check(["x"], cache_dir=cache, since="1d")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("36h", NOW - timedelta(hours=36)),
        ("7d", NOW - timedelta(days=7)),
        (" 2 w ", NOW - timedelta(weeks=2)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T02:30+02:00", datetime(2026, 11, 1, 0, 30, tzinfo=UTC)),
    ],
)
def test_times(text, time):
    assert parse_since(text, NOW) == time


def test_the_record_survives_and_forgets_what_has_left(tmp_path):
    one, two = make_source("org/one"), make_source("org/two")
    seen = Seen().after([one, two], NOW)
    write_seen(tmp_path, seen)
    assert read_seen(tmp_path) == seen
    later = read_seen(tmp_path).after([replace(one, revision="b" * 40)], NOW + timedelta(days=1))
    assert later.entries == {identity(one): ("b" * 40, NOW + timedelta(days=1))}
    assert [path.name for path in tmp_path.iterdir()] == ["check.json"]


def test_a_record_that_cannot_be_written_leaves_the_one_before_and_nothing_beside_it(tmp_path, monkeypatch):
    write_seen(tmp_path, Seen(NOW))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("json.dump", full)
    with pytest.raises(StoreError, match=r"check.json cannot be written \(No space left on device\); check"):
        write_seen(tmp_path, Seen(NOW, {"a": ("r", NOW)}))
    assert [path.name for path in tmp_path.iterdir()] == ["check.json"]
    assert read_seen(tmp_path) == Seen(NOW)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2, "last": null, "seen": {}}', '{"format":1}'])
def test_a_damaged_record_says_the_way_out(tmp_path, text):
    (tmp_path / "check.json").write_text(text)
    with pytest.raises(StoreDamagedError, match="delete it"):
        read_seen(tmp_path)


@pytest.fixture
def packed(tmp_path):
    with Zoo(make_zoo(tmp_path, 12)) as zoo:
        yield open_packed(zoo, BASE, "lora"), {source.name: zoo.signature(source) for source in zoo.sources()}


def test_who_leads(packed):
    packed, signatures = packed
    target = SignedTarget("data/banking.jsonl", BASE, packed, signatures["zoo/a4"])
    ids = {source.name: identity(source) for source in packed.sources}
    known = stand(target, set(), TargetPolicy())
    assert known.best == "zoo/a4"
    assert known.lead is None
    led = stand(target, {ids["zoo/a4"]}, TargetPolicy())
    assert led.lead.source == "zoo/a4"
    assert led.lead.former == known.rows[1][1]
    assert led.lead.margin == pytest.approx(known.rows[0][3] - known.rows[1][3])
    (finding,) = target_findings(led, TargetPolicy())
    assert finding.rule == "new-best"
    assert finding.message == f"new #1 for banking.jsonl: zoo/a4, {led.lead.margin:.1f} over the former best, {led.lead.former}"
    assert stand(target, {ids["zoo/a4"]}, TargetPolicy(margin=led.lead.margin + 1)).lead is None
    another = stand(target, {ids["zoo/a5"]}, TargetPolicy())
    assert another.lead is None


def test_a_former_best_that_comes_far_behind_many_newcomers(packed):
    packed, signatures = packed
    target = SignedTarget("t.jsonl", BASE, packed, signatures["zoo/a4"])
    ranked = [name for _, name, *_ in stand(target, set(), TargetPolicy()).rows]
    newcomers = {identity(source) for source in packed.sources if source.name not in (ranked[-1],)}
    last = stand(target, newcomers, TargetPolicy()).lead
    assert last.former == ranked[-1] or last.former not in ranked
    assert last.margin > 0
    everyone = stand(target, {identity(source) for source in packed.sources}, TargetPolicy()).lead
    assert everyone.former is None
    assert "nothing before it" in target_findings(TargetStanding("t", BASE, "x", 1.0, everyone), TargetPolicy())[0].message


def test_a_score_that_is_asked_for():
    low = TargetStanding("data/t.jsonl", BASE, "org/x", 2.0, None)
    (finding,) = target_findings(low, TargetPolicy(min_score=3))
    assert (finding.rule, finding.level, finding.file) == ("target-score", "error", "data/t.jsonl")
    assert "org/x, scores 2.00; the policy asks for 3" in finding.message
    assert not target_findings(low, TargetPolicy(min_score=2))
    assert target_findings(replace(low, best_score=None), TargetPolicy(min_score=2))


def test_newcomers_and_targets_in_one_check(tmp_path):
    cache = make_zoo(tmp_path, 10)
    run(cache)
    good_adapter(tmp_path / "hub" / "zoo" / "star", seed=900)
    make_zoo(tmp_path, 0)
    with Zoo(cache) as zoo:
        wanted = zoo.signature(zoo.get(f"folder:{tmp_path / 'hub'}", "zoo/star", None))

        def signer(path):
            return SignedTarget(str(path), BASE, open_packed(zoo, BASE, "lora"), wanted)

        policy = Policy(levels={"new-best": "error"}, targets={"t.jsonl": TargetPolicy(margin=0.1)})
        found = check(zoo=zoo, new=True, targets=["t.jsonl"], now=NOW, policy=policy, offline=True, signer=signer)
    assert found.new == ("zoo/star",)
    assert found.targets[0].best == "zoo/star"
    assert [finding.rule for finding in found.failures] == ["new-best"]


def test_a_signature_of_nothing_in_common_is_an_error(packed):
    packed, _ = packed
    elsewhere = random_signature(sites=["encoder.layer.9.attention.self.key"])
    with pytest.raises(EmptyZooError):
        stand(SignedTarget("t", BASE, packed, elsewhere), set(), TargetPolicy())


def test_a_target_is_tuned_where_the_zoo_was(tmp_path):
    """The whole way on a tiny base model: tune, rank, and say that the only newcomer leads or does not."""
    from tests.ranking.builders import BASE as TINY
    from tests.ranking.builders import HIDDEN, make_base, one_thread, toy_rows, write_lines

    make_base(tmp_path / "base")
    cache = make_zoo(tmp_path, 9, base=TINY, d=HIDDEN, card=card({"base_model": TINY}))
    rows = write_lines(tmp_path / "rows.jsonl", toy_rows())
    with one_thread():
        found = run(cache, targets=[rows], base=f"{TINY}={tmp_path / 'base'}", device="cpu")
    (standing,) = found.targets
    assert standing.base == TINY
    assert len(standing.rows) == 9
    assert standing.lead.former is None
    assert {finding.rule for finding in found.general} == {"new-best"}


class Stages:
    """Notes down what a check tells of its progress."""

    def __init__(self):
        self.heard = []

    def stage(self, message):
        self.heard.append(message)

    def step(self, done, total): ...
    def note(self, message): ...
    def ranking(self, snapshot): ...


def test_a_file_that_has_not_changed_is_not_tuned_again(tmp_path):
    from tests.ranking.builders import BASE as TINY
    from tests.ranking.builders import HIDDEN, make_base, one_thread, toy_rows, write_lines

    make_base(tmp_path / "base")
    cache = make_zoo(tmp_path, 9, base=TINY, d=HIDDEN, card=card({"base_model": TINY}))
    options = {"base": f"{TINY}={tmp_path / 'base'}", "device": "cpu"}
    heard = []
    with one_thread():
        for rows in (toy_rows(), toy_rows(), toy_rows()[:-1]):
            stages = Stages()
            found = run(cache, targets=[write_lines(tmp_path / "rows.jsonl", rows)], listener=stages, **options)
            heard.append([message.partition(" ")[0] for message in stages.heard if message.startswith(("tuning", "lora:"))])
            assert len(found.targets[0].rows) == 9
    assert heard == [["tuning"], ["lora:"], ["tuning"]]
