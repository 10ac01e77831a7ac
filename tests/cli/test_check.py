"""``hubrank check``: exit codes, where things are printed, and what GitHub is told."""

from __future__ import annotations

import json

import pytest

from hubrank import check as callable_check
from hubrank.cli import run
from tests.builders import BASE
from tests.check.builders import card, good_adapter, make_zoo
from tests.check.test_formats import read_outputs


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def command(*words):
    return run(["check", "--cache-dir", "cache", *map(str, words)])


def test_a_good_adapter_passes_and_a_bad_one_does_not(tmp_path, capsys):
    folder = good_adapter(tmp_path / "org" / "mine")
    assert command(folder) == 0
    assert "nothing found" in capsys.readouterr().out
    (folder / "run.py").write_text("x")
    assert command(folder) == 1
    assert "code-files" in capsys.readouterr().out


def test_the_policy_of_the_folder_counts_and_another_can_be_named(tmp_path, capsys):
    folder = good_adapter(tmp_path / "org" / "mine", card=card(without=["license"]))
    assert command(folder) == 0
    (tmp_path / "hubrank.toml").write_text('[rules]\ncard-license = "error"\n')
    assert command(folder) == 1
    (tmp_path / "other.toml").write_text('[rules]\ncard-license = "off"\n')
    assert command(folder, "--policy", "other.toml") == 0
    (tmp_path / "hubrank.toml").write_text('[rules]\ncard-licence = "error"\n')
    capsys.readouterr()
    assert command(folder) == 3
    assert "hubrank.toml:2: [rules] 'card-licence': no such rule; did you mean card-license?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("nowhere",), 2),
        (("--since", "1d"), 2),
        (("org/repo",), 4),
        (("org/repo", "--offline"), 4),
        (("--new",), 5),
        (("--policy", "none.toml", "org/repo"), 3),
        (("--target", "none.jsonl"), 3),
    ],
)
def test_exit_codes(words, code, capsys):
    assert command(*words) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_target_that_is_not_there(tmp_path, capsys):
    make_zoo(tmp_path, 3)
    assert command("--new", "--target", "none.jsonl", "--base", BASE, "--offline") == 3


@pytest.mark.parametrize("style", ["json", "sarif"])
def test_stdout_is_parseable_with_progress_on(tmp_path, capsys, style):
    good_adapter(tmp_path / "org" / "mine")
    assert command("org", "--format", style) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert "reading org/mine" in captured.err


def test_newcomers_are_new_once(tmp_path, capsys):
    make_zoo(tmp_path, 2)
    assert command("--new", "--format", "json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["new"] == ["zoo/a0", "zoo/a1"]
    assert command("--new", "--format", "json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["new"] == []


def test_a_page_is_written(tmp_path, capsys):
    good_adapter(tmp_path / "org" / "mine")
    assert command("org", "--report", "page.html") == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "org/mine" in page
    assert command("org", "--report", "no/such/folder.html") == 2


def test_github_is_told_by_itself(tmp_path, monkeypatch, capsys):
    good_adapter(tmp_path / "org" / "mine", card=card(without=["license"]))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "summary").write_text("before\n")
    assert command("org") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("::warning file=org/mine/README.md,title=hubrank card-license::")
    assert (tmp_path / "summary").read_text().startswith("before\n## hubrank check")
    assert read_outputs((tmp_path / "outputs").read_text())["failed"] == "0"
    assert command("org", "--format", "json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert "::warning file=org/mine/README.md" in captured.err
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "no" / "outputs"))
    assert command("org") == 2


def test_the_library_function_and_its_room_have_one_name(tmp_path):
    import hubrank
    import hubrank.check.rules
    from hubrank import check

    folder = good_adapter(tmp_path / "org" / "mine")
    for function in (check, callable_check, hubrank.check):
        report = function([folder], cache_dir=tmp_path / "none", offline=True)
        assert not report.failed
        assert report.adapters[0].name == "org/mine"
