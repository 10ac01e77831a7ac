"""Everything that hubrank raises on purpose, and the exit code each means.

::

    HubrankError                 70  (never raised bare: a bare one is a bug)
    +-- UsageError                2  the command line or an argument of the library is wrong
    +-- InputError                3  a file the user or a hub gave us is not what it should be
    |   +-- TargetError           3  the target file; carries the path and the line
    |   +-- BaseModelError        3  the base model cannot be had or cannot be used
    |   +-- AdapterError          3  one adapter; carries a short reason that sync counts
    +-- HubError                  4  a hub is unreachable, refuses, or limits our rate
    |   +-- HubAnswerError        4  one request was refused, or failed however often it was repeated
    |   +-- HubStoppedError       4  we were told to stop, and asked nothing more


    |   +-- SyncIncompleteError   4  some hub did not answer to the end; carries the report of what was done
    +-- StoreError                5  the zoo's store cannot do what was asked
        +-- StoreDamagedError     5  it holds something that hubrank did not write
        +-- StoreLockedError      5  another process holds it
        +-- EmptyZooError         5  it holds no source that could be compared

A message is one line that says what is wrong, where, and the way out. Nothing in the package catches ``Exception``
except :mod:`hubrank.cli`, which turns what it catches into such a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubrank.types import SyncReport

__all__ = [
    "AdapterError",
    "BaseModelError",
    "EmptyZooError",
    "HubAnswerError",
    "HubError",
    "HubStoppedError",
    "HubrankError",
    "InputError",
    "StoreDamagedError",
    "StoreError",
    "StoreLockedError",
    "SyncIncompleteError",
    "TargetError",
    "UsageError",
]


class HubrankError(Exception):
    """Root of the tree. ``exit_code`` is what the command line leaves with."""

    exit_code = 70


class UsageError(HubrankError):
    """An argument is wrong, whatever the files and hubs hold."""

    exit_code = 2


class InputError(HubrankError):
    """A file is not what it should be."""

    exit_code = 3


class TargetError(InputError):
    """The target file cannot be used. The message starts with ``path`` and, where there is one, the ``line`` (from 1)."""

    def __init__(self, path: str | Path, message: str, *, line: int | None = None) -> None:
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {message}")
        self.path = str(path)
        self.line = line
        self.message = message


class BaseModelError(InputError):
    """The base model is unknown, incomplete, or of a kind that cannot be tuned here."""


class AdapterError(InputError):
    """One adapter cannot become a signature.

    ``reason`` is one of a small set of short phrases ("not finite", "shape mismatch"): sync counts skips by it. ``lasting``
    says that the same files will fail the same way again; a gated repository may be open tomorrow.
    """

    def __init__(self, reason: str, detail: str, *, lasting: bool = True) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.lasting = lasting


class HubError(HubrankError):
    """A hub is unreachable, refuses us, or limits our rate."""

    exit_code = 4


class HubAnswerError(HubError):
    """One request came to nothing; the hub itself may be well.

    ``reason`` is a short phrase: ``not found``, ``file missing``, ``gated``, ``disabled``, ``refused``, ``file too large``,
    ``rate limited`` and ``hub fault`` (repeated in vain), ``bad answer`` (what came cannot be used). ``status`` is that of the
    last answer, 0 where none came.
    """

    def __init__(self, reason: str, detail: str, status: int = 0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return HubAnswerError, (self.reason, self.detail, self.status)  # of the message alone it could not be made again


class HubStoppedError(HubError):
    """Somebody asked us to stop: every wait ends, and no further request is made."""


class SyncIncompleteError(HubError):
    """A sync went through, but some hub did not answer to the end. ``report`` says what was done, and which hubs failed."""

    def __init__(self, message: str, report: SyncReport) -> None:
        super().__init__(message)
        self.report = report


class StoreError(HubrankError):
    """The zoo's store cannot do what was asked (no space, no permission)."""

    exit_code = 5


class StoreDamagedError(StoreError):
    """The store holds something that hubrank did not write, or no longer can read."""


class StoreLockedError(StoreError):
    """Another process holds the store."""


class EmptyZooError(StoreError):
    """The zoo holds no source that could be compared with the target."""
