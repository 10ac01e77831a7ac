"""AdapterHub's archive made small: adapters packed as they were, indexes in both layouts, and a server of zip files."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

BASE = "bert-base-uncased"
DIM, UNITS, LAYERS = 16, 4, 2


def weights(seed: int = 0, *, houlsby: bool = False, style: str = "adapters", name: str = "sst-2") -> dict[str, torch.Tensor]:
    """A bottleneck adapter of a small BERT: its keys as ``adapters`` writes them, or as adapter-transformers 1 did."""
    random = np.random.default_rng(seed)
    slots = {"output": "adapters" if style == "adapters" else "layer_text_task_adapters"}
    if houlsby:
        slots["attention.output"] = "adapters" if style == "adapters" else "attention_text_task_adapters"
    shapes = {
        "adapter_down.0.weight": (UNITS, DIM),
        "adapter_down.0.bias": (UNITS,),
        "adapter_up.weight": (DIM, UNITS),
        "adapter_up.bias": (DIM,),
    }
    return {
        f"bert.encoder.layer.{layer}.{module}.{slot}.{name}.{part}": torch.from_numpy(
            random.normal(size=shape).astype(np.float32)
        )
        for layer in range(LAYERS)
        for module, slot in sorted(slots.items())
        for part, shape in shapes.items()
    }


def config(*, houlsby: bool = False, style: str = "adapters", name: str = "sst-2") -> dict[str, Any]:
    """The ``adapter_config.json`` beside them."""
    flags = {"mh_adapter": houlsby, "output_adapter": True, "ln_after": False, "ln_before": False}
    if style != "adapters":
        flags = {"MH_Adapter": houlsby, "Output_Adapter": True, "LN_after": False, "LN_before": False}
    method = {**flags, "non_linearity": "swish" if houlsby else "relu", "reduction_factor": DIM // UNITS}
    whole = {"config": method, "hidden_size": DIM, "model_type": "bert", "model_name": BASE, "name": name}
    return {**whole, "version": "adapters.1.0.0"} if style == "adapters" else {**whole, "type": "text_task"}


def files(seed: int = 0, **kind: Any) -> dict[str, bytes]:
    """What one of the archive's zip files holds, head and all."""
    buffer = io.BytesIO()
    torch.save(weights(seed, **kind), buffer)
    return {
        "adapter_config.json": json.dumps(config(**kind)).encode(),
        "pytorch_adapter.bin": buffer.getvalue(),
        "head_config.json": b'{"head_type": "classification"}',
        "pytorch_model_head.bin": b"never read",
    }


def pack(members: dict[str, bytes], **options: Any) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def file_entry(url: str, data: bytes, **more: Any) -> dict[str, Any]:
    """A version's place and hashes."""
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return {"url": url, "sha1": sha1, "sha256": hashlib.sha256(data).hexdigest(), **more}


def entry(versions: dict[str, dict[str, Any]], default: str | None = None, **changes: Any) -> dict[str, Any]:
    """What an entry's YAML says."""
    return {
        "type": "text_task",
        "task": "sentiment",
        "subtask": "sst-2",
        "model_type": "bert",
        "model_name": BASE,
        "author": "Ada",
        "config": {"using": "pfeiffer", "non_linearity": "relu", "reduction_factor": 4},
        "default_version": default or next(iter(versions)),
        "files": [{"version": version, **file} for version, file in versions.items()],
        "citation": "@article{...}",
        **changes,
    }


def write_checkout(root: Path, entries: dict[str, dict[str, Any]]) -> Path:
    """The YAML tree: ``adapters/ORG/NAME.yaml``."""
    for repo, value in entries.items():
        file = root / "adapters" / f"{repo}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(value), "utf-8")
    return root


def dist(entries: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """The files of ``dist/v2`` that ``scripts/generate.py`` of adapter-hub/Hub writes, by path."""
    made, listed = {}, []
    for repo, value in entries.items():
        versions = {file["version"]: {k: v for k, v in file.items() if k != "version"} for file in value["files"]}
        info = {
            "source": "ah",
            "adapter_id": f"@{repo}",
            "model_name": value["model_name"],
            "task": value["task"],
            "subtask": value["subtask"],
            "username": repo.partition("/")[0],
            "adapter_config": {"mh_adapter": False, "non_linearity": "relu", "reduction_factor": 4},
            "sha1_checksum": versions[value["default_version"]].get("sha1"),
        }
        whole = {"config_id": "9076f36a74755ac4", "default_version": value["default_version"], "files": versions, "info": info}
        made[f"adapters/{repo}.json"] = json.dumps(whole).encode()
        listed.append(info)
    return {"all.json": json.dumps(listed).encode(), **made}


@dataclass
class Answer:
    """What a server answers with, where it is not simply a file."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class Server:
    """``pages`` by path, and what was asked: paths, and the headers of each request."""

    url: str
    pages: dict[str, bytes | Answer | Callable[[], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def put(self, path: str, page: bytes | Answer | Callable[[], Answer]) -> str:
        self.pages[path] = page
        return f"{self.url}{path}"


@contextmanager
def server() -> Iterator[Server]:
    """Run one on a free local port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append(self.path)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            page = state.pages.get(self.path, Answer(404))
            answer = page() if callable(page) else page if isinstance(page, Answer) else Answer(body=page)
            self.send_response(answer.status)
            length = len(answer.body) if answer.length is None else answer.length
            for name, value in {"Content-Length": str(length), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = length != len(answer.body)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up on a body it does not want is no news."""

    running = Quiet(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    state = Server(f"http://127.0.0.1:{running.server_port}")
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
