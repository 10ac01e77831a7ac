"""A realistic population for the stand-in hub: the example zoo, and small adapters of every family that is read.

Each family's first adapter is saved by the real library, peft or adapters; the others have the same files with other numbers.
Around them lies what lies around adapters on the Hub: heads and embeddings in the same file, optimizer states, checkpoints,
tokenizers, versions on branches, gated, private, disabled and renamed repositories, and a few that are broken.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import count as numbers
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load, save

from tests.standin import Repo, StandInHub

__all__ = ["family_files", "fill", "population"]

ZOO = Path(__file__).parent.parent / "examples" / "zoo"
ADAPTERS_METHODS = (
    *("double_seq_bn", "seq_bn", "par_bn", "compacter++[reduction_factor=8]", "prefix_tuning", "prompt_tuning"),
    *("lora", "ia3", "loreft", "mam", "unipelt"),
)
TASKS = ("text-classification", "token-classification", "question-answering", "text-generation", None)
ADAPTERHUB_TASKS = ("nli/multinli", "nli/rte", "sentiment/sst-2", "qa/squad1", "sts/mrpc")
LANGUAGES, LICENSES = ("en", "de", "zh"), ("apache-2.0", "mit", "cc-by-4.0")


def fill(hub: StandInHub, count: int = 300, *, seed: int = 0, rows: int = 400) -> list[Repo]:
    """Put a population on a hub; some of its repositories are found under an older name too."""
    repos = population(count, seed=seed, rows=rows)
    for i, repo in enumerate(repos):
        hub.add(repo)
        if i % 60 == 7:
            hub.renamed[f"{repo.id}-old"] = repo.id
    return repos


def population(count: int = 300, *, seed: int = 0, rows: int = 400) -> list[Repo]:
    """So many repositories, always the same for a seed.

    Args:
        rows: of the embedding, 384 wide, that every eighth carries beside its adapter.
    """
    return [replace(repo, files=dict(repo.files), branches=dict(repo.branches)) for repo in _population(count, seed, rows)]


@lru_cache(maxsize=4)
def _population(count: int, seed: int, rows: int) -> tuple[Repo, ...]:
    rng = np.random.default_rng(seed)
    examples = list(_examples())
    families = [_family_repo(name, files) for name, files in family_files().items()]
    found: list[Repo] = [*examples, *families]
    for i in numbers():
        if len(found) >= count:
            break
        # Half of the Hub's adapters are LoRA.
        model = examples[i % len(examples)] if i % 2 else families[i // 2 % len(families)]
        found.append(replace(model, id=f"user-{i % 40}/{model.id.partition('/')[2]}-{i}", files=_varied(model.files, rng)))
    return tuple(_furnished(repo, i, rng, rows) for i, repo in enumerate(found[:count]))


def _examples() -> Iterator[Repo]:
    for folder in sorted(path.parent for path in ZOO.glob("*/*/adapter_config.json")):
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        card = yaml.safe_load(files["README.md"].decode().split("---")[1])
        base = json.loads(files["adapter_config.json"])["base_model_name_or_path"]
        tags = ["peft", "safetensors", "lora", f"base_model:{base}", f"base_model:adapter:{base}"]
        yield Repo(f"{folder.parent.name}/{folder.name}", files, tags=tags, card=card)


@lru_cache(maxsize=1)
def family_files() -> Mapping[str, Mapping[str, bytes]]:
    """The files of one adapter of each family, by a name of ours; made by the real libraries."""
    import peft

    from tests.checkpoints.adapters_models import model_with, saved
    from tests.checkpoints.peft_models import tune
    from tests.checkpoints.test_peft_families import FAMILIES as PEFT

    made: dict[str, dict[str, bytes]] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, (kind, model, config) in PEFT.items():
            folder = Path(root, f"peft-{name}")
            tune(model, getattr(peft, kind)(**config), folder, merge=False)
            made[f"peft {name}"] = _files(folder, "adapter_config.json", "adapter_model.safetensors")
        for method in ADAPTERS_METHODS:
            folder = Path(root, f"adapters-{method}")
            saved(model_with("bert", method), folder)
            files = _files(folder, "adapter_config.json", "pytorch_adapter.bin")
            config = {**json.loads(files["adapter_config.json"]), "model_name": "org/tiny"}
            made[f"adapters {method}"] = {**files, "adapter_config.json": json.dumps(config).encode()}
    tensors = load(made["peft LORA"]["adapter_model.safetensors"])
    made["peft LORA bin"] = {
        "adapter_config.json": made["peft LORA"]["adapter_config.json"],
        "adapter_model.bin": _torch_bytes(tensors),
    }
    note = {"base_model": "org/tiny", "method": "prompt", "weights": "soft.npy", "task": "rte"}
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32))
    made["bare prompt"] = {"hubrank.json": json.dumps(note).encode(), "soft.npy": buffer.getvalue()}
    return made


def _files(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def _family_repo(name: str, files: Mapping[str, bytes]) -> Repo:
    title = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    if not name.startswith("adapters"):
        return Repo(f"family/{title}", dict(files), tags=["peft", "base_model:adapter:org/tiny"])
    return Repo(
        f"AdapterHub/{title}",
        {**files, "README.md": b"---\ntags:\n- adapter-transformers\n---\n# An adapter\n"},
        tags=["adapter-transformers", "bert"],
        config={"adapter_transformers": {"model_name": "org/tiny", "model_class": "BertModel"}},
    )


def _varied(files: Mapping[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """The same files with other numbers in the weights."""
    return {name: _noisy(name, data, rng) for name, data in files.items()}


def _noisy(name: str, data: bytes, rng: np.random.Generator) -> bytes:
    def noisy(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        return (array + 0.05 * rng.standard_normal(array.shape)).astype(array.dtype)

    if name.endswith(".safetensors"):
        return save({key: noisy(array) for key, array in load(data).items()}, metadata={"format": "pt"})
    if name.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, noisy(np.load(io.BytesIO(data))))
        return buffer.getvalue()
    if name.endswith(".bin"):
        import torch

        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return _torch_bytes({key: noisy(tensor.numpy()) for key, tensor in state.items()})
    return data


def _torch_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({key: torch.from_numpy(array.copy()) for key, array in tensors.items()}, buffer)
    return buffer.getvalue()


def _furnished(repo: Repo, i: int, rng: np.random.Generator, rows: int) -> Repo:
    """The repository with what lies around its adapter, and the state that the Hub has it in."""
    files, tags, branches = dict(repo.files), list(repo.tags), {}
    task, language, license_ = TASKS[i % len(TASKS)], LANGUAGES[i % 3], LICENSES[i % 3]
    versioned = "adapter-transformers" in tags
    tags += [language, f"license:{license_}"] + ([f"adapterhub:{ADAPTERHUB_TASKS[i % 5]}"] if versioned else [])
    if i % 8 == 3 and "adapter_model.safetensors" in files:
        files["adapter_model.safetensors"] = _with_embedding(files["adapter_model.safetensors"], rng, rows)
    if i % 5 == 1:
        files |= {"optimizer.pt": bytes(50_000), "training_args.bin": bytes(3_000), "tokenizer.json": b"{}" * 2_000}
    if i % 9 == 2:
        files |= {f"checkpoint-100/{name}": data for name, data in repo.files.items()}
    if versioned and i % 3 == 0:
        branches = {"v1": _varied(repo.files, rng), "same": files}
    if i % 50 == 17:
        files["adapter_config.json"] = b"{'peft_type': not JSON"
    card: dict[str, Any] = {**repo.card, "language": language, "license": license_}
    state = {"gated": i % 50 == 11, "private": i % 50 == 23, "disabled": i % 50 == 37, "downloads": int(rng.zipf(1.5) % 10**6)}
    return replace(repo, files=files, tags=tags, card=card, branches=branches, pipeline_tag=task, **state)


def _with_embedding(data: bytes, rng: np.random.Generator, rows: int) -> bytes:
    """As ``modules_to_save`` and resized vocabularies leave it: most of the file's bytes, and none of its meaning."""
    tensors = load(data)
    tensors["base_model.model.bert.embeddings.word_embeddings.weight"] = rng.standard_normal((rows, 384), dtype=np.float32)
    tensors["base_model.model.classifier.weight"] = rng.standard_normal((3, 384), dtype=np.float32)
    return save(tensors, metadata={"format": "pt"})
