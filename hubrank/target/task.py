"""The user's task as the rows tell it: a :class:`Target`, one frozen object of columns whatever the task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

__all__ = ["MAX_CHARACTERS", "MAX_CONTEXT", "MIN_ROWS", "TASKS", "Answer", "Target", "TaskKind", "Turn"]

TaskKind: TypeAlias = Literal[
    "classification", "multi-label", "regression", "multiple-choice", "tagging", "qa", "causal-lm", "seq2seq"
]
TASKS: tuple[TaskKind, ...] = get_args(TaskKind)

MIN_ROWS = 8
"""Fewer rows than this say too little about a task to rank anything by."""

MAX_CHARACTERS = 20_000
"""Longer texts are cut here before they are tokenised: no base model reads further, and tokenising a megabyte is slow."""

MAX_CONTEXT = 1_000_000
"""Longer contexts of a question are refused: they are read by stride, whole, so cutting them would lose answers."""

_COLUMNS = ("texts", "pairs", "labels", "label_sets", "choices", "tokens", "tags", "answers", "outputs", "chats")
_HASHED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """A span of a context: ``context[start : start + len(text)] == text``."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat; ``role`` is ``system``, ``user``, ``assistant`` or ``tool``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Target:
    """The user's task: ``texts`` has one text a row whatever the task, and some of the other columns are filled, by task.

    ================  =====================  =================  ====================================================
    task              texts                  pairs              what is to be predicted
    ================  =====================  =================  ====================================================
    classification    the text               second text/None   ``labels``: index into ``classes``
    regression        the text               second text/None   ``labels``: the value
    multi-label       the text               second text/None   ``label_sets``: rising indices into ``classes``
    multiple-choice   the question           context/None       ``labels``: index into the row's ``choices``
    tagging           tokens, space between  None               ``tags``: index into ``classes`` for each of ``tokens``
    qa                the question           context            ``answers``: spans of the context; none: unanswerable
    causal-lm         the prompt             None               ``outputs``; ``chats`` too where the rows were messages
    seq2seq           the source             None               ``outputs``
    ================  =====================  =================  ====================================================

    Attributes:
        path: the file it came from, as the user wrote it; ``stdin`` for ``-``.
        sha256: of the rows as understood (task, columns, classes): the same rows in another format have the same.
        task: what is to be learnt.
        texts, pairs: what is read; cut at ``MAX_CHARACTERS``, the contexts of qa never.
        labels: one number a row for classification, regression and multiple-choice; else empty.
        classes: the class names in sorted order (integers by value); empty where there are no classes.
        notes: what was changed on the way in, one sentence each, to be told to the user once.
        label_sets, choices, tokens, tags, answers, outputs: one entry a row where the task has them, else empty.
        chats: the whole conversation of each row. Then ``texts`` is everything before the last assistant's turn as
            ``role: content`` lines and ``outputs`` that turn, for bases without a chat template.
        fields: (role, field of the file) for every field that was read.
        lines: where each row came from, from 1, for messages about single rows; a Parquet file's are its row numbers.
    """

    path: str
    sha256: str
    task: TaskKind
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...] | tuple[float, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    label_sets: tuple[tuple[int, ...], ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    tags: tuple[tuple[int, ...], ...] = ()
    answers: tuple[tuple[Answer, ...], ...] = ()
    outputs: tuple[str, ...] = ()
    chats: tuple[tuple[Turn, ...], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    lines: Sequence[int] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name

    def digest(self) -> str:
        """The sha256 of task, classes and columns, whatever ``sha256`` says; linear in the text."""
        hashed = hashlib.sha256(json.dumps([self.task, self.classes]).encode())
        for name in _COLUMNS:
            column = getattr(self, name) or ()
            hashed.update(f"{name} {len(column)}".encode())
            for start in range(0, len(column), _HASHED_AT_ONCE):
                part = column[start : start + _HASHED_AT_ONCE]
                hashed.update(json.dumps(part, default=astuple).encode())
        return hashed.hexdigest()
