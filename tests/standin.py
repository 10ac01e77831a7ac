"""A stand-in for the HF Hub over real HTTP, for the unmodified huggingface_hub client.

Serves the routes that listing and downloading use: the model list with tags and pages, and files by revision, large ones
by redirect. ``faults`` answers any request with something else.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit


@dataclass
class Repo:
    """One model repository."""

    id: str
    files: dict[str, bytes]
    tags: list[str] = field(default_factory=lambda: ["peft"])
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lfs: tuple[str, ...] = (".safetensors", ".bin")

    @property
    def sha(self) -> str:
        return _sha(self.files)

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch or commit."""
        names = {"main": self.files, **self.branches}
        return names.get(revision) or {_sha(files): files for files in names.values()}.get(revision)


def _sha(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name])
    return digest.hexdigest()


@dataclass
class Fault:
    """What to answer instead: status, headers and body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class StandInHub:
    """The hub's state; ``url`` is where it listens."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.page = 1000
        self.fault: Callable[[str, str], Fault | None] = lambda method, path: None
        self.url = ""

    def add(self, repo: Repo) -> Repo:
        self.repos[repo.id] = repo
        return repo


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Run a stand-in hub on a free local port."""
    hub = StandInHub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.state.requests.append((self.command, self.path))
        fault = self.state.fault(self.command, self.path)
        if fault is not None:
            self._send(fault.status, fault.body, fault.headers, body=body)
            return
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        if path == "/api/models":
            self._list(parse_qs(parts.query), body=body)
        elif "/resolve/" in path:
            self._file(path, body=body)
        elif path.startswith("/lfs/"):
            self._bytes(path.removeprefix("/lfs/"), body=body)
        elif path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"), body=body)
        else:
            self._error(404, "EntryNotFound", body=body)

    def _list(self, query: dict[str, list[str]], *, body: bool) -> None:
        wanted = set(query.get("filter", []))
        found = [repo for repo in self.state.repos.values() if wanted <= set(repo.tags)]
        limit = min(int(query.get("limit", ["1000"])[0]), self.state.page)
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + limit < len(found):
            more = urlencode({**query, "cursor": [start + limit]}, doseq=True)
            headers["Link"] = f'<{self.state.url}/api/models?{more}>; rel="next"'
        self._json([_entry(repo) for repo in found[start : start + limit]], headers, body=body)

    def _info(self, path: str, *, body: bool) -> None:
        name, what, revision = "/".join(path.split("/")[:2]), *[*path.split("/")[2:4], "", ""][:2]
        repo = self.state.repos.get(name)
        if repo is None:
            self._error(404, "RepoNotFound", body=body)
        elif repo.gated:
            self._error(403, "GatedRepo", body=body)
        elif what == "refs":
            heads = {"main": repo.files, **repo.branches}
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": _sha(f)} for n, f in heads.items()]
            self._json({"branches": branches, "converts": [], "tags": []}, {}, body=body)
        elif repo.at(revision or "main") is None:
            self._error(404, "RevisionNotFound", body=body)
        else:
            self._json(_entry(repo, repo.at(revision or "main")), {}, body=body)

    def _file(self, path: str, *, body: bool) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repo = self.state.repos.get(name)
        if repo is None:
            self._error(404, "RepoNotFound", body=body)
        elif repo.gated:
            self._error(403, "GatedRepo", body=body)
        elif (files := repo.at(revision)) is None:
            self._error(404, "RevisionNotFound", body=body)
        elif file not in files:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": _sha(files)}, body=body)
        elif file.endswith(repo.lfs):
            data = files[file]
            headers = {
                "X-Repo-Commit": _sha(files),
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.state.url}/lfs/{name}/{_sha(files)}/{file}",
            }
            self._send(302, b"", headers, body=body)
        else:
            data = files[file]
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            self._send(200, data, {"X-Repo-Commit": _sha(files), "ETag": f'"{blob}"'}, body=body)

    def _bytes(self, path: str, *, body: bool) -> None:
        parts = path.split("/")
        files = self.state.repos["/".join(parts[:2])].at(parts[2])
        data = (files or {})["/".join(parts[3:])]
        self._send(200, data, {"X-Repo-Commit": parts[2], "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, body=body)

    def _json(self, value: object, headers: dict[str, str], *, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers}, body=body)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None, *, body: bool) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, body=body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _entry(repo: Repo, files: dict[str, bytes] | None = None) -> dict[str, Any]:
    files = repo.files if files is None else files
    return {
        "_id": hashlib.md5(repo.id.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo.id,
        "sha": _sha(files),
        "tags": repo.tags,
        "cardData": repo.card,
        "gated": "manual" if repo.gated else False,
        "private": False,
        "disabled": False,
        "downloads": 1,
        "siblings": [{"rfilename": name} for name in sorted(files)],
    }
