"""Which rows a target is given, and which sources may not be tried on it, because they saw its texts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Row = Mapping[str, object]

ABOUT = frozenset({"absa_laptop", "absa_twitter", "tweet_stance", "metaphor_svo"})
"""Tasks whose text_pair is not a text but what the text is judged about (an aspect, a topic, a verb)."""

MOST_SHARED = 0.02
"""A source that saw more than this part of a target's rows is left out; fewer rows are left out instead."""

TEST_ROWS = 400


@dataclass(frozen=True, slots=True)
class Draw:
    """A target's rows.

    Attributes:
        rows, test: what the target is tuned and scored on; no text of them is in the training rows of an allowed source.
        left_out: task of each source that may not be tried, with the part of the target's rows that it saw.
    """

    rows: tuple[Row, ...]
    test: tuple[Row, ...]
    left_out: Mapping[str, float]


def normal(text: str) -> str:
    """A text without case, punctuation and spacing: tokenised and detokenised copies of a corpus are the same text."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def texts_of(row: Row, task: str) -> set[str]:
    """The texts of a row, normalised."""
    fields = ("text",) if task in ABOUT else ("text", "text_pair")
    return {normal(str(row[field])) for field in fields if row.get(field)}


def seen_by(rows: Iterable[Row], task: str) -> frozenset[str]:
    """All texts of a source's training rows."""
    return frozenset(text for row in rows for text in texts_of(row, task))


def draw(
    task: str, pool: list[Row], test: list[Row], seen: Mapping[str, frozenset[str]], *, wanted: int, tested: int = TEST_ROWS
) -> Draw:
    """Choose a target's rows.

    Args:
        pool: the rows to draw from; for a task that a source was trained on, a split that the source did not see.
        test: the rows to score on; the first ``tested`` of a shuffle are taken.
        seen: the texts that the source of each task was trained on.
        wanted: how many rows the target gets.

    Raises:
        ValueError: too few rows are left.
    """
    shares = {}
    for source, texts in seen.items():
        parts = [np.mean([bool(texts_of(row, task) & texts) for row in rows]) for rows in (pool, test)]
        shares[source] = float(max(parts))
    # Its own source stays whatever it shares (a corpus repeats itself); the repeated rows go.
    left_out = {source: share for source, share in shares.items() if share > MOST_SHARED and source != task}
    known = frozenset().union(*(texts for source, texts in seen.items() if source not in left_out))
    fixed = np.random.default_rng(zlib.crc32(task.encode()))  # hash() differs from process to process
    held = [row for row in (test[i] for i in fixed.permutation(len(test))) if not texts_of(row, task) & known][:tested]
    unseen = known | seen_by(held, task)
    rows = [row for row in (pool[i] for i in fixed.permutation(len(pool))) if not texts_of(row, task) & unseen][:wanted]
    if len(rows) < wanted:
        raise ValueError(f"{task}: {len(rows)} rows are left of {len(pool)}, {wanted} are wanted")
    return Draw(tuple(rows), tuple(held), left_out)
