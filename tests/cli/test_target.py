"""``hubrank target`` as a user runs it."""

from __future__ import annotations

import json

from tests.cli.test_commands import EXAMPLES, complaint, hubrank

ROWS = "".join(json.dumps({"headline": f"text {i}", "desk": "ab"[i % 2]}) + "\n" for i in range(8))


def test_a_file_that_can_be_used(tmp_path):
    done = hubrank("target", EXAMPLES / "banking.jsonl", "--format", "json", cwd=tmp_path)
    value = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (value["task"], value["rows"], value["classes"], value["problems"]) == ("classification", 231, 76, [])
    assert list(tmp_path.iterdir()) == []


def test_stdin_and_fields(tmp_path):
    done = hubrank("target", "-", "--fields", "text=headline,label=desk", cwd=tmp_path, input=ROWS)
    assert done.returncode == 0, done.stderr
    assert "stdin" in done.stdout
    assert "text=headline, label=desk" in done.stdout


def test_a_file_that_cannot_be_used_is_shown_and_leaves_3(tmp_path):
    (tmp_path / "t.jsonl").write_text(ROWS.replace('"a"', "null", 1))
    done = hubrank("target", "t.jsonl", "--fields", "text=headline,label=desk", "-f", "json", cwd=tmp_path)
    assert complaint(done, 3) == 'hubrank: t.jsonl:1: "desk" is a null; a string or a number is expected'
    assert [problem["line"] for problem in json.loads(done.stdout)["problems"]] == [1, None]
    assert "only 7 rows" in done.stdout


def test_what_cannot_be_opened_or_is_no_option(tmp_path):
    assert "no such file" in complaint(hubrank("target", "nothing.csv", cwd=tmp_path), 3)
    assert "--task poetry" in complaint(hubrank("target", "-", "--task", "poetry", cwd=tmp_path, input=ROWS), 2)
    assert "no role" in complaint(hubrank("target", "-", "--fields", "words=a", cwd=tmp_path, input=ROWS), 2)


def test_search_takes_the_same_files_and_options(tmp_path):
    rows = "".join(json.dumps({"tokens": ["a", "b"], "tags": ["O", "B"]}) + "\n" for _ in range(8))
    (tmp_path / "tags.jsonl").write_text(rows)
    said = complaint(hubrank("search", "--target", "tags.jsonl", "--cache-dir", "none", cwd=tmp_path), 5)
    assert "the zoo is empty" in said  # the file was understood; there is nothing to compare it with
    (tmp_path / "t.jsonl").write_text(ROWS)
    done = hubrank("search", "-t", "t.jsonl", "--fields", "text=headline,label=desks", "--cache-dir", "none", cwd=tmp_path)
    assert 'no field "desks"' in complaint(done, 3)
