"""Policies are read strictly; exceptions end."""

from __future__ import annotations

from datetime import date

import pytest

from hubrank import check
from hubrank.check.findings import reaches
from hubrank.check.policy import Ignore, Policy, TargetPolicy
from hubrank.check.policy_file import find_policy, read_policy
from hubrank.check.rules import RULES
from hubrank.errors import InputError
from tests.check.builders import NOW, card, good_adapter

WHOLE = """
fail-on = "warning"

[rules]
card-license = "error"
card-metrics = "off"

[allow]
licenses = ["apache-2.0", "mit"]
bases = ["org/*"]
orgs = ["team"]

[[ignore]]
rule = "card-datasets"
adapter = "org/old-*"
until = 2027-01-31
reason = "retrained in January"

[targets."banking.jsonl"]
min-score = 3
margin = 0.5
"""


def written(tmp_path, text, name="hubrank.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_whole_policy(tmp_path):
    path = written(tmp_path, WHOLE)
    policy = read_policy(path, RULES)
    assert policy == Policy(
        path=str(path),
        fail_on="warning",
        levels={"card-license": "error", "card-metrics": "off"},
        licenses=("apache-2.0", "mit"),
        bases=("org/*",),
        orgs=("team",),
        ignores=(Ignore("card-datasets", "org/old-*", date(2027, 1, 31), "retrained in January"),),
        targets={"banking.jsonl": TargetPolicy(3.0, 0.5)},
    )
    assert policy.target("data/banking.jsonl") == TargetPolicy(3.0, 0.5)
    assert policy.target("other.jsonl") == TargetPolicy()


def test_where_a_policy_is_looked_for(tmp_path):
    assert find_policy(RULES, tmp_path) == Policy()
    written(tmp_path, "[tool.other]\nx = 1\n", "pyproject.toml")
    assert find_policy(RULES, tmp_path) == Policy()
    written(tmp_path, '[tool.hubrank]\nfail-on = "note"\n', "pyproject.toml")
    assert find_policy(RULES, tmp_path).fail_on == "note"
    written(tmp_path, 'fail-on = "never"\n')
    assert find_policy(RULES, tmp_path).fail_on == "off"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('fail_on = "error"', ":1: 'fail_on': no such key; did you mean fail-on?"),
        ('[rules]\ncard-licence = "off"', ":2: [rules] 'card-licence': no such rule; did you mean card-license?"),
        ('[rules]\ncard-license = "fatal"', ":2: [rules] card-license is 'fatal'; levels are error, warning, note and off"),
        ('[rules]\nzzz = "off"', ":2: [rules] 'zzz': no such rule; docs/rules.md lists them"),
        ('fail-on = "sometimes"', ":1: fail-on is 'sometimes'; it takes error, warning, note or never"),
        ("[allow]\nlicense = []", ":2: [allow] 'license': no such key; did you mean licenses?"),
        ('[allow]\nlicenses = "mit"', ":2: [allow] licenses is 'mit', not a list of texts"),
        ('[[ignore]]\nrule = "weights"\nreason = "x"', ": [[ignore]] no. 1: until is missing"),
        ('[[ignore]]\nrule = "weights"\nreason = " "\nuntil = 2027-01-01', ":3: [[ignore]] no. 1: reason is empty"),
        ('[[ignore]]\nrule = "weight"\nreason = "x"\nuntil = 2027-01-01', "did you mean weights?"),
        ('[[ignore]]\nrule = "weights"\nreason = "x"\nuntil = "2027"', ":4: [[ignore]] no. 1: until is '2027', not a date"),
        ('[[ignore]]\nrule = "weights"\nwhy = "x"', "no such key; there is rule, adapter, until, reason"),
        ('[targets."a.jsonl"]\nmin_score = 3', "did you mean min-score?"),
        ('[targets."a.jsonl"]\nmin-score = nan', "min-score is nan, not a number"),
        ('[targets."a.jsonl"]\nmin-score = true', "min-score is True, not a number"),
        ("targets = 3", ":1: targets is 3, not a table"),
        ("ignore = 3", ":1: ignore is a list of tables"),
        ("x = ", "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)
def test_what_means_nothing_is_an_error_that_says_what_was_meant(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_policy(path, RULES)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_policy_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(tmp_path / "none.toml", RULES)
    with pytest.raises(InputError, match=r"has no \[tool.hubrank\]"):
        read_policy(written(tmp_path, "[tool]\n", "pyproject.toml"), RULES)


def checked(tmp_path, policy):
    folder = good_adapter(tmp_path / "org" / "old-one", card=card(without=["license", "datasets"]))
    return check([folder], cache_dir=tmp_path / "none", now=NOW, policy=policy, offline=True)


def test_levels_and_what_fails(tmp_path):
    report = checked(tmp_path, Policy())
    assert [(f.rule, f.level) for f in report.findings] == [("card-license", "warning"), ("card-datasets", "warning")]
    assert not report.failed
    assert checked(tmp_path, Policy(fail_on="warning")).failed
    strict = checked(tmp_path, Policy(levels={"card-license": "error", "card-datasets": "off"}))
    assert [f.rule for f in strict.failures] == ["card-license"]
    assert not checked(tmp_path, Policy(levels={"card-license": "error"}, fail_on="off")).failed


def test_exceptions_count_until_their_last_day_and_are_found_when_it_is_past(tmp_path):
    def ignoring(day, rule="card-license", adapter="org/old-*"):
        report = checked(tmp_path, Policy(ignores=(Ignore(rule, adapter, day, "known"),)))
        return {finding.rule for finding in report.findings}, report

    rules, report = ignoring(NOW.date())
    assert rules == {"card-datasets"}
    (suppressed,) = report.adapters[0].suppressed
    assert (suppressed.finding.rule, suppressed.reason, suppressed.until) == ("card-license", "known", "2026-11-24")
    rules, report = ignoring(date(2026, 11, 23))
    assert rules == {"card-license", "card-datasets", "ignore-expired"}
    assert "2026-11-23" in report.general[0].message
    assert ignoring(date(2027, 1, 1), adapter="org/other")[0] == {"card-license", "card-datasets", "ignore-unused"}
    assert ignoring(date(2027, 1, 1), rule="*")[0] == set()


def test_levels_are_ordered():
    assert reaches("error", "warning")
    assert reaches("note", "note")
    assert not reaches("note", "warning")
    assert not reaches("error", "off")
