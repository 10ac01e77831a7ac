"""AdapterHub on the Hugging Face Hub: its organisation, and every repository of the ``adapters`` library.

``adapters.list_adapters()`` (1.3.0) asks for a tag that nobody sets; the cards say ``adapter-transformers``
(``adapters/hub_mixin.py``), and so do the ones that AdapterHub's migration wrote (``migrate_to_hf.py`` of adapter-hub/Hub).
"""

from __future__ import annotations

from hubrank.hubs.budget import Budget
from hubrank.hubs.huggingface import VERSIONED, HuggingFaceHub
from hubrank.hubs.matching import searches
from hubrank.hubs.model_list import Model, Search, list_models
from hubrank.hubs.protocol import Query, Traffic
from hubrank.hubs.zips import ZipsHub

__all__ = ["ORGANISATION", "AdapterHub", "open_zips"]

ORGANISATION = "AdapterHub"


class AdapterHub(HuggingFaceHub):
    """Part of the HF Hub, listed alone; the arguments are those of :class:`HuggingFaceHub`.

    What it lists is stored as of the hub ``hf``, under which these repositories are what they are whoever lists them: asked
    for through both, each is one source, read once. So what is stored and not listed here says nothing (``partial``); a
    repository that is gone is noticed by the next sync with ``hf``.
    """

    partial = True

    def moved(self, traffic: Traffic) -> frozenset[str]:
        """Names of the organisation's repositories, which are those of the index's entries that moved there.

        Raises:
            HubError: the hub does not answer.
        """
        pages = list_models(self.transport, self.endpoint, Search((), ORGANISATION), traffic=traffic)
        return frozenset(model.id.partition("/")[2] for page in pages for model in page)

    def _searches(self, query: Query) -> list[Search]:
        # Only few of these repositories are tagged with their base: it is the list's own field, and sorted out here.
        found = searches(query, [VERSIONED])
        if not query.authors or ORGANISATION.lower() in {author.lower() for author in query.authors}:
            found += searches(query, [""], authors=[ORGANISATION])
        return found

    def _versioned(self, model: Model) -> bool:
        return super()._versioned(model) or model.id.partition("/")[0] == ORGANISATION


def open_zips(name: str, *, budget: Budget | None = None) -> ZipsHub:
    """The archived index by the name that the command line gives it.

    Args:
        name: ``zips`` for the archived index less what has moved to the HF Hub; ``zips:WHERE`` for all of the index in a
            folder or at an address.
        budget: counts what the HF Hub is asked.

    Raises:
        HubError: there is no index.
    """
    where = name.removeprefix("zips").removeprefix(":")
    return ZipsHub(where) if where else ZipsHub(moved=AdapterHub(budget=budget).moved)
