"""What to search under: the base that was named or the one with the most sources that fits, and its methods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from hubrank.checkpoints.base_names import all_names
from hubrank.errors import BaseModelError, EmptyZooError, HubError
from hubrank.ranking.background import ENOUGH
from hubrank.target.architecture import GENERATES, architecture_of
from hubrank.target.base import find_base
from hubrank.target.memory import check_fit, weight_bytes
from hubrank.target.methods import METHODS
from hubrank.zoo.store import Zoo

if TYPE_CHECKING:
    from hubrank.target.task import TaskKind

__all__ = ["AUTO", "AutoBase", "auto_base", "check_model_id", "choose_base", "choose_methods", "folder_named", "sizes_here"]

AUTO = "auto"
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class AutoBase:
    """The base that was picked, and why."""

    name: str
    why: str


def auto_base(zoo: Zoo, task: TaskKind, device: str, *, methods: Sequence[str] = (), gone: bool = False) -> AutoBase:
    """Of the bases with the most sources that count, the first that can do the task and fits the device.

    Sources count that are of one of ``methods``, or, if none are named, of any that a target can be tuned by. What a base can
    do and takes is known where it lies on this machine; one that does not is taken at its word.

    Raises:
        EmptyZooError: the zoo is empty.
        BaseModelError: none of them fits.
    """
    counting = set(methods or METHODS)
    counts = Counter(source.base for source in zoo.sources(gone=gone) if source.method in counting)
    # Where no source counts, the base that has the most of any kind: what it has is told by :func:`choose_methods`.
    bases = dict(counts.most_common()) or zoo.bases(gone=gone)
    if not bases:
        raise _empty(zoo)
    kind = f"{' and '.join(methods)} " if methods else ""
    passed: list[str] = []
    for name, count in list(bases.items())[:_LOOKED_AT]:
        why_not = _why_not(name, task, device)
        if why_not is None:
            over = f"; passed over: {'; '.join(passed[:3])}" if passed else ""
            return AutoBase(
                name, f"base model {name}: most {kind}sources in the zoo ({count}) of those that fit {task} and {device}{over}"
            )
        passed.append(why_not)
    raise BaseModelError(f"no base of the zoo fits this search ({'; '.join(passed[:3])}); name one with --base")


def choose_methods(zoo: Zoo, base: str, given: Sequence[str], *, gone: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(methods to tune by, sentences about those left out), the method with the most sources first.

    Raises:
        EmptyZooError: the zoo has no source of a method that was named, or of any that can be tuned.
    """
    counts = Counter(source.method for source in zoo.sources(base=base, gone=gone))
    held = [method for method, _ in counts.most_common() if method in METHODS]
    if given:
        missing = next((method for method in given if method not in held), None)
        if missing is not None:
            raise EmptyZooError(f"the zoo has no {missing} source for {base}; it has {_counted(counts)}")
        return tuple(method for method in held if method in given), ()
    if not held:
        raise EmptyZooError(f"the zoo has no source for {base} of a method that can be tuned here; it has {_counted(counts)}")
    enough = tuple(method for method in held if counts[method] >= ENOUGH) or (held[0],)
    few = [f"{method} ({counts[method]})" for method in held if method not in enough]
    notes = (f"too few sources for a scale, left out: {', '.join(few)}; --method takes them in",) if few else ()
    return enough, notes


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{method} ({n})" for method, n in counts.most_common()) or "none"


def sizes_here(zoo: Zoo) -> dict[str, int]:
    """Bytes in float32 of those bases of the zoo that lie on this machine."""
    folders = {name: _folder_here(name) for name in list(zoo.bases())[:_LOOKED_AT]}
    return {name: weight_bytes(folder) for name, folder in folders.items() if folder is not None}


def _why_not(name: str, task: TaskKind, device: str) -> str | None:
    folder = _folder_here(name)
    if folder is None:
        return None
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if task in GENERATES and architecture_of(SimpleNamespace(**config)) == "encoder":
            return f"{name} is an encoder, which writes no text"
        check_fit(name, folder, device)
    except BaseModelError as error:
        return str(error).partition(";")[0]
    except (OSError, ValueError, TypeError, RecursionError):
        return f"{name} has a config.json that cannot be read"
    return None


def _folder_here(name: str) -> Path | None:
    try:
        return find_base(name, offline=True).folder
    except (HubError, BaseModelError):
        return None


def _empty(zoo: Zoo) -> EmptyZooError:
    left = len(zoo.sources(gone=True))
    if left:
        every = f"every source in it ({left}) has left its hub"
        return EmptyZooError(f"{zoo.folder}: {every}; `hubrank search --gone` ranks them all the same")
    return EmptyZooError(f"{zoo.folder}: the zoo is empty; fill it with `hubrank sync` or `hubrank sync --hub FOLDER`")


def choose_base(zoo: Zoo, given: str | None, *, gone: bool = False) -> tuple[str, Path | None]:
    """The id of the base to search under, and the folder to load it from if the user named one.

    A folder is matched to a base of the zoo by what its config.json or its own path say it is; ``ID=FOLDER`` says it outright.

    Raises:
        EmptyZooError: the zoo is empty or has nothing for that base.
        BaseModelError: it is neither a model id nor a folder.
    """
    bases = zoo.bases(gone=gone)
    if not bases:
        raise _empty(zoo)
    if given is None or given == AUTO:
        return next(iter(bases)), None
    if given in bases:
        return given, None
    name, _, path = given.partition("=")
    if name and (folder := folder_named(path)) is not None:
        known = next((base for base in all_names(name) if base in bases), None)
        if known is not None:
            return known, folder
        raise _nothing_for(name, bases)
    if (folder := folder_named(given)) is not None:
        return _base_of_folder(folder, bases), folder
    names = {name.lower() for name in all_names(given)}
    by_case = [base for base in bases if base.lower() in names]
    if by_case:
        return by_case[0], None
    check_model_id(given)
    raise _nothing_for(given, bases)


def folder_named(text: str) -> Path | None:
    """The folder that a text is the path of; None where there is none, whatever the text."""
    try:
        folder = Path(text).expanduser()
        return folder if text and folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long, a folder that may not be read, the home of an unknown user
        return None


def _base_of_folder(folder: Path, bases: Mapping[str, int]) -> str:
    claims = []
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        claims.append(config.get("_name_or_path"))
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    parts = folder.resolve().parts
    cached = (part.removeprefix("models--").replace("--", "/") for part in parts if part.startswith("models--"))
    claims += ["/".join(parts[-2:]), *cached]
    for claim in claims:
        for name in all_names(claim) if isinstance(claim, str) else ():
            if name in bases:
                return name
    by_name = [base for base in bases if base.rpartition("/")[2] == parts[-1]]
    if len(by_name) == 1:
        return by_name[0]
    raise BaseModelError(f"{folder}: which base of the zoo is this? Say so with --base ID={folder}, ID one of {_listed(bases)}")


def check_model_id(name: str) -> None:
    """See that a name can be a model's.

    Raises:
        BaseModelError: it cannot, and it is no folder either.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise BaseModelError(f"--base {name}: neither a folder that is there nor a model id such as org/name") from None


def _nothing_for(name: str, bases: Mapping[str, int]) -> EmptyZooError:
    import difflib

    close = difflib.get_close_matches(name, bases, n=1)
    hint = f"did you mean {close[0]}?" if close else f"`hubrank sync --base {name}` looks for some"
    return EmptyZooError(f"the zoo has nothing for base {name}; it has {_listed(bases)}; {hint}")


def _listed(bases: Mapping[str, int]) -> str:
    shown = [f"{base} ({n})" for base, n in list(bases.items())[:5]]
    return ", ".join(shown) + (f" and {len(bases) - 5} more" if len(bases) > 5 else "")
