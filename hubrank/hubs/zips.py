"""AdapterHub's archived index of zip files: what was published before adapters moved to the HF Hub, and never did.

The zip files lie on the servers of whoever made them, many of them gone. No token goes to any; what comes is checked against
the index's hashes; and a server that is away costs seconds, and only the adapters that lie there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from hubrank.errors import AdapterError, HubAnswerError, HubError, HubStoppedError
from hubrank.hubs.addresses import Addresses
from hubrank.hubs.http import Call, Transport
from hubrank.hubs.patience import Patience
from hubrank.hubs.protocol import Listing, Query, Traffic
from hubrank.hubs.replies import Fault
from hubrank.hubs.zip_bundle import ZipBundle
from hubrank.hubs.zip_catalogue import Found, find_index, folder_entries, remote_entries
from hubrank.hubs.zip_index import MEMBERS, Entry, fits, listings

__all__ = ["INDEX", "ZipsHub"]

INDEX = "https://raw.githubusercontent.com/Adapter-Hub/Hub/master/dist/v2"
"""Where the ``adapters`` library itself reads the archived index (``adapters/utils.py``, ADAPTER_HUB_URL)."""

_PATIENCE = Patience(tries=2, longest=2.0, together=30.0, connect=5.0, read=15.0)
_GIVEN_UP = 2
_LONGEST = 600.0


class ZipsHub:
    """The archived index, or a copy of it.

    Args:
        index: a folder (a checkout of adapter-hub/Hub, or a copy of its ``dist/v2``) or the address of a ``dist/v2``; None for
            the archived one.
        moved: asks which entries, by name, are on the HF Hub by now; they are left out. None to list all.

    Raises:
        HubError: the folder is not there or holds no index; the address is none that is asked.
    """

    def __init__(self, index: str | Path | None = None, *, moved: Callable[[Traffic], frozenset[str]] | None = None) -> None:
        self.traffic = Traffic()
        self._moved = moved
        self._away: dict[str, int] = {}
        where = INDEX if index is None else str(index)
        self._folder = None if where.startswith(("http://", "https://")) else Path(where).expanduser().absolute()
        if self._folder is None:
            self._address = where.rstrip("/")
            self._addresses = Addresses.of_index(self._address)
        else:
            self._found = find_index(self._folder)
            self._addresses = Addresses()
        self.name = "zips" if index is None else f"zips:{self._folder or self._address}"
        self._transport = Transport(patience=_PATIENCE, permit=self._addresses.check)
        self._index_transport = Transport(permit=self._addresses.check)

    def discover(self, query: Query) -> Iterator[Listing]:
        """The index's entries, each version a listing; of an entry on the web that has not moved, the default version alone.

        The index knows base, task, language and author; a query for a licence finds nothing, and downloads are not counted.

        Raises:
            HubError: the index's server does not answer, or with something else.
        """
        moved = self._moved(self.traffic) if self._moved is not None else frozenset()

        def wanted(entry: Entry) -> bool:
            return fits(entry, query) and _name_there(entry.repo) not in moved

        repos = 0
        for found in self._entries(wanted, query):
            if query.limit is not None and repos >= query.limit:
                return
            listed = list(_listed(found, wanted, query))
            repos += bool(listed)
            yield from listed

    def open(self, listing: Listing) -> ZipBundle:
        """The files of one adapter; its zip file is fetched when the first is asked for."""
        return ZipBundle(listing, self._download)

    def stop(self) -> None:
        """End every wait and every read within moments."""
        self._transport.stop()
        self._index_transport.stop()

    def _entries(self, wanted: Callable[[Entry], bool], query: Query) -> Iterator[Found]:
        if self._folder is not None:
            return folder_entries(*self._found)
        return remote_entries(self._address, self._get, wanted, query.known)

    def _get(self, url: str, limit: int) -> bytes:
        try:
            return self._index_transport.get(url, limit=limit, traffic=self.traffic).body
        except HubAnswerError as error:
            if error.reason in ("not found", "file too large") and not url.endswith("/all.json"):
                raise AdapterError(error.reason, error.detail, lasting=False) from error
            raise

    def _download(self, url: str, file: IO[bytes], limit: int, traffic: Traffic) -> None:
        """Fetch a zip file; whatever its server does concerns the adapters that lie there alone."""
        host = urlsplit(url).netloc
        if self._away.get(host, 0) >= _GIVEN_UP:
            raise AdapterError("hub fault", f"{host} was away when other zip files were asked for", lasting=False)
        try:
            self._fetch(Call(url, limit, traffic=traffic), file)
        except HubStoppedError:
            raise
        except HubAnswerError as error:
            if error.reason == "hub fault":
                self._away[host] = self._away.get(host, 0) + 1
            raise AdapterError(error.reason, error.detail, lasting=False) from error
        except HubError as error:
            # Its transport has given it up; where nothing at all may be asked, that is the whole sync's matter.
            self._transport.check()
            raise AdapterError("hub fault", str(error), lasting=False) from error
        self._away[host] = 0
        traffic.bytes_whole += file.tell()

    def _fetch(self, call: Call, file: IO[bytes]) -> None:
        tries = self._transport.tries(call)
        until = time.monotonic() + _LONGEST
        while True:
            try:
                file.seek(0)
                file.truncate()
                with self._transport.ask(call, tries) as reply:
                    reply.bound(call.limit)
                    if reply.packed:  # not asked for, and a few bytes could become gigabytes
                        raise HubAnswerError("bad answer", f"{urlsplit(call.url).netloc} sends its zip file packed once more")
                    while data := reply.read():
                        file.write(data)
                        reply.bound(call.limit, file.tell())
                        if time.monotonic() > until:
                            raise HubAnswerError("hub fault", f"{urlsplit(call.url).netloc} sends its zip file too slowly")
                    if reply.length not in (None, file.tell()):
                        raise Fault(f"the answer has {file.tell():,} bytes, not {reply.length:,}", status=reply.status)
            except Fault as fault:
                tries.again(fault)
            else:
                tries.done()
                return


def _name_there(repo: str) -> str:
    """What the migration called an entry on the HF Hub: its file's name up to the first dot (``migrate_to_hf.py``)."""
    return repo.partition("/")[2].partition(".")[0]


def _listed(found: Found, wanted: Callable[[Entry], bool], query: Query) -> Iterator[Listing]:
    if found.entry is None:
        # What cannot be understood is counted where everything is, and belongs to no narrower question.
        if Query(limit=query.limit, known=query.known) == query:
            yield Listing(found.repo, found.digest, None, dict.fromkeys(MEMBERS, -1))
    elif wanted(found.entry):
        yield from listings(found.entry)
