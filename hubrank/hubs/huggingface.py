"""The Hugging Face Hub: adapters are listed by tag, a thousand repositories a call, and read at the listed commit.

The real ``huggingface_hub`` client does the talking, so HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what they
always mean. Files go through the client's own cache.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubrank.errors import AdapterError, HubError
from hubrank.hubs.folder import FolderBundle
from hubrank.hubs.protocol import Bundle, Listing, Query, Traffic

__all__ = ["HuggingFaceHub"]

_VERSIONED = "adapter-transformers"
_TAGS = ("peft", _VERSIONED)
_EXPAND = ["sha", "siblings", "tags", "cardData", "gated", "private", "disabled", "lastModified"]
# What makes a folder of a repository an adapter's.
_MARKERS = ("adapter_config.json", "hubrank.json")
_MAX_BYTES = 4 * 1024**3


class HuggingFaceHub:
    """Adapters on the HF Hub.

    Args:
        endpoint: address of another hub with the same API; None for the one that HF_ENDPOINT names, or the HF Hub.
    """

    name = "hf"

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=endpoint)
        self._endpoint = endpoint
        self.traffic = Traffic()

    def discover(self, query: Query) -> Iterator[Listing]:
        """Adapters tagged ``peft`` or ``adapter-transformers``; of wanted bases, also ``base_model:adapter:ID``.

        A repository of ``adapters`` keeps versions on branches: they are listed after it, where it is new or has moved.

        Raises:
            HubError: the hub does not answer, or refuses.
        """
        seen: set[str] = set()
        wanted = [[f"base_model:adapter:{base}"] for base in query.bases] or [[]]
        for tags in ([tag, *more] for more in wanted for tag in _TAGS):
            with _hub_errors("listing adapters"):
                for model in self._api.list_models(filter=tags, expand=_EXPAND, sort="downloads", limit=query.limit):
                    if model.id in seen or (query.limit is not None and len(seen) >= query.limit):
                        continue
                    seen.add(model.id)
                    yield from _listings(model)
                    if _VERSIONED in (model.tags or ()) and (model.id, model.sha) not in query.known:
                        yield from self._branches(model)
            self.traffic.requests += 1

    def open(self, listing: Listing) -> Bundle:
        """The files of one adapter at the listed commit, each fetched when it is first asked for."""
        return _HubBundle(listing, self._endpoint)

    def _branches(self, model: Any) -> Iterator[Listing]:
        try:
            with _hub_errors(model.id):
                refs = self._api.list_repo_refs(model.id)
                self.traffic.requests += 1
        except AdapterError:  # gated, or gone since it was listed: what is wrong with it is said where it is read
            return
        for branch in refs.branches:
            if branch.target_commit == model.sha:
                continue
            try:
                with _hub_errors(model.id):
                    found = self._api.model_info(model.id, revision=branch.name)
                    self.traffic.requests += 1
            except AdapterError:
                continue
            for listing in _listings(found):
                yield replace(listing, branch=branch.name)


class _HubBundle(FolderBundle):
    """The files of one adapter of the HF Hub, through the client's own cache."""

    def __init__(self, listing: Listing, endpoint: str | None) -> None:
        super().__init__(Path())
        self._listing, self._endpoint = listing, endpoint
        self._paths: dict[str, Path] = {}

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            self._paths[name] = self._fetch(name)
        return self._paths[name]

    def _fetch(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        super()._path(name)  # refuses what is no plain file name
        listing = self._listing
        if name not in listing.files:
            raise AdapterError("file missing", f"{listing.repo} has no {name}")
        if listing.files[name] > _MAX_BYTES:
            raise AdapterError("file too large", f"{name} has {listing.files[name]:,} bytes")
        with _hub_errors(listing.repo):
            path = Path(
                hf_hub_download(
                    listing.repo, name, subfolder=listing.subfolder, revision=listing.revision, endpoint=self._endpoint
                )
            )
        self.traffic.requests += 2
        return path


def _listings(model: Any) -> Iterator[Listing]:
    """One listing a folder of the repository that holds an adapter."""
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    for sibling in model.siblings or []:
        folder, _, name = sibling.rfilename.rpartition("/")
        folders[folder][name] = sibling.size if isinstance(sibling.size, int) else -1
    card = _card(model)
    for folder, files in sorted(folders.items()):
        if any(marker in files for marker in _MARKERS) and not any(
            part.startswith("checkpoint-") for part in folder.split("/")
        ):
            yield Listing(model.id, model.sha or "main", folder or None, files, card)


def _card(model: Any) -> Mapping[str, object]:
    data = model.card_data
    card = dict(data.to_dict()) if data is not None else {}
    # The Hub's own tags say more than the card's: it adds dataset, licence and base.
    return {**card, "tags": list(model.tags or card.get("tags") or [])} if card or model.tags else {}


@contextlib.contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turn what the client raises into our own errors: about one adapter where that is all it concerns, else about the hub."""
    from huggingface_hub import errors
    from requests import RequestException

    refused = (errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)
    try:
        yield
    except errors.GatedRepoError as error:
        raise AdapterError("gated", f"{what} wants its terms accepted on the Hub, and HF_TOKEN set", lasting=False) from error
    except errors.DisabledRepoError as error:
        raise AdapterError("disabled", f"{what} is disabled on the Hub", lasting=False) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError("the Hub is not asked: HF_HUB_OFFLINE is set; use --hub FOLDER, or unset it") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(f"{what}: the Hub did not answer ({_reason(error)}); check the network and HF_ENDPOINT") from error
    except refused as error:
        raise AdapterError("not found", f"{what} has no such file or is not open to us", lasting=False) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        hint = "; set HF_TOKEN for a higher limit, or wait a few minutes" if status == 429 else ""
        raise HubError(f"{what}: the Hub answered with status {status}{hint}") from error
    except (RequestException, errors.HFValidationError, OSError) as error:
        raise HubError(f"{what}: the Hub did not answer ({_reason(error)}); check the network and HF_ENDPOINT") from error


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
