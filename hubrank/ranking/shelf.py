"""Published adapters, fetched to be run: opened where the zoo found them, read once, and what could not be had, with why."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.base_folder import FolderTensors
from hubrank.checkpoints.reader import ADAPTERS_WEIGHTS, PEFT_WEIGHTS, read_published
from hubrank.errors import AdapterError, HubError
from hubrank.hubs.reopening import Opened, Reopener, same_content
from hubrank.target.architecture import architecture_of, head_kind
from hubrank.target.base import BaseModel, load_base
from hubrank.target.frameworks import import_peft, import_transformers
from hubrank.target.starts import RUNNABLE, Start, start_of
from hubrank.types import Source

if TYPE_CHECKING:
    from hubrank.checkpoints.base_tensors import BaseTensors
    from hubrank.target.task import TaskKind

__all__ = ["FreshModels", "Shelf"]

_COPIED = 1 << 29  # parameters of a base that is copied in memory; a larger one is loaded again from its files


class FreshModels:
    """The base model as it was loaded, again and again: the libraries change a model's modules and classes for good."""

    def __init__(self, base: BaseModel, task: TaskKind, dtype: str) -> None:
        self._base, self._task, self._dtype = base, task, dtype
        self._kept: tuple[Any, Any] | None = None

    def get(self) -> tuple[Any, Any]:
        """(model, tokenizer), nothing put on the model yet.

        Raises:
            BaseModelError: it cannot be loaded, or cannot do the task.
        """
        if self._kept is not None:
            model, tokenizer = self._kept
            return copy.deepcopy(model), tokenizer
        import_peft()
        config = import_transformers().AutoConfig.from_pretrained(
            self._base.folder, local_files_only=True, trust_remote_code=False
        )
        head = head_kind(self._task, architecture_of(config), self._base.name)
        model, tokenizer = load_base(self._base, head=head, dtype=self._dtype)
        if sum(parameter.numel() for parameter in model.parameters()) <= _COPIED:
            self._kept = copy.deepcopy(model), tokenizer
        return model, tokenizer


class Shelf:
    """Starts by source.

    ``failed`` says of each source that could not be had, why, in one line.
    """

    def __init__(self, base: BaseModel, fresh: FreshModels, *, offline: bool) -> None:
        self._folder: Path = base.folder
        self._fresh = fresh
        self._hubs = Reopener(offline=offline)
        self._opened: dict[Source, Opened] = {}
        self._starts: dict[Source, Start] = {}
        self._model: Any = None
        self.failed: dict[Source, str] = {}

    def bytes_of(self, sources: Sequence[Source]) -> int:
        """What fetching the weights of sources will read over the network; those that cannot be had are noted as failed."""
        total = 0
        for source in sources:
            if source in self.failed or source in self._starts:
                continue
            try:
                opened = self._open(source)
                names = [name for name in (*PEFT_WEIGHTS, *ADAPTERS_WEIGHTS) if name in opened.listing.files]
                total += opened.bundle.size(names[0]) if names and not opened.local else 0
            except (AdapterError, HubError) as error:
                self.failed[source] = str(error)
        return total

    def start(self, source: Source) -> Start | None:
        """A source's numbers, ready to be put on the base model; None where they cannot be had, as ``failed`` then says."""
        if source in self.failed:
            return None
        if source not in self._starts:
            try:
                self._starts[source] = self._read(source)
            except (AdapterError, HubError) as error:
                self.failed[source] = str(error)
                return None
            finally:
                self._opened.pop(source, None)
        return self._starts[source]

    def _open(self, source: Source) -> Opened:
        if source.method not in RUNNABLE:
            raise AdapterError("cannot be run", f"a {source.full_method} cannot be put on a model from its numbers")
        if source not in self._opened:
            self._opened[source] = self._hubs.open(source)
        return self._opened[source]

    def _read(self, source: Source) -> Start:
        opened = self._open(source)
        published = read_published(opened.listing, opened.bundle, base_tensors=self._base_tensors())
        same_content(source, opened.bundle)
        if any(adapter.base != source.base for adapter in published.adapters):
            raise AdapterError("changed", "it names another base model than when the zoo was synced; run `hubrank sync` again")
        if self._model is None:
            self._model = self._fresh.get()[0].to("meta")  # names and shapes, without the numbers
        return start_of(published, self._model)

    def _base_tensors(self) -> BaseTensors | None:
        """For updates that are only exact with the base model's weights beside them, such as DoRA's."""
        try:
            return FolderTensors(self._folder)
        except AdapterError:
            return None
