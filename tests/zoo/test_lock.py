"""One sync a cache at a time: the second says who is at work, or waits; a dead holder holds nothing; readers never wait."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hubrank.errors import StoreError, StoreLockedError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.lock import sync_lock
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.builders import make_source, random_signature, write_lora

ROOT = Path(__file__).parents[2]
HOLDER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from hubrank.zoo.lock import sync_lock
with sync_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.kill()


def test_the_second_says_who_is_at_work(holder, tmp_path):
    write_lora(tmp_path / "hub" / "org" / "a")
    with Zoo(tmp_path / "cache", create=True) as zoo:
        with pytest.raises(StoreLockedError, match=rf"process {holder.pid} on {platform.node()} \(since 2.*--wait"):
            sync_hubs(zoo, [FolderHub(tmp_path / "hub")], Query())
        assert zoo.sources() == []
        zoo.put(make_source(), random_signature(0))  # reading and single writes go on
        assert len(zoo.sources()) == 1


def test_the_second_waits_where_it_is_told_to(holder, tmp_path):
    write_lora(tmp_path / "hub" / "org" / "a")
    heard = []

    def on_wait(message: str) -> None:
        heard.append(message)
        holder.stdin.close()

    with Zoo(tmp_path / "cache", create=True) as zoo:
        assert sync_hubs(zoo, [FolderHub(tmp_path / "hub")], Query(), wait=True, on_wait=on_wait).added == 1
    assert len(heard) == 1
    assert f"process {holder.pid}" in heard[0]


def test_a_killed_holder_holds_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    assert (tmp_path / "cache" / "sync.json").exists()
    with sync_lock(tmp_path / "cache"):
        pass
    assert not (tmp_path / "cache" / "sync.json").exists()


@pytest.mark.parametrize("note", ["", "{}", '{"pid": "x"}', '{"pid": 1, "host": "h", "since": 1e99}', "[]"])
def test_a_note_that_says_nothing_is_no_fault(tmp_path, note):
    held = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with sync_lock(tmp_path):
            (tmp_path / "sync.json").write_text(note)
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held.wait(30)
        with pytest.raises(StoreLockedError, match="another process is changing"), sync_lock(tmp_path):
            pass
    finally:
        done.set()
        thread.join()


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), sync_lock(tmp_path):
        raise KeyError
    with sync_lock(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="--cache-dir"), sync_lock(tmp_path / "cache"):
        pass
