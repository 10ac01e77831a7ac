"""What it costs to sync a zoo with a hub, beside downloading the same repositories.

    python bench/sync.py [--out bench/results/sync.json] [--repos 24] [--unchanged 1000] [--many 5000]

The hub is the tests' stand-in over real HTTP, in a process of its own: 20 ms before every answer, 20 MB/s for all connections
together, large files at another origin. Adapters are LoRA r=8 on query and value of a MiniLM-sized encoder (6 layers, d 384).
Our own limit of requests (the Hub's 500 and 3,000 in five minutes) is off, or most of the time would be waiting for it.

- ``with heads and embeddings``: each file also carries a classifier and an embedding of 10,000 rows, as ``modules_to_save`` and
  resized vocabularies leave them; ``plain``: each file is the LoRA alone. Every repository has a tokenizer and an optimizer
  state of 100 kB too. hubrank syncs into an empty zoo, then ``huggingface_hub.snapshot_download`` fetches the same repositories
  into an empty cache; eight threads each (of the client: eight repositories at once, a thread each), one after the other.
- ``unchanged``: a second sync of many repositories.
- ``many``: the peak of resident memory of a process that syncs so many repositories, as the kernel accounts for it.

Requests are counted at the hub; what follows a redirect is not another one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.standin import Repo, stand_in_hub

LATENCY, BANDWIDTH, THREADS = 0.02, 20e6, 8
BASE, WIDTH, LAYERS, RANK = "org/encoder", 384, 6, 8
VARIANTS = 40  # so many different weights; more repositories share them, under configs of their own


def adapter(i: int, *, rows: int) -> dict[str, bytes]:
    """The files of one repository."""
    rng = np.random.default_rng(i % VARIANTS)
    tensors = {}
    for layer in range(LAYERS):
        for name in ("query", "value"):
            path = f"base_model.model.encoder.layer.{layer}.attention.self.{name}"
            tensors[f"{path}.lora_A.weight"] = rng.standard_normal((RANK, WIDTH), dtype=np.float32)
            tensors[f"{path}.lora_B.weight"] = rng.standard_normal((WIDTH, RANK), dtype=np.float32)
    if rows:
        tensors["base_model.model.embeddings.word_embeddings.weight"] = rng.standard_normal((rows, WIDTH), dtype=np.float32)
        tensors["base_model.model.classifier.weight"] = rng.standard_normal((3, WIDTH), dtype=np.float32)
    config = {"peft_type": "LORA", "base_model_name_or_path": BASE, "r": RANK, "lora_alpha": 16, "note": i}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": save(tensors, metadata={"format": "pt"}),
        "README.md": f"---\nbase_model: {BASE}\nlicense: mit\n---\n# Adapter {i}\n".encode(),
        "tokenizer.json": bytes(100_000),
        "optimizer.pt": bytes(100_000),
    }


def serve(pipe: Connection) -> None:
    """The hub's process: fills, counts and empties itself as it is told."""
    with stand_in_hub() as hub:
        hub.latency, hub.bandwidth = LATENCY, BANDWIDTH
        pipe.send((hub.url, hub.cdn_url))
        while (order := pipe.recv()) is not None:
            what, *rest = order
            if what == "fill":
                count, rows = rest
                hub.repos.clear()
                made = [adapter(i, rows=rows) for i in range(min(count, VARIANTS))]
                for i in range(count):
                    files = dict(made[i % VARIANTS])
                    files["adapter_config.json"] = files["adapter_config.json"].replace(b'"note": ', b'"note": 1%05d' % i)
                    hub.add(
                        Repo(f"org/adapter-{i}", files, tags=["peft", f"base_model:adapter:{BASE}"], card={"base_model": BASE})
                    )
            hub.clear() if what == "clear" else None
            pipe.send(len(hub.requests))


class Hub:
    """The stand-in in its process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url, _ = pipe.recv()

    def order(self, *what: object) -> int:
        self._pipe.send(what)
        return int(self._pipe.recv())


@contextmanager
def running() -> Iterator[Hub]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Hub(ours)
    finally:
        ours.send(None)
        process.join(timeout=10)
        process.kill()


PROGRAM = """
import json, sys, time
from pathlib import Path
from hubrank.hubs.budget import RateBudget
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.protocol import Query
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
hub = HuggingFaceHub(sys.argv[1], budget=RateBudget({}))
with Zoo(Path(sys.argv[2]), create=True) as zoo:
    started = time.perf_counter()
    report = sync_hubs(zoo, [hub], Query(), jobs=int(sys.argv[3]))
    seconds = time.perf_counter() - started
# Not ru_maxrss, which a process takes over from the one that started it.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "added": report.added, "unchanged": report.unchanged, "requests": report.requests,
                  "bytes_read": report.bytes_read, "bytes_whole": report.bytes_whole, "peak_mb": peak / 1024}))
"""


def sync(hub: Hub, folder: Path) -> dict[str, Any]:
    """hubrank in a process of its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, hub.url, str(folder), str(THREADS)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def download(hub: Hub, count: int) -> dict[str, Any]:
    """The client, into an empty cache."""
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()

        def fetch(i: int) -> str:
            return snapshot_download(f"org/adapter-{i}", endpoint=hub.url, cache_dir=cache, max_workers=1)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, range(count)))
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file() and not path.is_symlink())
    return {"seconds": seconds, "bytes": size}


def compare(hub: Hub, count: int, *, rows: int) -> dict[str, Any]:
    """A first sync beside a download of the same."""
    hub.order("fill", count, rows)
    hub.order("clear")
    with tempfile.TemporaryDirectory() as folder:
        ours = sync(hub, Path(folder) / "zoo")
    assert ours["added"] == count, ours
    requests = hub.order("count")
    hub.order("clear")
    theirs = download(hub, count)
    return {
        "adapters": count,
        "hubrank": per_adapter(ours["seconds"], requests, ours["bytes_read"], count),
        "snapshot_download": per_adapter(theirs["seconds"], hub.order("count"), theirs["bytes"], count),
        "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
    }


def per_adapter(seconds: float, requests: int, size: int, count: int) -> Mapping[str, float]:
    return {
        "adapters_per_second": round(count / seconds, 2),
        "requests_per_adapter": round(requests / count, 2),
        "kilobytes_per_adapter": round(size / count / 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repos", type=int, default=24)
    parser.add_argument("--unchanged", type=int, default=1000)
    parser.add_argument("--many", type=int, default=5000)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    with running() as hub, tempfile.TemporaryDirectory() as name:
        heavy = compare(hub, options.repos, rows=10_000)
        plain = compare(hub, 4 * options.repos, rows=0)
        hub.order("fill", options.unchanged, 0)
        zoo = Path(name) / "unchanged"
        sync(hub, zoo)
        hub.order("clear")
        second = sync(hub, zoo)
        assert second["unchanged"] == options.unchanged, second
        second["requests"] = hub.order("count")
        hub.order("fill", options.many, 0)
        many = sync(hub, Path(name) / "many")
        assert many["added"] == options.many, many
    print(f"{'':34}{'adapters/s':>12}{'requests':>10}{'kB':>10}   (each per adapter)")
    for title, result in (("with heads and embeddings", heavy), ("plain", plain)):
        for who in ("hubrank", "snapshot_download"):
            speed, requests, size = result[who].values()
            print(f"{title + ', ' + who:46}"[:46].ljust(34) + f"{speed:>12}{requests:>10}{size:>10}")
        print(f"{'':34}{result['times_faster']:>11}x")
    print(f"second sync of {options.unchanged} unchanged: {second['requests']} requests, {second['seconds']:.2f} s")
    print(f"sync of {options.many}: peak {many['peak_mb']:.0f} MB, {options.many / many['seconds']:.0f} adapters/s")
    result = {
        "command": f"python bench/sync.py --repos {options.repos} --unchanged {options.unchanged} --many {options.many}",
        "hub": {"latency_s": LATENCY, "bytes_per_second": BANDWIDTH, "threads": THREADS},
        "with_heads_and_embeddings": heavy,
        "plain": plain,
        "second_sync_of_unchanged": {
            "adapters": options.unchanged,
            "requests": second["requests"],
            "seconds": round(second["seconds"], 2),
        },
        "many": {
            "adapters": options.many,
            "peak_mb": round(many["peak_mb"], 1),
            "adapters_per_second": round(options.many / many["seconds"], 1),
        },
        "goals": {
            "5x_faster_than_snapshot_download_with_heads_and_embeddings": heavy["times_faster"] >= 5,
            "at_most_3_requests_per_new_adapter": max(r["hubrank"]["requests_per_adapter"] for r in (heavy, plain)) <= 3,
            "at_most_5_requests_for_unchanged": second["requests"] <= 5,
            "under_500_mb": many["peak_mb"] < 500,
        },
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
