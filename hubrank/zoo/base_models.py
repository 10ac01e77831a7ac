"""The base models that the adapters of one hub are read with: from this disk where they are there, else from the hub by ranges.

Each is opened once a sync, however many adapters ask for it and whatever came of it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubrank.checkpoints.base_hub import MAX_HEADERS, HubTensors
from hubrank.checkpoints.base_names import is_model_id
from hubrank.checkpoints.card import plain
from hubrank.errors import AdapterError, HubAnswerError
from hubrank.hubs.protocol import HoldsModels, Hub, Traffic

if TYPE_CHECKING:
    from hubrank.checkpoints.base_tensors import BaseTensors
    from hubrank.zoo.work import BaseProvider

__all__ = ["MAX_BASE", "MAX_BASES", "BaseModels"]

MAX_BASE = 512 * 1024**2
"""Bytes that are read of one base model in one sync: all of RoBERTa-base, or the vectors of any model. Only diff pruning needs
matrices, of which those that it changed."""
MAX_BASES = 2 * 1024**3
"""Bytes that are read of all base models in one sync of a hub, whatever adapters ask for."""


class BaseModels:
    """Finds the tensors of a base model for :func:`hubrank.zoo.work.work_on`; many threads' at once.

    Args:
        here: finds what is on this machine.
        hub: that the adapters are on; asked for what is not here, where it holds models too.
    """

    def __init__(self, here: BaseProvider | None, hub: Hub) -> None:
        self._here, self._hub = here, hub
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._spent: list[Traffic] = []

    def __call__(self, name: str) -> BaseTensors | None:
        """The tensors of a base model; None where there is nobody to ask.

        Raises:
            AdapterError: ``needs base``, and why it cannot be had.
            HubError: the hub does not answer.
        """
        found = self._here(name) if self._here is not None else None
        if found is not None or not isinstance(self._hub, HoldsModels):
            return found
        if not is_model_id(name):  # what a stranger wrote into a config becomes part of an address
            raise AdapterError("needs base", f"{plain(name, 80)!r} is no model's id", lasting=False)
        slot = self._slot(name)
        with slot.lock:
            if slot.why is not None:
                raise AdapterError("needs base", slot.why, lasting=False)
            if slot.tensors is None:
                slot.tensors = self._open(self._hub, name, slot)
            return slot.tensors

    @property
    def traffic(self) -> Traffic:
        """What reading base models has cost so far."""
        total = Traffic()
        with self._lock:
            for one in self._spent:
                total.add(one)
        return total

    def _open(self, hub: HoldsModels, name: str, slot: _Slot) -> HubTensors:
        def room() -> int:
            return min(MAX_BASE - slot.traffic.bytes_read, MAX_BASES - self.traffic.bytes_read)

        try:
            model = hub.open_model(name, slot.traffic)
            return HubTensors(model.listing, model.bundle, room=room)
        except HubAnswerError as error:
            slot.why = f"{plain(name, 120)} cannot be had from the Hub ({error.reason})"
        except AdapterError as error:
            slot.why = error.detail
        raise AdapterError("needs base", slot.why, lasting=False)

    def _slot(self, name: str) -> _Slot:
        with self._lock:
            slot = self._slots.get(name)
            if slot is None:
                slot = self._slots[name] = _Slot()
                self._spent.append(slot.traffic)
            self._slots.move_to_end(name)
            # Headers that were made to be large must not fill the memory: those asked for longest ago go.
            while len(self._slots) > 1 and sum(slot.headers for slot in self._slots.values()) > MAX_HEADERS:
                self._slots.popitem(last=False)
            return slot


@dataclass(slots=True)
class _Slot:
    """One base model: its tensors, or why they cannot be had, once somebody has asked."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    traffic: Traffic = field(default_factory=Traffic)
    tensors: HubTensors | None = None
    why: str | None = None

    @property
    def headers(self) -> int:
        return self.tensors.headers if self.tensors is not None else 0
