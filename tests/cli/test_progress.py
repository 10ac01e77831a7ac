"""Progress displays: a live line on a terminal, plain lines in a log, nothing when quiet, never a byte on stdout."""

from __future__ import annotations

import io

import pytest

from hubrank.cli.output import Output
from hubrank.cli.progress import SearchProgress, SyncProgress
from tests.cli.conftest import HOSTILE


class Clock:
    """Time that passes when told to."""

    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def on_a_terminal(monkeypatch, kind="xterm"):
    """Not a fixture: pytest puts its own stderr back between setting up and running a test."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_the_line_has_adapters_bytes_rate_time_left_and_skips():
    clock = Clock()
    progress = SyncProgress(Output(quiet=True), clock=clock)
    for i in range(9):
        progress.event(f"org/{i}", "added", bytes_read=2_000_000, total=40)
    clock.now += 5
    progress.event("org/bad", "skipped", "not finite", total=40)
    assert progress.line() == "10 of 40 adapters, 18.0 MB, 3.6 MB/s, 15 s left, 1 skipped"


def test_without_a_total_there_is_no_time_left():
    clock = Clock()
    progress = SyncProgress(Output(quiet=True), clock=clock)
    progress.event("org/one", "unchanged")
    clock.now += 2
    assert progress.line() == "1 adapters, 0 bytes, 0 bytes/s"


def test_a_log_gets_a_line_every_ten_seconds(capsys):
    clock = Clock()
    with SyncProgress(Output(), clock=clock) as progress:
        for i in range(60):
            clock.now += 1
            progress.event(f"org/{i}", "added", bytes_read=1000, total=60)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.partition(",")[0] for line in printed.err.splitlines()] == [f"{n} of 60 adapters" for n in range(10, 61, 10)]
    assert "\x1b" not in printed.err


def test_quiet_is_quiet_and_verbose_names_skips(capsys):
    clock = Clock()
    with SyncProgress(Output(quiet=True), clock=clock) as progress:
        clock.now += 100
        progress.event("org/one", "added")
        progress.event("org/bad", "skipped", "not finite")
    assert capsys.readouterr() == ("", "")
    with SyncProgress(Output(verbose=True), clock=clock) as progress:
        progress.event(HOSTILE, "skipped", "not finite: x")
    said = capsys.readouterr().err
    assert "not finite: x" in said
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


def test_a_terminal_gets_a_live_line_and_skips_above_it(monkeypatch, capsys):
    terminal = on_a_terminal(monkeypatch)
    with SyncProgress(Output(verbose=True)) as progress:
        progress.event("org/one", "added", bytes_read=1_500_000, total=3)
        progress.event("org/[red]bad\x1b]0;owned\x07", "skipped", "not finite", total=3)
        assert progress._progress is not None
        progress._progress.refresh()
    shown = terminal.getvalue()
    assert "2 of 3 adapters, 1.5 MB" in shown
    assert "skipped org/[red]bad" in shown
    assert "\x1b]0;" not in shown
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["dumb", "xterm"])
def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch, name):
    terminal = on_a_terminal(monkeypatch, name)
    with SearchProgress(Output()) as progress:
        progress.stage("loading org/base")
        progress.step(1, 2)
    # Drawing a line anew takes an escape code; saying it does not.
    assert ("\x1b[2K" in terminal.getvalue()) is (name == "xterm")
    assert "loading org/base" in terminal.getvalue()


def test_a_log_that_asks_for_colours_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with SyncProgress(Output()) as progress:
        progress.event("org/one", "added")
        assert progress._progress is None
    assert capsys.readouterr().err == ""


def test_what_is_kept():
    progress = SyncProgress(Output(quiet=True))
    assert progress.kept().startswith("nothing new;")
    for outcome in ("added", "added", "updated", "unchanged", "skipped"):
        progress.event("org/one", outcome)
    assert progress.kept().startswith("2 added and 1 updated;")
