"""One module per kind of task: rows go in one by one, the columns of a :class:`hubrank.target.task.Target` come out."""

from __future__ import annotations

from hubrank.target.fields import FieldMap
from hubrank.target.tasks.choices import ChoiceRows
from hubrank.target.tasks.columns import Columns, RowCollector
from hubrank.target.tasks.generation import ChatRows, RewriteRows
from hubrank.target.tasks.labelled import LabelledRows
from hubrank.target.tasks.spans import SpanRows
from hubrank.target.tasks.tagging import TaggedRows

__all__ = ["Columns", "RowCollector", "collector"]


def collector(fields: FieldMap, *, typed: bool) -> RowCollector:
    """What collects the rows of a file.

    Args:
        typed: whether values have types of their own, or are all strings as in CSV.
    """
    match fields.task:
        case "classification" | "regression" | "multi-label":
            return LabelledRows(fields, typed=typed)
        case "multiple-choice":
            return ChoiceRows(fields)
        case "tagging":
            return TaggedRows(fields)
        case "qa":
            return SpanRows(fields)
        case "causal-lm" if "messages" in fields.names:
            return ChatRows(fields)
        case "causal-lm" | "seq2seq":
            return RewriteRows(fields)
