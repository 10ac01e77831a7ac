"""The search: tune the target, sign it, rank the zoo."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from hubrank.checkpoints.base_names import all_names
from hubrank.checkpoints.peft_lora import read_lora
from hubrank.errors import BaseModelError, EmptyZooError, TargetError, UsageError
from hubrank.ranking.estimators import DEFAULT, ESTIMATORS
from hubrank.ranking.placement import usual_modules, usual_rank
from hubrank.ranking.rank import rank_sources
from hubrank.signatures.canonical import sign_adapter
from hubrank.target.base import BaseModel, find_base, load_base
from hubrank.target.frameworks import import_peft, pick_device
from hubrank.target.rows import read_target
from hubrank.target.task import Target
from hubrank.target.tuning import TuningPlan, tune
from hubrank.types import Ranking, Signature, TargetRun
from hubrank.zoo.packed import Packed
from hubrank.zoo.packed_files import open_packed
from hubrank.zoo.store import Zoo

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Listener",
    "SearchSettings",
    "check_model_id",
    "check_settings",
    "choose_base",
    "folder_named",
    "search",
    "sign_target",
]

METHOD = "lora"
TUNED = ("classification", "regression")
"""The tasks that a target can be tuned on."""
STEPS = TuningPlan(modules=()).steps


class Listener(Protocol):
    """Hears how a search gets on."""

    def stage(self, message: str) -> None:
        """Something that takes a moment begins."""

    def step(self, done: int, total: int) -> None:
        """A tuning step is done."""

    def note(self, message: str) -> None:
        """Something the user should know, once."""


class _Silent:
    def stage(self, message: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search.

    Attributes:
        base: model id, folder, or ID=FOLDER; None for the base with the most sources in the zoo.
        top: rows of the ranking; None for all.
        steps, seed, device: of tuning the target; ``auto`` takes CUDA, then MPS, then CPU.
        estimator: a name of :data:`hubrank.ranking.estimators.ESTIMATORS`.
        offline: never ask a hub for the base model.
        gone: rank what left its hub, too.
    """

    base: str | None = None
    top: int | None = 10
    steps: int = STEPS
    seed: int = 0
    device: str = "auto"
    estimator: str = DEFAULT
    offline: bool = False
    gone: bool = False


def search(
    target: str | Path | Target,
    *,
    zoo: Zoo | None = None,
    cache_dir: str | Path | None = None,
    listener: Listener | None = None,
    settings: SearchSettings | None = None,
    **changes: Any,
) -> Ranking:
    """Rank the zoo by predicted transfer to a target task.

    Tunes a LoRA on the target for a few steps on this machine, as Zhou, Xu and McAuley, "Efficiently Tuned Parameters are
    Task Embeddings" (EMNLP 2022), and compares it with every source; no source is run, and the target leaves this machine
    in no form.

    Args:
        target: a file of rows, or what :func:`hubrank.target.rows.read_target` made of one.
        zoo: an open zoo; else the one in ``cache_dir`` (see :func:`hubrank.zoo.store.cache_folder`).
        settings, changes: fields of :class:`SearchSettings`, as an object or by name.

    Raises:
        TargetError: the target file cannot be used.
        EmptyZooError: the zoo holds nothing to compare with.
        BaseModelError, HubError: the base model cannot be had or cannot be used.
        StoreError: the store is damaged or locked.
        UsageError: a setting is out of range.
    """
    settings = replace(settings or SearchSettings(), **changes)
    listener = listener or _Silent()
    check_settings(settings)
    task = target if isinstance(target, Target) else read_target(target)
    if task.task not in TUNED:
        raise TargetError(task.path, f"this is {task.task}; search tunes {' and '.join(TUNED)} so far (--task says another)")
    opened = zoo or Zoo(cache_dir)
    try:
        return _search(task, opened, settings, listener)
    finally:
        if zoo is None:
            opened.close()


def _search(task: Target, zoo: Zoo, settings: SearchSettings, listener: Listener) -> Ranking:
    name, folder = choose_base(zoo, settings.base, gone=settings.gone)
    notes = [f"{task.path}: {note}" for note in task.notes]
    if settings.base is None:
        notes.append(f"base model {name}: the one with the most sources in the zoo")
    for note in notes:
        listener.note(note)
    # Loading the frameworks and packing the zoo take a moment each, and different parts of the machine.
    loading = Thread(target=import_peft, daemon=True)
    loading.start()
    try:
        packed = open_packed(zoo, name, METHOD, gone=settings.gone)
    finally:
        loading.join()
    if not packed.sources:
        raise EmptyZooError(f"the {METHOD} sources for {name} have nothing in common: no site is adapted by a tenth of them")
    listener.stage(f"loading {name}")
    device = pick_device(settings.device)
    base = find_base(name, folder=folder, offline=settings.offline)
    plan = TuningPlan(modules=(), rank=usual_rank(packed), steps=settings.steps, seed=settings.seed)
    signature, seconds = sign_target(task, base, packed, plan, device=device, listener=listener)
    ranked = rank_sources(packed, signature, estimator=settings.estimator, top=settings.top)
    everything = zoo.sources(gone=settings.gone)
    others = Counter("other base" for source in everything if source.base != name)
    others += Counter("other method" for source in everything if source.base == name and source.method != METHOD)
    if ranked.rows and ranked.rows[0].score is None:
        notes.append("the zoo is too small for a common scale: no scores are given")
    return Ranking(
        base=name,
        base_folder=str(folder) if folder is not None else None,
        methods=(METHOD,),
        estimator=settings.estimator,
        target=TargetRun(
            path=task.path,
            examples=len(task),
            task=task.task,
            labels=len(task.classes),
            steps=settings.steps,
            seconds=seconds,
            device=device,
        ),
        sources=len(everything),
        compared=ranked.compared,
        skipped=dict(others + Counter(ranked.skipped)),
        rows=ranked.rows,
        verdict=ranked.verdict,
        energy=ranked.energy,
        notes=tuple(notes),
        signature=signature,
    )


def sign_target(
    task: Target, base: BaseModel, packed: Packed, plan: TuningPlan, *, device: str, listener: Listener | None = None
) -> tuple[Signature, float]:
    """Tune a base model on a task where most sources of a zoo are tuned, and sign what moved: (signature, seconds of tuning).

    The tuned LoRA goes through the same reader and the same arithmetic as a published one.

    Raises:
        BaseModelError: the base model cannot be loaded or has none of the zoo's modules.
    """
    listener = listener or _Silent()
    import_peft()
    model, tokenizer = load_base(base)
    modules = usual_modules(packed, (name for name, _ in model.named_modules()))
    plan = replace(plan, modules=modules, alpha=2.0 * plan.rank)
    listener.stage(f"tuning on {len(task)} rows of {task.name}")
    tuned = tune(model, tokenizer, task, plan, device=device, on_step=listener.step)
    return sign_adapter(read_lora(tuned.config(), tuned.tensors(), base.name)), tuned.seconds


def choose_base(zoo: Zoo, given: str | None, *, gone: bool = False) -> tuple[str, Path | None]:
    """The id of the base to search under, and the folder to load it from if the user named one.

    A folder is matched to a base of the zoo by what its config.json or its own path say it is; ``ID=FOLDER`` says it outright.

    Raises:
        EmptyZooError: the zoo is empty or has nothing for that base.
        BaseModelError: it is neither a model id nor a folder.
    """
    bases = zoo.bases(gone=gone)
    if not bases and (left := len(zoo.sources(gone=True))):
        raise EmptyZooError(
            f"{zoo.folder}: every source in it ({left}) has left its hub; `hubrank search --gone` ranks them all the same"
        )
    if not bases:
        raise EmptyZooError(f"{zoo.folder}: the zoo is empty; fill it with `hubrank sync` or `hubrank sync --hub FOLDER`")
    if given is None:
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
    import json

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


def check_settings(settings: SearchSettings) -> None:
    """See that every setting is one that there is; whether the machine has the device is seen later.

    Raises:
        UsageError: a setting is out of range.
    """
    if not 1 <= settings.steps <= 100_000:
        raise UsageError(f"--steps {settings.steps}: give a number from 1 to 100000")
    if settings.top is not None and settings.top < 1:
        raise UsageError(f"--top {settings.top}: give a number from 1")
    if not 0 <= settings.seed < 2**31:
        raise UsageError(f"--seed {settings.seed}: give a number from 0 to 2147483647")
    if settings.estimator not in ESTIMATORS:
        raise UsageError(f"--estimator {settings.estimator}: unknown; there is {', '.join(sorted(ESTIMATORS))}")
