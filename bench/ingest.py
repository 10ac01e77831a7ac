"""What it costs to turn published adapters into signatures, beside what loading them costs.

    python bench/ingest.py [--out bench/results/ingest.json] [--runs 9]

Synthetic files of real shapes, in a temporary folder, in the state of a warm page cache:

- LoRA r=8 on query and value of RoBERTa-base, float32, with its classifier head, as peft saves it (.safetensors);
- Pfeiffer adapter with bottleneck 48 of RoBERTa-base, float32, as the adapters library saves it (.bin);
- LoRA r=16 on all seven linear modules of LLaMA-3-8B (32 layers, d 4096, ffn 14336, kv 1024), in bf16 and in fp16.

``hubrank`` is the package's own path: FolderHub's listing with its hash of every file, in a thread of its own as in a sync;
read_adapters, sign_adapter, encode_signature and the hashes that go on record, in another. The adapters of a folder are of
one shape, as those that somebody trained in one way, so that the header of their weights and the front matter of their cards
are parsed once in all. Beside it, one after the other in every run: (a) only the tensors that hubrank uses, loaded with safetensors
(torch.load(weights_only=True) for .bin, which loads all); (b) peft or adapters loading the same adapter into a model, twice:
with the model, as somebody does who has an adapter and its base model on disk (the base, of RoBERTa-base's full size, by
AutoModel.from_pretrained, then the adapter), and the adapter's part of that alone: PeftModel.from_pretrained or load_adapter
into a model that is there already. For the model of 8B only the latter. Every base weight of the model of 8B is one number seen at
all places (stride 0), on which loading an adapter does nothing; it gets its adapter by low_cpu_mem_usage, peft's cheapest
way. (On the meta device peft leaves the adapter there too, and loads nothing.)
Medians over the runs, of processes that share the machine's cores with others; ratios are of the same run's neighbours.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hubrank.checkpoints.reader import read_adapters
from hubrank.hubs.folder import FolderHub
from hubrank.hubs.protocol import Listing, Query
from hubrank.signatures.canonical import sign_adapter
from hubrank.signatures.encoding import encode_signature
from hubrank.signatures.threads import one_thread

SMALL = 8  # adapters a folder; the large ones stand alone
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
ROBERTA |= {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LLAMA = {
    "vocab_size": 200,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
}
LINEARS = {
    **{f"self_attn.{name}_proj": (4096 if name in "qo" else 1024, 4096) for name in "qkvo"},
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
HUBRANK, LISTING, TENSORS = "hubrank", "hubrank_listing_alone", "tensors_alone"
LIBRARY, WITH_MODEL = "library_load", "library_load_with_model"


@dataclass(frozen=True, slots=True)
class Case:
    """A folder of adapters of one shape, and the ways to take them in."""

    title: str
    folder: Path
    tensors_alone: Callable[[Path], object]
    library: Callable[[Path], Callable[[], object]]
    """Loads one adapter, which is timed, and gives what takes it out again, which is not."""
    with_model: Callable[[Path], object] | None = None
    """Loads the base model from disk and the adapter into it."""

    @property
    def adapters(self) -> list[Path]:
        """One folder an adapter."""
        return sorted(path.parent for path in self.folder.rglob("adapter_config.json"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the advice that the libraries print on every load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ingest(folder: Path) -> int:
    """Bytes of the signatures of every adapter in a folder, by the package's own path: listed in one thread, read in another."""
    with one_thread():  # as in a sync, around all of it
        return _ingest(folder)


def _ingest(folder: Path) -> int:
    hub = FolderHub(folder)
    listings: SimpleQueue[Listing | None] = SimpleQueue()

    def list_all() -> None:
        try:
            for listing in hub.discover(Query()):
                listings.put(listing)
        finally:
            listings.put(None)

    lister = threading.Thread(target=list_all)
    lister.start()
    size = 0
    while (listing := listings.get()) is not None:
        bundle = hub.open(listing)
        for adapter in read_adapters(listing, bundle):
            size += len(encode_signature(sign_adapter(adapter)))
        if len(bundle.hashes) < 2:
            raise SystemExit("the files on record have no hashes")
    lister.join()
    return size


def randomise(model: Any, seed: int) -> None:
    """Numbers that no initialisation left at zero."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name or ".adapters." in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02


def tensors_of_safetensors(folder: Path) -> list[Any]:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "np" if "fp32" in folder.parent.name else "pt") as file:
        return [file.get_tensor(name) for name in file.keys() if ".lora_" in name]  # noqa: SIM118 - not a mapping


def tensors_of_bin(folder: Path) -> Any:
    import torch

    return torch.load(folder / "pytorch_adapter.bin", map_location="cpu", weights_only=True)


def lora_case(root: Path) -> Case:
    """RoBERTa-base LoRA by peft, with head."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import RobertaConfig, RobertaForSequenceClassification

    folder, base = root / "lora-fp32", root / "roberta-base-with-head"
    model = RobertaForSequenceClassification(RobertaConfig(**ROBERTA))
    model.save_pretrained(base)
    model.name_or_path = model.config._name_or_path = "FacebookAI/roberta-base"  # noqa: SLF001
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    for seed in range(SMALL):
        tuned = get_peft_model(model, config)
        randomise(tuned, seed)
        tuned.save_pretrained(folder / f"lora-{seed}", save_embedding_layers=False)
        model = tuned.unload()

    def load(path: Path) -> Callable[[], object]:
        return PeftModel.from_pretrained(model, path).unload

    def with_model(path: Path) -> object:
        return PeftModel.from_pretrained(RobertaForSequenceClassification.from_pretrained(base), path)

    return Case(
        "RoBERTa-base LoRA r=8 on query and value, with head, float32", folder, tensors_of_safetensors, load, with_model
    )


def pfeiffer_case(root: Path) -> Case:
    """RoBERTa-base Pfeiffer adapter by adapters."""
    import adapters
    from transformers import RobertaConfig, RobertaModel

    folder, base = root / "pfeiffer", root / "roberta-base"
    model = RobertaModel(RobertaConfig(**ROBERTA))
    model.save_pretrained(base)
    model.name_or_path = model.config._name_or_path = "roberta-base"  # noqa: SLF001
    adapters.init(model)
    for seed in range(SMALL):
        name = f"task{seed}"
        model.add_adapter(name, config="seq_bn")
        randomise(model, seed)
        (folder / name).mkdir(parents=True)
        model.save_adapter(str(folder / name), name)
        model.delete_adapter(name)

    def load(path: Path) -> Callable[[], object]:
        name = model.load_adapter(str(path))
        return lambda: model.delete_adapter(name)

    def with_model(path: Path) -> object:
        fresh = RobertaModel.from_pretrained(base)
        adapters.init(fresh)
        fresh.load_adapter(str(path))
        return fresh

    return Case("RoBERTa-base Pfeiffer adapter, bottleneck 48, float32", folder, tensors_of_bin, load, with_model)


def large_case(root: Path, dtype: str) -> Case:
    """LLaMA-3-8B LoRA on all linear modules."""
    import torch
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = root / f"large-{dtype}"
    write_large(folder / "adapter", dtype)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    for module in model.modules():
        for part, parameter in list(module.named_parameters(recurse=False)):
            shared = torch.zeros(1, dtype=kind).expand(parameter.shape)
            setattr(module, part, torch.nn.Parameter(shared, requires_grad=False))

    def load(path: Path) -> Callable[[], object]:
        tuned = PeftModel.from_pretrained(model, path, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
        loaded = [parameter for name, parameter in tuned.named_parameters() if ".lora_" in name]
        if any(parameter.is_meta or not parameter.any() for parameter in loaded[:2]):
            raise SystemExit("peft did not load the adapter: the comparison would not be fair")
        return tuned.unload

    return Case(f"LLaMA-3-8B LoRA r=16 on all seven linear modules, {dtype}", folder, tensors_of_safetensors, load)


def write_large(folder: Path, dtype: str, *, rank: int = 16) -> None:
    """The files of a LLaMA-3-8B LoRA, random."""
    import torch
    from safetensors.torch import save_file

    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(LLAMA["num_hidden_layers"]):
        for module, (d_out, d_in) in LINEARS.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{prefix}.lora_A.weight"] = (torch.randn(rank, d_in, generator=generator) * 0.02).to(kind)
            tensors[f"{prefix}.lora_B.weight"] = (torch.randn(d_out, rank, generator=generator) * 0.02).to(kind)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = sorted(module.rpartition(".")[2] for module in LINEARS)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "meta-llama/Meta-Llama-3-8B",
        "r": rank,
        "lora_alpha": 32,
        "target_modules": modules,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the clock, and of all processors together: the first is what a user waits, the second no other load touches."""

    wall: float
    cpu: float

    def each(self, count: int) -> Spent:
        return Spent(self.wall / count, self.cpu / count)


def timed(work: Callable[[], object]) -> tuple[Spent, object]:
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    result = work()
    return Spent(time.perf_counter() - started, time.process_time() - used), result


def measure(case: Case, runs: int) -> dict[str, Any]:
    """Seconds an adapter for each way, interleaved; the first run only warms up."""
    paths = case.adapters
    times: dict[str, list[Spent]] = {HUBRANK: [], LISTING: [], TENSORS: [], LIBRARY: [], WITH_MODEL: []}
    signature_bytes = 0
    for _ in range(runs + 1):
        spent, size = timed(lambda: ingest(case.folder))
        signature_bytes = int(size) // len(paths)  # type: ignore[call-overload]
        times[HUBRANK].append(spent.each(len(paths)))
        spent, _ = timed(lambda: list(FolderHub(case.folder).discover(Query())))
        times[LISTING].append(spent.each(len(paths)))
        spent, _ = timed(lambda: [case.tensors_alone(path) for path in paths])
        times[TENSORS].append(spent.each(len(paths)))
        loads = []
        for path in paths:
            spent, undo = timed(lambda path=path: case.library(path))
            undo()  # type: ignore[operator]
            loads.append(spent)
        times[LIBRARY].append(Spent(sum(s.wall for s in loads), sum(s.cpu for s in loads)).each(len(loads)))
        if case.with_model is not None:
            spent, _ = timed(lambda: [case.with_model(path) for path in paths[:2]])  # type: ignore[misc]
            times[WITH_MODEL].append(spent.each(2))
    times = {name: values[1:] for name, values in times.items() if values}
    megabytes = sum(file.stat().st_size for file in case.folder.rglob("*") if file.is_file()) / len(paths) / 1e6
    median = statistics.median(spent.wall for spent in times[HUBRANK])

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(a.wall / b.wall for a, b in zip(times[one], times[other], strict=True)), 2)

    def cpu_ratio(one: str, other: str) -> float:
        return round(statistics.median(a.cpu / b.cpu for a, b in zip(times[one], times[other], strict=True)), 2)

    return {
        "adapter": case.title,
        "files_mb": round(megabytes, 2),
        "signature_kb": round(signature_bytes / 1e3, 1),
        "seconds": {name: round(statistics.median(s.wall for s in spent), 5) for name, spent in times.items()},
        "seconds_fastest": {name: round(min(s.wall for s in spent), 5) for name, spent in times.items()},
        "cpu_seconds": {name: round(statistics.median(s.cpu for s in spent), 5) for name, spent in times.items()},
        "adapters_per_s": round(1 / median, 1),
        "mb_per_s": round(megabytes / median, 1),
        "hubrank_over_tensors_alone": ratio(HUBRANK, TENSORS),
        "library_load_over_hubrank": ratio(LIBRARY, HUBRANK),
        **({"library_load_with_model_over_hubrank": ratio(WITH_MODEL, HUBRANK)} if case.with_model else {}),
        "cpu_hubrank_over_tensors_alone": cpu_ratio(HUBRANK, TENSORS),
        "cpu_library_load_over_hubrank": cpu_ratio(LIBRARY, HUBRANK),
        **({"cpu_library_load_with_model_over_hubrank": cpu_ratio(WITH_MODEL, HUBRANK)} if case.with_model else {}),
    }


def peak_of_large(root: Path) -> dict[str, float]:
    """Memory that the ingestion of the large adapter adds to a process, as the operating system accounts for it."""
    # Not ru_maxrss, which a process takes over from the one that started it.
    program = (
        "import sys; from bench.ingest import ingest; from pathlib import Path\n"
        "def peak(): return next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
        "before = peak(); ingest(Path(sys.argv[1])); print(before, peak())"
    )
    here = Path(__file__).parent.parent
    command = [sys.executable, "-c", program, str(root)]
    out = subprocess.run(command, capture_output=True, check=True, text=True, cwd=here).stdout
    before, after = (int(part) / 1024 for part in out.split())
    return {"before_mb": round(before, 1), "peak_mb": round(after, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import adapters
    import numpy as np
    import peft
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name, quiet():
        root = Path(name)
        results = []
        for make in (lora_case, pfeiffer_case):
            results.append(measure(make(root), options.runs))
            print(json.dumps(results[-1], indent=2), file=sys.stderr)
        for dtype in ("bf16", "fp16"):
            results.append(measure(large_case(root, dtype), min(options.runs, 5)))
            print(json.dumps(results[-1], indent=2), file=sys.stderr)
        memory = peak_of_large(root / "large-bf16")
    result = {
        "command": f"python bench/ingest.py --runs {options.runs}",
        "what": {
            HUBRANK: "FolderHub listing with its hashes in one thread; read_adapters, sign_adapter, encode_signature in another",
            LISTING: "of that, the listing: every byte of the files is hashed, the head's too",
            TENSORS: "the tensors that hubrank uses, by safetensors; all of a .bin by torch.load(weights_only=True)",
            LIBRARY: "PeftModel.from_pretrained or load_adapter into a model that is there; 8B: base weights of stride 0",
            WITH_MODEL: "the same after from_pretrained of the base model, of RoBERTa-base's full size, from disk",
        },
        "results": results,
        "goals": {
            "roberta_within_15x_of_tensors_alone": [r["hubrank_over_tensors_alone"] <= 15 for r in results[:2]],
            "roberta_20x_faster_than_library_load_with_model": [
                r["library_load_with_model_over_hubrank"] >= 20 for r in results[:2]
            ],
            "roberta_20x_faster_than_library_load_into_a_model_that_is_there": [
                r["library_load_over_hubrank"] >= 20 for r in results[:2]
            ],
            "large_under_3_s": [r["seconds"][HUBRANK] < 3 for r in results[2:]],
        },
        "memory_of_large_bf16": memory,
        "peak_of_the_bench_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "peft": peft.__version__,
            "adapters": adapters.__version__,
            "transformers": transformers.__version__,
        },
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
