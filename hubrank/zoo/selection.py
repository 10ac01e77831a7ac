"""Which of the stored sources a person wants to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hubrank.checkpoints.base_names import canonical_name
from hubrank.types import CardFacts, Source

__all__ = ["ORDERS", "Selection", "select_sources"]

_TASK_TAGS = ("adapterhub:", "dataset:")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of a source. Of several values for one field any will do; an empty field leaves nothing out.

    Attributes:
        bases: its base model, under any name that the model has had.
        methods: its method or variant, such as ``lora`` or ``loha``.
        tasks: parts of the task its card names, of a dataset, or of an AdapterHub task; in upper or lower case.
        languages: codes as cards give them.
        licenses: as cards give them.
        gone: also what is no longer on its hub.
    """

    bases: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    gone: bool = False


ORDERS: Mapping[str, Callable[[Source], tuple[str | int, ...]]] = MappingProxyType(
    {
        "name": lambda _: (),
        "base": lambda source: (source.base.lower(),),
        "method": lambda source: (source.full_method,),
        "task": lambda source: (source.task is None, (source.task or "").lower()),
        "rank": lambda source: (-source.rank,),
    }
)
"""What a list can be sorted by, then by name; sources without a task come last, those of the highest rank first."""


def select_sources(sources: Iterable[Source], wanted: Selection, *, order: str = "name") -> list[Source]:
    """The sources that fit, sorted by one of :data:`ORDERS`."""
    bases = {*wanted.bases, *map(canonical_name, wanted.bases)}
    found = (source for source in sources if _fits(source, wanted, bases))
    return sorted(found, key=lambda source: (*ORDERS[order](source), source.name, source.hub))


def _fits(source: Source, wanted: Selection, bases: set[str]) -> bool:
    card = source.card
    return (
        (wanted.gone or not source.gone)
        and (not bases or source.base in bases)
        and _any(wanted.methods, (source.method, source.variant))
        and _any(wanted.languages, card.languages)
        and _any(wanted.licenses, (card.license or "",))
        and (not wanted.tasks or any(task.lower() in name for task in wanted.tasks for name in _task_names(card)))
    )


def _any(wanted: tuple[str, ...], stated: Iterable[str]) -> bool:
    return not wanted or not {word.lower() for word in wanted}.isdisjoint(text.lower() for text in stated)


def _task_names(card: CardFacts) -> list[str]:
    tagged = [tag.partition(":")[2] for tag in card.tags if tag.startswith(_TASK_TAGS)]
    return [name.lower() for name in (card.task or "", *card.datasets, *tagged) if name]
