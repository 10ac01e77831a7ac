"""One id per base model: models that moved or were renamed, copies, quantised re-uploads, and paths of somebody's disk.

Adapters can be compared only where they were trained on the same base, and their configs call it by many names. What is
known of names is data, in ``base_names.json``:

- ``moved``: the Hub's oldest models had no organisation, and were given one in 2024; their short names still lead there.
- ``renamed``: an id that the Hub redirects to another.
- ``copies``: the same weights under another account.
- ``quantised``: re-uploads whose id, less its suffix (``-GPTQ``, ``-bnb-4bit``), does not name the original. For others the
  id less its suffix is taken, with a warning.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files

from hubrank.checkpoints.card import plain
from hubrank.errors import AdapterError

__all__ = ["all_names", "canonical_base", "canonical_name", "is_model_id"]

# huggingface_hub's rule for repository names (utils/_validators.py), one or two parts.
_ID = re.compile(r"(?!.*(?:--|\.\.))(?:[A-Za-z0-9_][\w.\-]{0,95}/)?[A-Za-z0-9_](?:[\w.\-]{0,94}\w)?", re.ASCII)
_CACHED = re.compile(r"models--([\w.\-]{1,96}?)(?:--([\w.\-]{1,96}?))?(?:[/\\]|$)", re.ASCII)
_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.ASCII)
_QUANTISED = re.compile(
    r"[-_.](?:gptq(?:[-_.](?:int)?\d(?:bit)?(?:[-_.]\w{1,8}g)?)?|awq(?:[-_.]int\d)?|(?:unsloth[-_.])?bnb[-_.]\dbit|gguf|ggml|exl2"
    r"|[48][-_.]?bit|int[48]|fp8|hqq)$",
    re.IGNORECASE | re.ASCII,
)
# Folders that trainers write; "results/checkpoint-500" looks like an id and is none.
_LOCAL_NAMES = re.compile(r"checkpoint[-_]\d+|global_step\d+|epoch[-_]\d+", re.ASCII)
_LOCAL_PARENTS = frozenset(
    {
        "models",
        "model",
        "output",
        "outputs",
        "results",
        "result",
        "checkpoints",
        "checkpoint",
        "saved_models",
        "runs",
        "ckpt",
        "data",
    }
)
# Accounts that re-upload other people's models: their id less its suffix is no model that could be had.
_REUPLOADERS = frozenset({"thebloke", "casperhansen", "maziyarpanahi", "bartowski", "lonestriker", "quantfactory", "turboderp"})


def is_model_id(name: str) -> bool:
    """Whether a name could be a model of the Hub, and is not plainly a path."""
    if _ID.fullmatch(name) is None:
        return False
    parent, _, last = name.rpartition("/")
    return not (_LOCAL_NAMES.fullmatch(last) or parent.lower() in _LOCAL_PARENTS)


def canonical_name(name: str) -> str:
    """The id that a model goes by, where it moved or was renamed; any other name is returned as it is.

    No warning is due: both names lead to the same files. For what users type and for what adapters state alike.
    """
    return _table()["same"].get(name.lower(), name)


def all_names(name: str) -> tuple[str, ...]:
    """Every id that leads to the same files: the canonical one first, then the older ones that caches and tags still use."""
    base = canonical_name(name)
    return tuple(dict.fromkeys((base, *_older().get(base, ()), *(() if base == name else (name,)))))


def canonical_base(config_name: str | None, card_name: str | None) -> tuple[str, tuple[str, ...]]:
    """The base model of an adapter, from what its config and its card call it.

    The config's name counts. The card's is taken where the config has none, or a path on the author's disk, or a quantised
    re-upload whose original is not known.

    Returns:
        the id, and warnings where it is not simply what the config says.

    Raises:
        AdapterError: ``no base model`` where neither names a model.
    """
    stated = plain(config_name or "", 300).strip().rstrip("/")
    on_card = _resolve(plain(card_name or "", 300))
    name = _resolve(stated)
    if not name:
        if not on_card:
            what = (
                f"{plain(stated, 80)!r} is no model's id, perhaps a path on its author's disk"
                if stated
                else "its config names none"
            )
            raise AdapterError("no base model", f"{what}, and the card names no base model")
        base, warnings = _original(on_card)
        what = f"no model's id ({plain(stated, 80)})" if stated else "no base model"
        return base, (f"the config names {what}; the card's base model {base} was taken", *warnings)
    base, warnings = _original(name)
    other = _original(on_card)[0] if on_card else base
    if other == base:
        return base, warnings
    if "/" not in base or (_QUANTISED.search(base) and not _QUANTISED.search(other)):
        return other, (f"the config names {base}; the card's base model {other} was taken",)
    return base, (*warnings, f"the card names another base model, {other}")


def _resolve(name: str) -> str:
    """A proper id, or an empty string: addresses and paths into a Hub cache give the id they hold."""
    name = _ADDRESS.sub("", name.strip().rstrip("/"))
    cached = _CACHED.search(name)
    if cached:
        name = "/".join(part for part in cached.groups() if part)
    return canonical_name(name) if is_model_id(name) else ""


def _original(name: str) -> tuple[str, tuple[str, ...]]:
    """The model that a copy or a quantised re-upload was made of; a warning where weights differ or the name is a guess."""
    copies, quantised = _table()["copies"], _table()["quantised"]
    if name.lower() in copies:
        return canonical_name(copies[name.lower()]), ()
    suffix = _QUANTISED.search(name)
    stem = name[: suffix.start()] if suffix else name
    known = quantised.get(stem.lower()) or copies.get(stem.lower()) or quantised.get(name.lower())
    if known:
        base = canonical_name(known)
        return base, (f"trained on {name}, a quantised or converted copy of {base}",)
    if suffix is None:
        return name, ()
    if name.partition("/")[0].lower() in _REUPLOADERS:
        return name, (f"{name} is a quantised copy of a model that is not known here",)
    base = canonical_name(stem)
    return base, (f"trained on {name}; by its name a quantised copy of {base}",)


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, str]]:
    """Lower-case names to ids: ``same``, ``copies`` and ``quantised``."""
    data = json.loads((files(__package__) / "base_names.json").read_text("utf-8"))
    moved = {name.lower(): f"{owner}/{name}" for owner, names in data["moved"].items() for name in names}
    full = {base.lower(): base for base in moved.values()}
    return {
        "same": moved | full | _lower(data["renamed"]),
        "copies": _lower(data["copies"]),
        "quantised": _lower(data["quantised"]),
    }


@lru_cache(maxsize=1)
def _older() -> dict[str, list[str]]:
    data = json.loads((files(__package__) / "base_names.json").read_text("utf-8"))
    older = {f"{owner}/{name}": [name] for owner, names in data["moved"].items() for name in names}
    for name, base in data["renamed"].items():
        older.setdefault(base, []).append(name)
    return older


def _lower(names: dict[str, str]) -> dict[str, str]:
    return {name.lower(): base for name, base in names.items()}
