"""Back to where a stored source was found: the same files, at the revision that the zoo knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubrank.errors import AdapterError, HubAnswerError
from hubrank.hubs.folder import FolderBundle
from hubrank.hubs.model_list import ask_model
from hubrank.hubs.protocol import Bundle, Listing
from hubrank.hubs.zip_index import MEMBERS

if TYPE_CHECKING:
    from hubrank.hubs.huggingface import HuggingFaceHub
    from hubrank.hubs.zips import ZipsHub
    from hubrank.types import Source

__all__ = ["Opened", "Reopener", "same_content"]


_NO_COMMIT = "main"  # what is stored where a hub names no commit; hashes must do then


@dataclass(frozen=True, slots=True)
class Opened:
    """A source's listing and its files; ``local`` where no network lies between."""

    listing: Listing
    bundle: Bundle
    local: bool


class Reopener:
    """Opens sources again, each kind of hub once.

    Args:
        offline: never ask a hub on the network.
    """

    def __init__(self, *, offline: bool = False) -> None:
        self._offline = offline
        self._hub: HuggingFaceHub | None = None
        self._zips: dict[str, ZipsHub] = {}

    def open(self, source: Source) -> Opened:
        """The files of a source. Of a hub's repository one request says which there are; none of them is read yet.

        Raises:
            AdapterError: they are not there any more, are not open to us, or would have to be fetched offline.
            HubError: the hub does not answer.
        """
        if source.hub.startswith("folder:"):
            return _of_folder(source)
        if self._offline:
            raise AdapterError("offline", "its files are on the network, and hubrank is offline", lasting=False)
        if source.hub == "hf":
            return self._of_hub(source)
        if source.hub.partition(":")[0] == "zips" and source.location is not None:
            return self._of_zips(source)
        raise AdapterError("unknown hub", f"nothing is known of a hub {source.hub[:80]!r}")

    def _of_hub(self, source: Source) -> Opened:
        from hubrank.hubs.huggingface import HuggingFaceHub, listings

        self._hub = self._hub or HuggingFaceHub()
        hub = self._hub
        try:
            model = ask_model(hub.transport, hub.endpoint, source.repo, source.revision, traffic=hub.traffic)
        except HubAnswerError as error:
            raise AdapterError(
                error.reason, f"{source.repo} at {source.revision[:12]}: {error.detail}", lasting=False
            ) from error
        if model.sha != source.revision != _NO_COMMIT:
            raise AdapterError("bad answer", f"{source.repo}: the hub answers with another revision than was asked for")
        for listing in listings(model):
            if listing.subfolder == source.subfolder:
                return Opened(listing, hub.open(listing), local=False)
        raise AdapterError("file missing", f"{source.repo} holds no adapter there at {source.revision[:12]}")

    def _of_zips(self, source: Source) -> Opened:
        from hubrank.hubs.adapterhub import open_zips

        if source.hub not in self._zips:
            self._zips[source.hub] = open_zips(source.hub)
        listing = Listing(
            source.repo,
            source.revision,
            source.subfolder,
            dict.fromkeys(MEMBERS, -1),
            location=source.location,
            branch=source.branch,
        )
        return Opened(listing, self._zips[source.hub].open(listing), local=False)


def _of_folder(source: Source) -> Opened:
    folder = Path(source.location or "")
    try:
        files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()} if source.location else {}
    except OSError as error:
        raise AdapterError("file missing", f"{folder} ({error.strerror})", lasting=False) from error
    if not files:
        raise AdapterError("file missing", f"{folder} holds no files", lasting=False)
    listing = Listing(source.repo, source.revision, source.subfolder, files, location=str(folder))
    return Opened(listing, FolderBundle(folder), local=True)


def same_content(source: Source, bundle: Bundle) -> None:
    """See that the files that were read are those that the zoo's record was made of, as far as both know hashes.

    Raises:
        AdapterError: a file is another one now.
        HubError: the hub does not answer.
    """
    recorded = {name: content for name, content in source.files if content}
    now = bundle.hashes
    changed = [name for name, content in recorded.items() if name in now and now[name] != content]
    if changed:
        raise AdapterError(
            "changed", f"{changed[0]} is no longer what the zoo was synced from; run `hubrank sync` again", lasting=False
        )
