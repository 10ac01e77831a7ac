"""What the stand-in hub answers: the routes for listing and downloading, as ``huggingface_hub`` and hubrank expect them."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from tests.standin import Fault, Repo, Seen, StandInHub, blob_sha1, commit_of, digest

__all__ = ["CdnHandler", "HubHandler"]

_KEY = b"signs the addresses of large files"


class _Handler(BaseHTTPRequestHandler):
    """One connection to one of the servers."""

    state: StandInHub
    server_name: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.state.lock:
            self.state.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.posted = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.state.seen.append(Seen(self.server_name, self.command, self.path, headers))
        if self.server_name == "hub":
            self.state.requests.append((self.command, self.path))
        self.spoiled = self.state.fault(self.command, self.path) or Fault()
        time.sleep(self.state.latency + self.spoiled.stall)
        if self.spoiled.status:
            self._send(self.spoiled.status, self.spoiled.body, self.spoiled.headers)
        else:
            self.route(urlsplit(self.path).path)

    def route(self, path: str) -> None:
        raise NotImplementedError

    def _send_file(self, data: bytes, headers: Mapping[str, str]) -> None:
        """The file, or the range of it that is asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"Accept-Ranges": "bytes", **headers}
        if wanted is None or self.spoiled.whole:
            self._send(200, data, headers)
            return
        start, stop = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        if start >= len(data):
            self._send(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        else:
            self._send(206, memoryview(data)[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _send(self, status: int, data: bytes | memoryview, headers: Mapping[str, str]) -> None:
        fault = self.spoiled
        if fault.flip is not None and len(data) > fault.flip:
            data = bytes(data)
            data = data[: fault.flip] + bytes([data[fault.flip] ^ 0x10]) + data[fault.flip + 1 :]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data) + fault.longer), **headers, **fault.more}.items():
            if value is not None:
                self.send_header(name, value)
        if fault.cut is not None:
            data = data[: fault.cut]
        self.end_headers()
        if self.command != "HEAD":
            for at in range(0, len(data), 65536):
                piece = data[at : at + 65536]
                self.state.wait_for_line(len(piece))
                self.wfile.write(piece)
        if fault.cut is not None or fault.longer:
            self.close_connection = True
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _error(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})


class CdnHandler(_Handler):
    """Large files by their sha256, to whoever has a signed address."""

    server_name = "cdn"

    def route(self, path: str) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        sha = path.rpartition("/")[2]
        if query.get("Signature") != _signature(sha, query.get("Expires", "")) or float(query["Expires"]) < time.time():
            self._send(403, b"<?xml?><Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
            return
        repo = self.state.repos.get(unquote(path).removeprefix("/cdn/").rpartition("/")[0])
        for files in (repo.files, *repo.branches.values()) if repo is not None else ():
            for data in files.values():
                if digest(data) == sha:
                    self._send_file(data, {"ETag": f'"{sha}"'})
                    return
        self._send(404, b"", {})


class HubHandler(_Handler):
    """Lists, repositories and files."""

    server_name = "hub"

    def route(self, path: str) -> None:
        path = unquote(path)
        kind = "resolvers" if "/resolve/" in path else "api"
        if not self._within_limits(kind):
            return
        if path == "/api/models":
            self._list(parse_qs(urlsplit(self.path).query))
        elif path.startswith("/loop/"):
            self._send(302, b"", {"Location": f"/loop/{3 - int(path.rpartition('/')[2])}"})
        elif kind == "resolvers":
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            if (repo := self._repo(name)) is not None:
                self._file(repo, *rest.split("/", 1))
        elif path.startswith("/api/models/"):
            parts = path.removeprefix("/api/models/").split("/")
            if (repo := self._repo("/".join(parts[:2]))) is not None:
                self._about(repo, parts[2] if len(parts) > 2 else "", parts[3:])
        else:
            self._error(404, "EntryNotFound")

    def _within_limits(self, kind: str) -> bool:
        counted = self.state.count(kind)
        if counted is None:
            return True
        (quota, window), (left, reset) = self.state.limits[kind], counted
        self.spoiled.more.setdefault("RateLimit", f'"{kind}";r={max(left, 0)};t={int(reset) + 1}')
        self.spoiled.more.setdefault("RateLimit-Policy", f'"fixed window";"{kind}";q={quota};w={int(window) or 1}')
        if left < 0:
            self._send(429, b"", {"Retry-After": str(int(reset) + 1)})
        return left >= 0

    def _repo(self, name: str) -> Repo | None:
        """The repository if it may be seen; else that is answered."""
        known = self.headers.get("Authorization") == f"Bearer {self.state.token}"
        if name in self.state.renamed:
            self._send(307, b"", {"Location": self.path.replace(name, self.state.renamed[name])})
            return None
        repo = self.state.repos.get(name)
        if repo is None or (repo.private and not known):
            self._error(404 if known else 401, "RepoNotFound")
        elif repo.disabled:
            self._send(403, b"", {"X-Error-Message": "Access to this resource is disabled."})
        elif repo.gated and not known:
            self._error(403, "GatedRepo")
        else:
            return repo
        return None

    def _list(self, query: dict[str, list[str]]) -> None:
        known = self.headers.get("Authorization") == f"Bearer {self.state.token}"
        wanted, author, search = set(query.get("filter", [])), query.get("author", [""])[0], query.get("search", [""])[0]
        found = [
            repo
            for repo in self.state.repos.values()
            if wanted <= {*repo.tags, repo.pipeline_tag}
            and (not repo.private or known)
            and (not author or repo.id.startswith(f"{author}/"))
            and search.lower() in repo.id.lower()
        ]
        if query.get("sort") == ["downloads"]:
            found.sort(key=lambda repo: -repo.downloads)
        limit = min(int(query.get("limit", ["1000"])[0]), self.state.page)
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + limit < len(found):
            more = urlencode({**query, "cursor": [start + limit]}, doseq=True)
            headers["Link"] = f'<{self.state.url}/api/models?{more}>; rel="next"'
        entries = [_entry(repo, repo.files) for repo in found[start : start + limit]]
        if "expand" in query:
            names = {"id", "_id", *query["expand"]}
            entries = [{name: value for name, value in entry.items() if name in names} for entry in entries]
        self._json(entries, headers)

    def _about(self, repo: Repo, what: str, rest: list[str]) -> None:
        if what == "refs":
            heads = {"main": repo.files, **repo.branches}
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit_of(f)} for n, f in heads.items()]
            self._json({"branches": branches, "converts": [], "tags": []})
            return
        files = repo.at(rest[0] if rest else "main")
        if files is None:
            self._error(404, "RevisionNotFound")
        elif what == "tree":
            within = "/".join(rest[1:])
            self._json([_tree_entry(repo, files, path) for path in sorted(files) if path.startswith(within)])
        elif what == "paths-info":
            kind = self.headers.get("Content-Type", "")
            paths = json.loads(self.posted)["paths"] if "json" in kind else parse_qs(self.posted.decode()).get("paths", [])
            self._json([_tree_entry(repo, files, path) for path in paths if path in files])
        elif what in ("", "revision"):
            self._json(_entry(repo, files, blobs="blobs" in self.path))
        else:
            self._error(404, "EntryNotFound")

    def _file(self, repo: Repo, revision: str, name: str) -> None:
        files = repo.at(revision)
        if files is None:
            self._error(404, "RevisionNotFound")
            return
        commit = {"X-Repo-Commit": commit_of(files)}
        if name not in files:
            self._error(404, "EntryNotFound", commit)
        elif name.endswith(repo.lfs):
            sha = digest(files[name])
            expires = f"{time.time() + self.state.expires:.3f}"
            signed = urlencode({"Expires": expires, "Signature": _signature(sha, expires)})
            where = f"{self.state.cdn_url}/cdn/{repo.id}/{sha}?{signed}"
            linked = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(files[name]))}
            self._send(302, b"", {**commit, **linked, "Location": where})
        else:
            self._send_file(files[name], {**commit, "ETag": f'"{blob_sha1(files[name])}"'})

    def _json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        packed = "gzip" in self.headers.get("Accept-Encoding", "") and len(data) > 1000
        encoding = {"Content-Encoding": "gzip"} if packed else {}
        sent = gzip.compress(data, 1) if packed else data
        self._send(200, sent, {"Content-Type": "application/json", **encoding, **(headers or {})})


def _signature(sha: str, expires: str) -> str:
    return hmac.new(_KEY, f"{sha} {expires}".encode(), "sha256").hexdigest()


def _entry(repo: Repo, files: Mapping[str, bytes], *, blobs: bool = False) -> dict[str, Any]:
    siblings = [{"rfilename": name, **(_blob(repo, files, name) if blobs else {})} for name in sorted(files)]
    return {
        "_id": hashlib.md5(repo.id.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.partition("/")[0],
        "sha": commit_of(files),
        "lastModified": "2024-05-01T12:00:00.000Z",
        "createdAt": "2024-05-01T12:00:00.000Z",
        "likes": 0,
        "tags": repo.tags,
        "cardData": repo.card,
        "config": repo.config,
        "pipeline_tag": repo.pipeline_tag,
        "gated": "manual" if repo.gated else False,
        "private": repo.private,
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "usedStorage": sum(len(data) for data in files.values()),
        "siblings": siblings,
    }


def _blob(repo: Repo, files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    entry = _tree_entry(repo, files, name)
    lfs = entry.get("lfs")
    large = {"lfs": {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": 130}} if lfs else {}
    return {"size": entry["size"], "blobId": entry["oid"], **large}


def _tree_entry(repo: Repo, files: Mapping[str, bytes], path: str) -> dict[str, Any]:
    data = files[path]
    entry = {"type": "file", "path": path, "size": len(data), "oid": blob_sha1(data)}
    if path.endswith(repo.lfs):
        entry["lfs"] = {"oid": digest(data), "size": len(data), "pointerSize": 130}
    return entry
