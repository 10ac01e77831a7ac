"""What CI reads fits its schemas, keeps its limits, and takes no orders from strangers."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from hubrank import check
from hubrank.check.findings import CheckReport, Finding, Judged
from hubrank.check.policy import Ignore, Policy
from hubrank.check.rules import RULES
from hubrank.report.annotations import (
    SUMMARY_BYTES,
    github_annotations,
    github_outputs,
    github_summary,
    outputs_text,
)
from hubrank.report.check_page import check_page
from hubrank.report.checking import check_csv, check_json, check_markdown, check_table
from hubrank.report.inert import inert, workflow_message, workflow_property
from hubrank.report.junit import check_junit
from hubrank.report.sarif import check_sarif
from tests.check.builders import HOSTILE, NOW, card, good_adapter, hostile_report

SCHEMAS = Path(__file__).parent / "schemas"
SARIF = jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text()))
JUNIT = xmlschema.XMLSchema(SCHEMAS / "junit-10.xsd")


@pytest.fixture
def report(tmp_path):
    """A real check: one good adapter, one with several faults, one of them accepted."""
    good_adapter(tmp_path / "org" / "good")
    bad = good_adapter(tmp_path / "org" / "bad", card=card(without=["license", "datasets", "language"]), seed=2)
    (bad / "run.py").write_text("x")
    policy = Policy(ignores=(Ignore("card-datasets", "org/bad", NOW.date(), "known"),))
    return check([tmp_path / "org"], cache_dir=tmp_path / "none", now=NOW, policy=policy, offline=True)


def rendered(report: CheckReport) -> str:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, markup=False, highlight=False, emoji=False)
    for part in check_table(report, verbose=True):
        console.print(part)
    return out.getvalue()


def test_sarif_is_sarif(report):
    value = json.loads(check_sarif(report))
    SARIF.validate(value)
    (run,) = value["runs"]
    found = {(result["ruleId"], "suppressions" in result) for result in run["results"]}
    assert found == {("code-files", False), ("card-license", False), ("card-language", False), ("card-datasets", True)}
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    first = next(result for result in run["results"] if result["ruleId"] == "code-files")
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("/org/bad/run.py")


def test_junit_is_junit(report):
    text = check_junit(report)
    JUNIT.validate(text)
    suites = ET.fromstring(text)
    assert [suite.get("name") for suite in suites] == ["org/bad", "org/good"]
    bad, good = suites
    assert (bad.get("failures"), good.get("failures")) == ("1", "0")
    assert [case.get("name") for case in bad if case.find("failure") is not None] == ["code-files"]
    assert [case.get("name") for case in bad if case.find("system-out") is not None] == ["card-license", "card-language"]
    assert int(suites.get("tests")) == len(bad) + len(good)


def test_a_check_without_adapters_is_valid_everywhere():
    empty = CheckReport((), started="2026-11-24T02:00:00+00:00")
    SARIF.validate(json.loads(check_sarif(empty)))
    JUNIT.validate(check_junit(empty))
    assert json.loads(check_json(empty))["failed"] is False
    assert "0 adapters checked" in rendered(empty)


def test_json_says_what_was_found(report):
    value = json.loads(check_json(report))
    bad, good = value["adapters"]
    assert value["failed"] is True
    assert value["counts"] == {"error": 1, "warning": 1, "note": 1}
    assert good["findings"] == []
    assert {finding["rule"] for finding in bad["findings"]} == {"code-files", "card-license", "card-language"}
    assert bad["ignored"][0]["reason"] == "known"


def test_table_markdown_and_csv_say_it_too(report):
    for text in (rendered(report), check_markdown(report), check_csv(report)):
        assert "code-files" in text
        assert "card-datasets" not in text
    assert "the check failed" in rendered(report)
    assert len(list(csv.reader(io.StringIO(check_csv(report))))) == 4


def test_annotations_name_the_file(report, monkeypatch, tmp_path):
    lines = github_annotations(report).splitlines()
    assert lines[0].startswith("::error file=")
    assert "org/bad/run.py,title=hubrank code-files::org/bad: " in lines[0]
    assert [line.split()[0] for line in lines[:3]] == ["::error", "::warning", "::notice"]
    assert not lines[3].startswith("::")


def test_annotations_of_a_folder_below_are_written_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (good_adapter(tmp_path / "org" / "bad") / "run.py").write_text("x")
    found = check(["org"], cache_dir=tmp_path / "none", now=NOW, policy=Policy(), offline=True)
    assert github_annotations(found).startswith("::error file=org/bad/run.py,")


COMMAND = re.compile(r"^\s*::|##\[", re.MULTILINE)
# Of control characters a text may hold line ends alone; none that hide, turn round or escape.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("style", [check_json, check_sarif, check_junit, check_markdown, check_csv, rendered])
def test_no_format_gives_a_runner_or_a_terminal_orders(style, kind):
    report = hostile_report(HOSTILE[kind])
    text = style(report)
    assert not COMMAND.search(text)
    # Colours are rich's own: nothing of the adapter's text begins an escape.
    assert not CONTROL.search(re.sub("\x1b\\[[0-9;]*m", "", text) if style is rendered else text)
    assert "##vso[" not in text or style is not rendered or kind == "legacy"


@pytest.mark.parametrize("kind", HOSTILE)
def test_json_and_sarif_read_back(kind):
    report = hostile_report(HOSTILE[kind])
    assert json.loads(check_json(report))["adapters"][0]["adapter"] == HOSTILE[kind]
    SARIF.validate(json.loads(check_sarif(report)))


@pytest.mark.parametrize("kind", HOSTILE)
def test_junit_stays_well_formed(kind):
    text = check_junit(hostile_report(HOSTILE[kind]))
    JUNIT.validate(text)
    assert {element.tag for element in ET.fromstring(text).iter()} <= {
        *("testsuites", "testsuite", "testcase", "failure", "system-out")
    }


@pytest.mark.parametrize("kind", HOSTILE)
def test_annotations_are_our_own_commands_alone(kind):
    lines = github_annotations(hostile_report(HOSTILE[kind])).split("\n")
    assert len(lines) == 3
    for line, command in zip(lines, ("::error ", "::notice ", ""), strict=True):
        assert line.startswith(command)
        # After its own, no command and no end of a property is left in a line.
        properties, _, message = line.removeprefix(command).partition("::") if command else ("", "", line)
        assert [part.split("=")[0] for part in properties.split(",") if part] == (["file", "title"] if command else [])
        assert "::" not in message
        assert not COMMAND.search(message)
        assert not CONTROL.search(line)


@pytest.mark.parametrize("kind", HOSTILE)
def test_markdown_and_summary_hold_no_markup_of_strangers(kind):
    for text in (check_markdown(hostile_report(HOSTILE[kind])), github_summary(hostile_report(HOSTILE[kind]))):
        unescaped = re.sub(r"\\.", "", text)
        body = "\n".join(line for line in unescaped.splitlines() if line.startswith("|"))
        assert "<" not in body
        assert "](" not in unescaped
        assert "`" not in unescaped
        widths = {line.count("|") for line in body.splitlines()}
        assert widths <= {6}


@pytest.mark.parametrize("kind", HOSTILE)
def test_csv_holds_no_formula(kind):
    rows = list(csv.reader(io.StringIO(check_csv(hostile_report(HOSTILE[kind])))))
    assert {len(row) for row in rows} == {6}
    assert not any(cell[:1] in ("=", "+", "-", "@", "\t", "\r") for row in rows for cell in row)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("kind", HOSTILE)
def test_pages_hold_no_tag_of_strangers(kind):
    document = check_page(hostile_report(HOSTILE[kind]), None, command=HOSTILE[kind], versions=[("x", HOSTILE[kind])])
    parsed, plain = Tags(), Tags()
    parsed.feed(document)
    plain.feed(check_page(hostile_report("plain"), None, command="plain", versions=[("x", "plain")]))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in plain.tags]
    assert not any(name.startswith("on") or name == "style" for _, attributes in parsed.tags for name in attributes)
    assert not CONTROL.search(document)


@pytest.mark.parametrize("kind", HOSTILE)
def test_outputs_keep_to_their_names(kind):
    outputs = github_outputs(hostile_report(HOSTILE[kind]))
    assert read_outputs(outputs_text(outputs)) == outputs
    assert set(outputs) == {"new", "failed", "best_source", "best_score"}
    assert outputs["best_score"] == "3.2000"
    assert "\n" not in outputs["best_source"]


def read_outputs(text: str) -> dict[str, str]:
    """GITHUB_OUTPUT as GitHub reads it."""
    out, lines = {}, iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        name, _, delimiter = line.partition("<<")
        value = []
        for inner in lines:
            if inner == delimiter:
                break
            value.append(inner)
        out[name] = "\n".join(value)
    return out


@given(st.dictionaries(st.sampled_from(["new", "failed", "x"]), st.text(st.characters(exclude_characters="\r"))))
def test_outputs_read_back_whatever_they_hold(outputs):
    assert read_outputs(outputs_text(outputs)) == outputs


@given(st.text())
def test_inert_text_is_never_a_command(text):
    for made in (inert(text), workflow_message(text), workflow_property(text)):
        assert not COMMAND.search(made)
        assert "\n" not in made
        assert "\r" not in made
    assert not {":", ","} & set(workflow_property(text))


def test_a_summary_is_cut_to_what_github_takes():
    finding = Finding("weights", "error", "org/x", "é" * 200, "publish them")
    many = CheckReport(tuple(Judged(f"org/{i}", "", None, None, None, (finding,)) for i in range(5000)))
    text = github_summary(many)
    assert SUMMARY_BYTES - 2000 < len(text.encode()) <= SUMMARY_BYTES
    assert text.endswith("(cut: the whole report is in the job's log)\n")
    assert github_summary(many, room=10) == ""
    small = replace(many, adapters=many.adapters[:2])
    assert "cut:" not in github_summary(small)


def test_rules_are_documented_as_they_are():
    from hubrank.report.rule_pages import rules_markdown

    page = Path(__file__).parents[2] / "docs" / "rules.md"
    assert page.read_text("utf-8") == rules_markdown(), "stale: run `python docs/render_rules.py`"
    for rule in RULES:
        assert f"### {rule}\n" in rules_markdown()
