"""Which field plays which role, and so which task it is: from the names in the first rows, or as the user says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubrank.checkpoints.card import plain
from hubrank.errors import UsageError
from hubrank.target.layouts import LAYOUTS, NUMBERED_CHOICES, PAIRS, ROLES, Layout
from hubrank.target.problems import RowError
from hubrank.target.task import TASKS, TaskKind
from hubrank.target.values import names_of, quoted

__all__ = ["FieldMap", "chosen_task", "field_map", "parse_fields", "resolved"]

_LABELLED = ("classification", "regression", "multi-label")
_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class FieldMap:
    """What the rows are read as.

    Attributes:
        task: ``classification`` where the labels are still to say which of the three it is.
        asked: whether the user said so.
        names: field by role; ``a.b`` reaches into an object and ``a+b`` joins fields into a list.
        unused: fields that play no role.
        absent: fields that would be a second text, but that most rows do not have.
    """

    task: TaskKind
    asked: bool
    names: Mapping[str, str]
    unused: tuple[str, ...]
    absent: tuple[str, ...]


def parse_fields(text: str) -> dict[str, str]:
    """``text=headline,label=class`` as a mapping; ``text_pair=`` says that there is none.

    Raises:
        UsageError: it is not of that form, or no role is called so.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        role, equals, name = part.partition("=")
        if not equals:
            raise UsageError(f'--fields {text}: "{part}" is not ROLE=FIELD, as in text=headline,label=class')
        if role.strip() in found:
            raise UsageError(f"--fields {text}: {role.strip()} is there twice")
        found[role.strip()] = name.strip()
    return _checked(found)


def chosen_task(task: str | None) -> TaskKind | None:
    """The task that the user named.

    Raises:
        UsageError: there is no such task.
    """
    for known in TASKS:
        if task == known:
            return known
    if task is not None:
        raise UsageError(f"--task {task}: there is {', '.join(TASKS)}")
    return None


def field_map(rows: Sequence[Mapping[str, object]], task: TaskKind | None, given: Mapping[str, str]) -> FieldMap:
    """How to read a file whose first rows are these (at least one).

    A field counts where at least half of the rows have it, a second text where as many fill it. Of the layouts that fit,
    one whose fields are all part of another's is left out; what remains must be of one task.

    Raises:
        RowError: no layout fits, or several tasks do.
        UsageError: no role is called as one of those given.
    """
    given = _checked(dict(given))
    names = _usual_names(rows)
    for name in given.values():
        if name and not any(_reaches(row, part) for part in name.split("+") for row in rows):
            raise RowError(f"--fields: no field {quoted(name)}; fields found: {names_of(rows[0])}")
    layouts = [layout for layout in LAYOUTS if _asked_for(layout, task, given)]
    fits = [fit for layout in layouts if (fit := _fit(layout, names, given)) is not None]
    used = [frozenset(fit.names.values()) for fit in fits]
    fits = [fit for fit, mine in zip(fits, used, strict=True) if not any(mine < other for other in used)]
    if not fits:
        raise RowError(_nothing_fits(rows, layouts, names, given, task))
    by_task = {fit.task: fit for fit in reversed(fits)}
    if len(by_task) > 1:
        shown = [f"{fit.task} ({', '.join(plain(name, 40) for name in fit.names.values())})" for fit in by_task.values()]
        raise RowError(f"could be {' or '.join(reversed(shown))}; say which with --task {fits[0].task}, or another")
    if fits[0].unclear is not None:
        raise RowError(fits[0].unclear)
    found = fits[0].names
    taken = {part.partition(".")[0] for name in found.values() for part in (name, *name.split("+"))}
    single = "text_pair" not in {*found, *given}
    absent = tuple(second for first, second in PAIRS if single and found.get("text") == first and second not in taken)
    return FieldMap(task or fits[0].task, task is not None, found, tuple(sorted(names.there - taken)), absent)


def resolved(row: dict[str, object], names: Sequence[str]) -> dict[str, object]:
    """A row with ``a.b`` and ``a+b`` as fields of their own; only for names that have such parts."""
    out = dict(row)
    for name in names:
        if name in row:
            continue
        if "+" in name:
            parts = [_reached(row, part) for part in name.split("+") if _reaches(row, part)]
            # Choices may be fewer in some rows of a table.
            out[name] = [part for part in parts if part not in (None, "")]
        elif _reaches(row, name):
            out[name] = _reached(row, name)
    return out


@dataclass(frozen=True, slots=True)
class _Names:
    """Fields that at least half of the rows have, that at least half fill, and that any row has."""

    usual: frozenset[str]
    filled: frozenset[str]
    there: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Fit:
    """A layout that fits: field by role, and what is unclear about that."""

    task: TaskKind
    names: dict[str, str]
    unclear: str | None


def _usual_names(rows: Sequence[Mapping[str, object]]) -> _Names:
    held = Counter(name for row in rows for name, value in row.items() if value is not None)
    there = Counter(name for row in rows for name in row)
    # Where a null means something: a question without an answer.
    usual = {name for name, n in there.items() if 2 * n >= len(rows) and (held[name] or name.startswith("answer"))}
    full = Counter(name for row in rows for name, value in row.items() if value is not None and value != "")
    filled = frozenset(name for name, n in full.items() if 2 * n >= len(rows))
    return _Names(frozenset(usual), filled, frozenset(there))


def _asked_for(layout: Layout, task: TaskKind | None, given: Mapping[str, str]) -> bool:
    wanted = "classification" if task in _LABELLED else task
    if layout.task != wanted if wanted is not None else layout.asked and not set(layout.required) <= set(given):
        return False
    if not set(given) <= {*layout.required, *layout.optional, "text_pair"}:
        return False
    if given.get("text_pair") and "text_pair" not in layout.required:
        return False
    return not any(name == "" and role in layout.required for role, name in given.items())


def _fit(layout: Layout, names: _Names, given: Mapping[str, str]) -> _Fit | None:
    found: dict[str, str] = {}
    unclear = None
    for role, aliases in (*layout.required.items(), *layout.optional.items()):
        if role in given:
            there = [given[role]] if given[role] else []
        else:
            pool = names.filled if role == "text_pair" else names.usual
            taken = {*found.values(), *(name for other, name in given.items() if other != role)}
            there = [name for name in aliases if name in pool and name not in taken]
            if role == "choices" and not there and (numbered := _numbered(names)):
                there = [numbered]
        if there:
            found[role] = there[0]
        elif role in layout.required:
            return None
        # A question's and a context's names are ranked: what comes first says more.
        if len(there) > 1 and there[0] != aliases[0] and role not in ("question", "context"):
            several = ", ".join(map(quoted, there))
            unclear = f"the {role} could be any of {several}; say which with --fields {role}={there[0]}"
    return _Fit(layout.task, found, unclear)


def _numbered(names: _Names) -> str | None:
    """Choices in columns of their own, as ``a+b``."""
    for stem in NUMBERED_CHOICES:
        ends = sorted((int(end), name) for name in names.usual if (end := name.removeprefix(stem)) != name and _small(end))
        if len(ends) > 1:
            return "+".join(name for _, name in ends)
    letters = [letter for letter in _LETTERS if letter in names.usual]
    return "+".join(letters) if len(letters) > 1 and letters == list(_LETTERS[: len(letters)]) else None


def _small(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 3


def _nothing_fits(
    rows: Sequence[Mapping[str, object]],
    layouts: Sequence[Layout],
    names: _Names,
    given: Mapping[str, str],
    task: TaskKind | None,
) -> str:
    if not layouts:
        roles = ", ".join(role for role, name in given.items() if name)
        return f"--fields: no task{f' {task}' if task else ''} has the roles {roles}"
    languages = rows[0].get("translation")
    if isinstance(languages, dict) and len(languages) == 2:
        one, other = sorted(languages)
        way = f"--fields source=translation.{one},target=translation.{other}"
        return f'"translation" does not say its direction; say {way}, or the other way round'

    def missing(layout: Layout) -> list[str]:
        return [role for role, aliases in layout.required.items() if role not in given and not names.usual & set(aliases)]

    def distance(layout: Layout) -> tuple[int, bool, int]:
        # A file of labelled texts is what most have; a layout that has nothing of it is no guess at all.
        lacking = missing(layout)
        return len(lacking), "text_pair" in layout.required, -len(layout.required)

    nearest = min((layout for layout in layouts if not layout.asked or task), key=distance, default=layouts[0])
    lacking = missing(nearest) or ["text"]
    if len(lacking) == len(nearest.required):
        nearest = next((layout for layout in layouts if tuple(layout.required) == ("text", "label")), nearest)
        lacking = missing(nearest) or lacking
    role = lacking[0]
    expected = nearest.required.get(role, (role,))[0]
    what = "" if nearest.task == "classification" else f" for {nearest.task}"
    way = f"name it with --fields {role}=FIELD"
    return f'no {role} field{what} ("{expected}" is expected; fields found: {names_of(rows[0])}); {way}'


def _reaches(row: Mapping[str, object], name: str) -> bool:
    if name in row:
        return True
    value: object = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _reached(row: Mapping[str, object], name: str) -> object:
    if name in row:
        return row[name]
    value: object = row
    for part in name.split("."):
        value = value[part] if isinstance(value, Mapping) else None
    return value


def _checked(given: dict[str, str]) -> dict[str, str]:
    for role in given:
        if role not in ROLES:
            raise UsageError(f'--fields: there is no role "{role}"; there is {", ".join(ROLES)}')
    return given
