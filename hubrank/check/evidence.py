"""What the rules judge: everything that was read of one adapter, and how it stands to the zoo. No rule reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hubrank.check.findings import Neighbour
from hubrank.types import Signature, Source

__all__ = ["BaseState", "Evidence", "Refusal", "Security", "Standing", "Twin", "TwinKind"]

TwinKind: TypeAlias = Literal["bytes", "function", "scaled"]
BaseState: TypeAlias = Literal["found", "missing", "unasked"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file, or the adapter as a whole, is not read: a short reason and its detail."""

    file: str | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Security:
    """What the Hub's own scanners say: (path, level) of each file with issues, and whether they are done."""

    done: bool
    issues: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Twin:
    """Another adapter that is the same: byte for byte, as a function, or as a function but for a scale.

    Attributes:
        checked: it is one of those checked with this one, and comes before it; else it is a source of the zoo.
    """

    name: str
    kind: TwinKind
    scale: float = 1.0
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How an adapter stands to the other sources of its base and method.

    Attributes:
        compared: how many they are.
        nearest: of those, nearest first.
        strength, usual: mean over sites of the Frobenius norm of the update: its own, and the median of the others.
        same_task: how many others have the task that its card names.
        same_task_rank: how near the nearest of those comes, from 1; None without one.
        misfits: sites whose shape is not the one that the others have there.
    """

    compared: int = 0
    nearest: tuple[Neighbour, ...] = ()
    twins: tuple[Twin, ...] = ()
    strength: float | None = None
    usual: float | None = None
    same_task: int = 0
    same_task_rank: int | None = None
    misfits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One adapter as it was read.

    Attributes:
        name: as findings call it.
        files: size by name of everything beside the adapter; None where it is judged from what the zoo keeps of it.
        folder: for an adapter on this disk, its folder as the user would write it.
        config: adapter_config.json, where there is one that can be read.
        front: the card's front matter; None where there is no card, or the zoo alone is asked.
        refusals: pickles that hold more than tensors.
        failure: why the adapter cannot be read as a whole.
        source, signature: where it could be read.
        zero_sites: sites that it names but does not change.
        hashes: sha256 of its weights file by name.
        base_state: whether the base model it names can be found; ``unasked`` where nobody could be asked.
        base_misfits: modules whose shape the base model's own contradicts.
    """

    name: str
    repo: str
    subfolder: str | None
    revision: str
    files: Mapping[str, int] | None = None
    folder: str | None = None
    config: Mapping[str, Any] | None = None
    front: Mapping[str, Any] | None = None
    refusals: tuple[Refusal, ...] = ()
    failure: Refusal | None = None
    source: Source | None = None
    signature: Signature | None = None
    zero_sites: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)
    security: Security | None = None
    base_state: BaseState = "unasked"
    base_misfits: tuple[str, ...] = ()
    standing: Standing = Standing()

    @property
    def whole(self) -> bool:
        """Whether the files themselves were looked at."""
        return self.files is not None
