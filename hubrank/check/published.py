"""Where the adapters to check come from: folders on this disk, and repositories of the Hub by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubrank.check.evidence import Security
from hubrank.errors import HubError, InputError, UsageError
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Bundle, Listing, Query

__all__ = ["Candidate", "base_is_there", "find_candidates"]

_REPO = re.compile(r"[\w.\-]{1,96}/[\w.\-]{1,96}(?:/[\w.\-/]{1,300})?(?:@[\w.\-/]{1,100})?", re.ASCII)
_MARKERS = ("adapter_config.json", "hubrank.json")
_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """An adapter to check: its hub's name, its listing, its files, and what the Hub's scanners say of it."""

    hub: str
    listing: Listing
    bundle: Bundle
    security: Security | None = None


def find_candidates(names: Sequence[str | Path], *, offline: bool = False, endpoint: str | None = None) -> Iterator[Candidate]:
    """The adapters under folders, and of repositories named ``org/name``, ``org/name/subfolder`` or ``org/name@revision``.

    A folder without an adapter counts as one that lacks everything.

    Args:
        endpoint: address of another hub with the same API; None for the one that HF_ENDPOINT names, or the HF Hub.

    Raises:
        UsageError: a name is neither a folder that is there nor a repository's.
        InputError: the Hub knows no such repository or revision.
        HubError: the Hub does not answer, refuses, or must not be asked.
    """
    for name in names:
        if str(name) and Path(name).is_dir():
            yield from _of_folder(Path(name))
        elif _REPO.fullmatch(str(name)):
            if offline:
                raise HubError(f"{name}: is no folder, and the Hub is not asked offline")
            yield from _of_hub(str(name), endpoint)
        else:
            raise UsageError(f"{name}: neither a folder that is there nor a repository such as org/name")


def _of_folder(folder: Path) -> Iterator[Candidate]:
    hub = FolderHub(folder)
    empty = True
    for listing in hub.discover(Query()):
        empty = False
        yield Candidate(hub.name, listing, hub.open(listing))
    if empty:
        root = hub.root
        files = {path.name: path.stat().st_size for path in root.iterdir() if path.is_file()}
        listing = Listing(f"{root.parent.name}/{root.name}", "", None, files, location=str(root))
        yield Candidate(hub.name, listing, hub.open(listing))


def _of_hub(name: str, endpoint: str | None) -> Iterator[Candidate]:
    from hubrank.hubs.huggingface import HuggingFaceHub

    path, _, revision = name.partition("@")
    org, repo, *rest = path.split("/", 2)
    wanted = rest[0].strip("/") if rest else None
    info = _ask(f"{org}/{repo}", revision or None, endpoint)
    security = _security(info.security_repo_status)
    hub = HuggingFaceHub(endpoint)
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    for sibling in info.siblings or []:
        folder, _, file = sibling.rfilename.rpartition("/")
        folders[folder][file] = sibling.size if isinstance(sibling.size, int) else -1
    chosen = [wanted] if wanted else [folder for folder, files in sorted(folders.items()) if any(m in files for m in _MARKERS)]
    for folder in chosen or [""]:
        if wanted and folder not in folders:
            raise InputError(f"{name}: the repository has no folder {wanted}")
        listing = Listing(f"{org}/{repo}", info.sha or revision or "main", folder or None, folders.get(folder, {}))
        yield Candidate(hub.name, listing, hub.open(listing), _within(security, folder))


def _ask(repo: str, revision: str | None, endpoint: str | None) -> Any:
    from huggingface_hub import HfApi, constants, errors
    from requests import RequestException

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo}: is no folder, and the Hub is not asked: HF_HUB_OFFLINE is set")
    try:
        return HfApi(endpoint=endpoint).model_info(
            repo, revision=revision, files_metadata=True, securityStatus=True, timeout=_SECONDS
        )
    except errors.GatedRepoError:
        raise HubError(f"{repo}: wants its terms accepted on the Hub, and HF_TOKEN set") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        at = f" at {revision}" if revision else ""
        raise InputError(f"{repo}{at}: no such folder, and the Hub knows none or does not show it to us") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise HubError(f"{repo}: the Hub answered with status {status}; try again in a few minutes") from error
    except (RequestException, OSError) as error:
        raise HubError(f"{repo}: the Hub did not answer ({type(error).__name__}); check the network and HF_ENDPOINT") from error


def base_is_there(name: str, endpoint: str | None = None) -> bool | None:
    """Whether the Hub has a base model that is open to us; None where it does not answer."""
    from huggingface_hub import HfApi, constants, errors
    from requests import RequestException

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        HfApi(endpoint=endpoint).model_info(name, timeout=_SECONDS)
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        return False
    except (errors.HfHubHTTPError, RequestException, OSError):
        return None
    return True


def _security(status: Any) -> Security | None:
    """What the Hub says of a repository's files; None where it says nothing that is understood."""
    if not isinstance(status, dict):
        return None
    issues = status.get("filesWithIssues")
    found = [
        (str(issue["path"]), str(issue.get("level", "error")))
        for issue in (issues if isinstance(issues, list) else [])
        if isinstance(issue, dict) and "path" in issue
    ]
    return Security(done=status.get("scansDone") is True, issues=tuple(found[:1000]))


def _within(security: Security | None, folder: str) -> Security | None:
    """Of a repository's issues those beside an adapter, their paths from there."""
    if security is None:
        return None
    here = [(path.rpartition("/"), level) for path, level in security.issues]
    return Security(security.done, tuple((parts[2], level) for parts, level in here if parts[0] == folder))
