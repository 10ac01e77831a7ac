"""What `make demo` costs after set-up, process by process, as the operating system accounts for it.

    python bench/demo.py [--out bench/results/demo.json]

Runs the two commands of the demo on an empty cache, five times over, each time the search once more, and the two help pages, each
in a process of its own; the run of the median is shown. The alternative in
the same run: importing peft and opening every adapter of the example zoo into the base model, once, without running any
of them - the least that trying the zoo one by one would cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
HELP_RUNS = 5
DEMO_RUNS = 5

LOAD_EACH = """
import sys, warnings; warnings.filterwarnings('ignore')
from pathlib import Path
from hubrank.target.base import find_base
from peft import PeftModel
from transformers import AutoModel
base = find_base('sentence-transformers/all-MiniLM-L6-v2').folder
for config in sorted(Path(sys.argv[1]).rglob('adapter_config.json')):
    PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(config.parent))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One process: seconds on the clock, seconds of CPU, peak memory."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def run(*command: str) -> tuple[Cost, str]:
    """Run a process to its end; its cost and what it printed."""
    with tempfile.TemporaryFile("w+") as out:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        out.seek(0)
        return Cost(round(wall, 3), round(usage.ru_utime + usage.ru_stime, 3), round(usage.ru_maxrss / 1024, 1)), out.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="examples/banking.jsonl")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    hubrank = [sys.executable, "-m", "hubrank"]
    runs = []
    for _ in range(DEMO_RUNS):
        with tempfile.TemporaryDirectory() as cache:
            sync, printed = run(*hubrank, "sync", "--hub", "examples/zoo", "--cache-dir", cache, "--format", "json")
            adapters = json.loads(printed)["added"]
            search, printed = run(*hubrank, "search", "--target", options.target, "--cache-dir", cache, "--format", "json")
            tuning = json.loads(printed)["target"]["seconds"]
            again, _ = run(*hubrank, "search", "--target", options.target, "--cache-dir", cache, "--format", "json")
            runs.append((sync.wall_s + search.wall_s - tuning, sync, search, tuning, again))
    runs.sort(key=lambda one: one[0])
    _, sync, search, tuning, again = runs[len(runs) // 2]
    pages = {}
    for page in (["--help"], ["search", "--help"]):
        costs = [run(*hubrank, *page)[0].cpu_s for _ in range(HELP_RUNS)]
        pages["hubrank " + " ".join(page)] = {"cpu_s_median": statistics.median(costs), "cpu_s_max": max(costs)}
    each, _ = run(sys.executable, "-c", LOAD_EACH, "examples/zoo")
    wall = sync.wall_s + search.wall_s
    result = {
        "command": "python bench/demo.py",
        "adapters": adapters,
        "sync": asdict(sync),
        "search": asdict(search),
        "search_again": asdict(again),
        "tuning_s": tuning,
        "demo_wall_s": round(wall, 2),
        "everything_but_tuning_s": round(wall - tuning, 2),
        "everything_but_tuning_s_of_each_run": [round(seconds, 2) for seconds, *_ in runs],
        "peak_mb": max(sync.peak_mb, search.peak_mb),
        "help": pages,
        "alternative_open_each_adapter_in_peft": asdict(each),
        "sync_against_alternative_wall": round(each.wall_s / sync.wall_s, 1),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
