"""Memory while many are read at once: large adapters wait for room, small ones do not, and nothing waits for ever."""

from __future__ import annotations

import threading

import pytest

from hubrank.errors import AdapterError
from hubrank.zoo.held import Gate, HeldBundle
from tests.builders import MemoryBundle


class Counted(MemoryBundle):
    def read_ranges(self, name, ranges):
        return [self.read_range(name, start, stop) for start, stop in ranges]


def bundle(gate: Gate, **files: bytes) -> HeldBundle:
    return HeldBundle(Counted({name.replace("_", "."): data for name, data in files.items()}), gate)


def test_configs_and_cards_are_read_once_and_weights_each_time():
    held = bundle(Gate(), config_json=b"{}", README_md=b"card", weights_bin=b"12345")
    for _ in range(3):
        assert held.read("config.json", limit=10) == b"{}"
        assert held.read_range("README.md", 0, 4) == b"card"
        assert held.read("weights.bin", limit=10) == b"12345"
    assert [name for name, _, _ in held._bundle.reads].count("config.json") == 1
    assert [name for name, _, _ in held._bundle.reads].count("README.md") == 1
    assert held.touched == {"config.json", "README.md", "weights.bin"}
    with pytest.raises(AdapterError, match="too large"):
        held.read("config.json", limit=1)


def test_large_ones_wait_for_room_and_small_ones_do_not():
    gate = Gate(room=100, small=10)
    first = bundle(gate, a_bin=bytes(80))
    first.read("a.bin", limit=100)
    small = bundle(gate, a_bin=bytes(10))
    small.read("a.bin", limit=100)
    entered = threading.Event()
    second = bundle(gate, a_bin=bytes(50))

    def read() -> None:
        second.read_ranges("a.bin", [(0, 20), (20, 50)])
        entered.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert not entered.wait(0.05)
    first.release()
    assert entered.wait(30)
    thread.join()
    second.release()
    first.release()  # twice is no fault
    assert gate._held == 0


def test_one_that_is_larger_than_the_room_is_let_in_alone():
    gate = Gate(room=100, small=10)
    large = bundle(gate, a_bin=bytes(500))
    large.read("a.bin", limit=1000)
    large.read("a.bin", limit=1000)  # more of one that is inside never waits
    assert gate._held == 1000
    large.release()
    assert gate._held == 0
