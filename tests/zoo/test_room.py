"""Room that interrupts cannot lock: one is raised at every step of making room, and the next in line still gets in."""

from __future__ import annotations

import sys
import threading

import pytest

from hubrank.zoo.room import Room


class _At:
    """Raises KeyboardInterrupt at the nth instruction that Python runs, as a signal's handler would between two of them."""

    def __init__(self, step):
        self.left = step

    def __call__(self, frame, event, _):
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def interrupted(call, step):
    """Whether the call was interrupted at that step; else it was over before."""
    sys.settrace(_At(step))
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def still_works(give, take):
    thread = threading.Thread(target=lambda: (give(), take()), daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def steps(make, give, take):
    """At which steps of giving an interrupt leaves it stuck; and how many steps there are."""
    stuck, step = [], 0
    while True:
        one = make()
        if not interrupted(lambda: give(one), step):  # noqa: B023 -- called at once
            return stuck, step
        if not still_works(lambda: give(one), lambda: take(one)):  # noqa: B023
            return [step], step
        step += 1


def test_an_interrupt_at_any_step_leaves_room_for_the_next():
    stuck, count = steps(lambda: Room(1), Room.give, Room.take)
    assert stuck == []
    assert count > 2


def test_it_waits_where_there_is_none():
    room = Room(1)
    room.take()
    waiting = threading.Thread(target=room.take, daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    room.give()
    waiting.join(5)
    assert not waiting.is_alive()


def test_python_s_own_semaphore_does_get_stuck():
    """Else this room need not be."""
    if sys.version_info >= (3, 14):
        pytest.skip("not looked at there")
    stuck, _ = steps(lambda: threading.Semaphore(1), threading.Semaphore.release, threading.Semaphore.acquire)
    assert stuck
