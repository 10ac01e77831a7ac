"""Which base models a sync looks for where nobody says."""

from __future__ import annotations

from collections.abc import Sequence

from hubrank.checkpoints.base_names import all_names, canonical_name
from hubrank.zoo.store import Zoo

__all__ = ["ALL_BASES", "DEFAULT_BASES", "bases_to_sync"]

ALL_BASES = "all"
"""What to say for every base model there is."""

DEFAULT_BASES = (
    # What most task adapters of AdapterHub were trained on.
    "google-bert/bert-base-uncased",
    "FacebookAI/roberta-base",
    "distilbert/distilbert-base-uncased",
    "google-bert/bert-base-multilingual-cased",
    "FacebookAI/xlm-roberta-base",
    "facebook/bart-base",
    "openai-community/gpt2",
    # Small encoders and decoders that many LoRAs of the Hub are for, and that a laptop can tune.
    "FacebookAI/roberta-large",
    "microsoft/deberta-v3-base",
    "google/flan-t5-base",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "Qwen/Qwen2.5-0.5B-Instruct",
)
"""For an empty zoo: the bases that a laptop can tune and that have the most task adapters, by the archived index of AdapterHub
(290 adapters) and by the Hub's own lists. All of the Hub would be tens of thousands of adapters of models that few can run."""


def bases_to_sync(zoo: Zoo, given: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The bases of a query, and those for hubs on the network where it names none: both by every name they go by.

    Args:
        given: names of bases; ``all`` among them leaves none out. Empty: the bases in the zoo, or :data:`DEFAULT_BASES`.
    """
    if any(name.lower() == ALL_BASES for name in given):
        return (), ()
    if given:
        return _names(given), ()
    return (), _names(tuple(zoo.bases()) or DEFAULT_BASES)


def _names(bases: Sequence[str]) -> tuple[str, ...]:
    """A hub lists by the name that a card states, which may be an older one of the same model."""
    wanted = dict.fromkeys(canonical_name(base) for base in bases)
    return tuple(dict.fromkeys(name for base in wanted for name in all_names(base)))
