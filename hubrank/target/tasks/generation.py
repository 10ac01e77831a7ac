"""Text to text (prompt and completion, source and target) and chats."""

from __future__ import annotations

from collections.abc import Mapping

from hubrank.checkpoints.card import plain
from hubrank.target.fields import FieldMap
from hubrank.target.problems import Problems, RowError
from hubrank.target.task import TaskKind, Turn
from hubrank.target.tasks.columns import Columns, Cut
from hubrank.target.values import encodable, kind_of, list_of, quoted, text_of

__all__ = ["ChatRows", "RewriteRows", "split_chat", "turns_of"]

_MOST_TURNS = 1_000
# Share-GPT's names, and those of the larger APIs.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
}
_KNOWN = ("system", "user", "assistant", "tool")


class RewriteRows:
    """Collects pairs of texts, the second of which is to be written."""

    def __init__(self, fields: FieldMap) -> None:
        self._task: TaskKind = fields.task
        first, second = ("prompt", "completion") if "completion" in fields.names else ("source", "target")
        self._roles = (first if first in fields.names else "instruction", second)
        self._first = fields.names.get(first)
        self._second = fields.names[second]
        self._input = fields.names.get("input")
        self._cut = Cut()
        self._chats: list[tuple[Turn, ...]] = []
        self._texts: list[str] = []
        self._outputs: list[str] = []
        self.lines: list[int] = []

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """See :class:`RowCollector`."""
        as_chat = self._task == "causal-lm" and self._first is not None and isinstance(row.get(self._first), list)
        if self._texts and as_chat != bool(self._chats):
            one, other = ("a list", "a text") if as_chat else ("a text", "a list")
            raise RowError(
                f"{quoted(self._first or self._second)} is {one} here, {other} in line {self.lines[0]}; use one form"
            )
        chat: tuple[Turn, ...] | None = None
        if as_chat and self._first is not None:
            turns = turns_of(row, self._first) + turns_of(row, self._second)
            text, output = split_chat(turns, self._second)
            chat = tuple(Turn(turn.role, self._cut(line, turn.content)) for turn in turns)
        else:
            text = text_of(row, self._first, role=self._roles[0]) if self._first is not None else ""
            if self._input is not None and row.get(self._input) not in (None, ""):
                text = f"{text}\n\n{text_of(row, self._input, role='input')}"
            output = text_of(row, self._second, role=self._roles[1])
        if chat is not None:
            self._chats.append(chat)
        self._texts.append(self._cut(line, text))
        self._outputs.append(self._cut(line, output))
        self.lines.append(line)

    def columns(self, problems: Problems) -> Columns:
        """See :class:`RowCollector`."""
        if self._outputs and len(set(self._outputs)) == 1:
            problems.fatal(f"{quoted(self._second)} is the same in every row; there is nothing to learn from it")
        return Columns(
            self._task,
            tuple(self._texts),
            outputs=tuple(self._outputs),
            chats=tuple(self._chats),
            notes=self._cut.notes,
        )


class ChatRows:
    """Collects conversations that an assistant takes part in."""

    def __init__(self, fields: FieldMap) -> None:
        self._messages = fields.names["messages"]
        self._cut = Cut()
        self._chats: list[tuple[Turn, ...]] = []
        self._texts: list[str] = []
        self._outputs: list[str] = []
        self.lines: list[int] = []

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """See :class:`RowCollector`."""
        turns = turns_of(row, self._messages)
        text, output = split_chat(turns, self._messages)
        while turns[-1].role != "assistant":
            turns.pop()
        self._chats.append(tuple(Turn(turn.role, self._cut(line, turn.content)) for turn in turns))
        self._texts.append(self._cut(line, text))
        self._outputs.append(self._cut(line, output))
        self.lines.append(line)

    def columns(self, problems: Problems) -> Columns:
        """See :class:`RowCollector`."""
        if self._outputs and len(set(self._outputs)) == 1:
            problems.fatal("the assistant says the same in every row; there is nothing to learn from it")
        return Columns(
            "causal-lm",
            tuple(self._texts),
            outputs=tuple(self._outputs),
            chats=tuple(self._chats),
            notes=self._cut.notes,
        )


def turns_of(row: Mapping[str, object], name: str) -> list[Turn]:
    """The messages of a field.

    Raises:
        RowError: it is no list of objects with a role and a text.
    """
    messages = list_of(row, name, role="messages")
    if len(messages) > _MOST_TURNS:
        raise RowError(f"{quoted(name)} has {len(messages)} messages; at most {_MOST_TURNS:,} are read")
    return [_turn(message, name, at) for at, message in enumerate(messages, 1)]


def _turn(message: object, name: str, at: int) -> Turn:
    where = f"{quoted(name)}: message {at}"
    if not isinstance(message, Mapping):
        raise RowError(f"{where} is a {kind_of(message)}; an object with role and content is expected")
    role = message.get("role", message.get("from"))
    known = _ROLES.get(role, role) if isinstance(role, str) else role
    if known not in _KNOWN:
        held = f'"{plain(role, 40)}"' if isinstance(role, str) else f"a {kind_of(role)}"
        raise RowError(f"{where}: the role is {held}; one of {', '.join(_KNOWN)} is expected")
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        content = "".join(part for part in parts if isinstance(part, str)) if all(isinstance(p, str) for p in parts) else None
    if content is None and known == "assistant" and "tool_calls" in message:
        content = ""
    if not isinstance(content, str):
        raise RowError(f"{where}: the content is a {kind_of(content)}; a text is expected")
    return Turn(str(known), encodable(content))


def split_chat(turns: list[Turn], name: str) -> tuple[str, str]:
    """(everything before the assistant's last turn as ``role: content`` lines, that turn).

    Raises:
        RowError: the assistant says nothing.
    """
    last = next((i for i in range(len(turns) - 1, -1, -1) if turns[i].role == "assistant"), None)
    if last is None or not turns[last].content.strip():
        raise RowError(f"{quoted(name)}: the assistant says nothing; a reply to learn from is expected")
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns[:last]), turns[last].content
