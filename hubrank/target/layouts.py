"""The names that people give their fields, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hubrank.target.task import TaskKind

__all__ = ["LAYOUTS", "NUMBERED_CHOICES", "PAIRS", "ROLES", "Layout"]

# The first of a row of names is the role's own and wins wherever it is there; of the others only one may be.
_SINGLES = (
    *("text", "sentence", "content", "utterance", "query", "review", "tweet", "comment", "comment_text", "passage"),
    *("question",),
)
PAIRS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("sentence_A", "sentence_B"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
)
_LABELS = (
    *("label", "labels", "score", "intent", "category", "class", "sentiment", "emotion", "topic", "rating", "stars"),
    *("similarity", "similarity_score", "relatedness_score", "gold_label"),
)
_QUESTIONS = (
    "question",
    "question_stem",
    "stem",
    "ctx",
    "startphrase",
    "goal",
    "premise",
    "sentence",
    "prompt",
    "query",
    "text",
)
_CONTEXTS = ("context", "article", "passage", "premise", "paragraph", "document", "support")
_CHOICES = ("choices", "options", "endings", "candidates", "answers")
_RIGHT = ("label", "answer", "answerKey", "answer_key", "correct", "correct_answer", "gold", "answer_idx")
NUMBERED_CHOICES = ("choice", "option", "ending", "sol", "answer")
"""Choices may also be columns of their own: ``choice1``, ``choice2``, or ``A``, ``B``, ``C``."""
_TAGS = ("tags", "ner_tags", "pos_tags", "chunk_tags", "labels", "upos", "ner", "pos")
_MESSAGES = ("messages", "conversations", "conversation", "chat", "dialog")
_COMPLETIONS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "chosen"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("input", "output"),
    ("question", "answer"),
)
_REWRITES = (
    ("source", "target"),
    ("src", "tgt"),
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("input_text", "target_text"),
    ("input", "target"),
    ("input", "output"),
    ("question", "answer"),
)
_REWRITES_WHEN_ASKED = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay a task out in fields.

    Attributes:
        task: ``classification`` stands for regression and multi-label, too: what it is, the labels say.
        required: names by role; each role must be there.
        optional: names by role that are used where they are there.
        asked: only where the user says the task.
    """

    task: TaskKind
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asked: bool = False


def _layouts() -> tuple[Layout, ...]:
    found = [Layout("classification", {"text": (a,), "text_pair": (b,), "label": _LABELS}) for a, b in PAIRS]
    found.append(Layout("classification", {"text": _SINGLES, "label": _LABELS}))
    choice = {"question": _QUESTIONS, "choices": _CHOICES, "label": _RIGHT}
    found.append(Layout("multiple-choice", choice, {"context": _CONTEXTS}))
    found.append(Layout("tagging", {"tokens": ("tokens", "words"), "tags": _TAGS}))
    span = {
        "question": ("question", "query"),
        "context": ("context", "passage", "paragraph", "document", "article"),
        "answers": ("answers", "answer", "answer_text"),
    }
    found.append(Layout("qa", span, {"answer_start": ("answer_start",), "is_impossible": ("is_impossible",)}))
    found.append(Layout("causal-lm", {"messages": _MESSAGES}))
    for a, b in _COMPLETIONS:
        extra = {"input": ("input",)} if a == "instruction" else {}
        found.append(Layout("causal-lm", {"prompt": (a,), "completion": (b,)}, extra))
    found.append(Layout("causal-lm", {"completion": ("text", "content")}, asked=True))
    found += [Layout("seq2seq", {"source": (a,), "target": (b,)}) for a, b in _REWRITES]
    found += [Layout("seq2seq", {"source": (a,), "target": (b,)}, asked=True) for a, b in _REWRITES_WHEN_ASKED]
    return tuple(found)


LAYOUTS = _layouts()
ROLES = tuple(dict.fromkeys(role for layout in LAYOUTS for role in (*layout.required, *layout.optional)))
