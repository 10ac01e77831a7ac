"""Run by test_cluster in a process of its own: syncs on a cluster of two workers, and prints what came of it as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import ray

from hubrank.hubs.budget import RateBudget
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.http import Transport
from hubrank.hubs.huggingface import HuggingFaceHub
from hubrank.hubs.patience import Patience
from hubrank.hubs.protocol import Query
from hubrank.zoo.cluster import SharedBudget
from hubrank.zoo.store import Zoo
from hubrank.zoo.sync import sync_hubs
from tests.zoo.hub_repos import contents


class DeadlyHub(FolderHub):
    """A folder, one of whose adapters kills the first process that opens it."""

    def open(self, listing):
        marker = self.root.parent / "killed"
        if listing.repo == "org/03" and not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(listing)


def killed_worker(folder: Path) -> dict:
    with Zoo(folder / "cluster", create=True) as zoo, Zoo(folder / "threads", create=True) as plain:
        report = sync_hubs(zoo, [DeadlyHub(folder / "hub")], Query(), ray="auto")
        sync_hubs(plain, [FolderHub(folder / "hub")], Query())
        return {
            "added": report.added,
            "skipped": dict(report.skipped),
            "bytes": report.bytes_read,
            "same": contents(zoo) == contents(plain),
            "killed": int((folder / "killed").read_text()) != os.getpid(),
            "wrong": zoo.verify(),
        }


def shared_budget(folder: Path, url: str) -> dict:
    budget = SharedBudget(RateBudget({"resolvers": 4, "api": 500}))
    hub = HuggingFaceHub(url, transport=Transport(url, budget=budget, patience=Patience(together=0.5)))
    with Zoo(folder / "limited", create=True) as zoo:
        report = sync_hubs(zoo, [hub], Query(), ray="auto")
        return {"added": report.added, "skipped": dict(report.skipped)}


def interrupted(folder: Path, url: str) -> None:
    """Sync through the command line until somebody ends it; the hub is one that stops answering."""
    from hubrank.cli import main

    main(["sync", "--hub", "hf", "--base", "all", "--ray", "auto", "--cache-dir", str(folder / "interrupted")])


if __name__ == "__main__":
    ray.init(num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
    try:
        folder = Path(sys.argv[1])
        if sys.argv[3:] == ["interrupted"]:
            # As in a process that hubrank starts Ray in itself; Ray has put a handler of its own here.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            print("ready", flush=True)
            interrupted(folder, sys.argv[2])
        print(json.dumps({"killed": killed_worker(folder), "limited": shared_budget(folder, sys.argv[2])}))
    finally:
        ray.shutdown()
