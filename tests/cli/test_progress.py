"""Progress displays: a live line on a terminal, plain lines in a log, nothing when quiet, never a byte on stdout."""

from __future__ import annotations

import io

import pytest

from hubrank.cli.output import Output
from hubrank.cli.progress import SearchProgress, SyncProgress
from hubrank.zoo.sync import Event
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


def seen(outcome="added", name="org/one", detail="", *, n=0, listed=0, complete=True, hub="hf"):
    return Event(name, outcome, detail, bytes_read=n, hub=hub, listed=listed, complete=complete)


def test_the_line_has_adapters_bytes_rate_time_left_and_skips():
    clock = Clock()
    progress = SyncProgress(Output(quiet=True), clock=clock)
    for _ in range(9):
        progress.event(seen(n=2_000_000, listed=40))
    clock.now += 5
    progress.event(seen("skipped", listed=40))
    assert progress.line() == "10 of 40 adapters, 18.0 MB, 3.6 MB/s, 15 s left, 1 skipped"


def test_while_a_hub_still_lists_there_is_no_time_left():
    clock = Clock()
    progress = SyncProgress(Output(quiet=True), clock=clock)
    progress.event(seen("unchanged", listed=1000, complete=False))
    clock.now += 2
    assert progress.line() == "1 of 1,000 or more adapters, 0 bytes, 0 bytes/s"


def test_adapters_of_several_hubs_add_up():
    clock = Clock()
    progress = SyncProgress(Output(quiet=True), clock=clock)
    progress.event(seen(hub="hf", listed=10))
    progress.event(seen(hub="folder:/x", listed=5))
    clock.now += 2
    assert progress.line().startswith("2 of 15 adapters")


def test_a_log_gets_a_line_every_ten_seconds(capsys):
    clock = Clock()
    with SyncProgress(Output(), clock=clock) as progress:
        for _ in range(60):
            clock.now += 1
            progress.event(seen(listed=60))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.partition(",")[0] for line in printed.err.splitlines()] == [f"{n} of 60 adapters" for n in range(10, 61, 10)]
    assert "\x1b" not in printed.err


def test_quiet_is_quiet_and_verbose_names_skips(capsys):
    clock = Clock()
    with SyncProgress(Output(quiet=True), clock=clock) as progress:
        clock.now += 100
        progress.event(seen())
        progress.event(seen("skipped", detail="not finite"))
    assert capsys.readouterr() == ("", "")
    with SyncProgress(Output(verbose=True), clock=clock) as progress:
        progress.event(seen("skipped", HOSTILE, "not finite: x"))
    said = capsys.readouterr().err
    assert "not finite: x" in said
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


def test_a_terminal_gets_a_live_line_and_skips_above_it(monkeypatch, capsys):
    terminal = on_a_terminal(monkeypatch)
    with SyncProgress(Output(verbose=True)) as progress:
        progress.event(seen(n=1_500_000, listed=3))
        progress.event(seen("skipped", "org/[red]bad\x1b]0;owned\x07", "not finite", listed=3))
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
        progress.event(seen())
        assert progress._progress is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_live_line_fits_the_terminal(monkeypatch, width):
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(width))
    with SyncProgress(Output()) as progress:
        progress.event(seen(name="org/" + "x" * 100, listed=3))
        progress._progress.refresh()
        line = progress._progress.tasks[0].description
    shown = terminal.getvalue()
    # The spinner (and on a wide terminal the bar) is still there beside the line, of which nothing was cut away.
    assert line in shown
    assert len(line) + 2 + (17 if width >= 100 else 0) <= width
    assert ("xxxx" in line) is (width >= 80)


def test_what_is_kept():
    progress = SyncProgress(Output(quiet=True))
    assert progress.kept().startswith("kept: nothing new;")
    for outcome in ("added", "added", "updated", "unchanged", "skipped"):
        progress.event(seen(outcome))
    assert progress.kept().startswith("kept: 2 added and 1 updated;")
