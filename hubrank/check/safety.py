"""Safe to load: nothing beside the adapter runs, and no file claims what it does not hold."""

from __future__ import annotations

from collections.abc import Iterator

from hubrank.check.evidence import Evidence
from hubrank.check.policy import Policy
from hubrank.check.rule import Problem, Rule
from hubrank.checkpoints.reader import ADAPTERS_WEIGHTS, CONFIG, PEFT_WEIGHTS

__all__ = ["CODE", "LOADED", "PICKLES", "RULES"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""How names of files end that Python would unpickle."""

LOADED = (*PEFT_WEIGHTS, *ADAPTERS_WEIGHTS, "pytorch_model_head.bin", "model_head.bin")
"""Files that peft and adapters open by themselves."""

CODE = (".py", ".pyc", ".pyd", ".so", ".dylib", ".dll", ".exe", ".sh", ".bat", ".cmd", ".ps1", ".js", ".jar", ".php", ".pl")
"""How names of files end that something would run."""

_TRICKS = ("tensor ", "tensors ", "a tensor ", "a member ", "members ")
_GRAVE = ("unsafe", "suspicious")
_HARMLESS = ("safe", "unscanned", "queued")
_USUAL_LIBRARIES = ("transformers", "torch", "peft", "diffusers", "sentence_transformers", "timm", "adapters")


def _unsafe_pickle(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for refusal in evidence.refusals:
        if refusal.file in LOADED and not _is_trick(refusal.detail):
            yield Problem(f"{refusal.file}: {refusal.detail}", refusal.file)


def _pickle_beside(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for refusal in evidence.refusals:
        if refusal.file not in LOADED and not _is_trick(refusal.detail):
            yield Problem(f"{refusal.file}: {refusal.detail}", refusal.file)


def _storage_trick(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for refusal in evidence.refusals:
        if _is_trick(refusal.detail):
            yield Problem(f"{refusal.file}: {refusal.detail}", refusal.file)
    failure = evidence.failure
    if failure is not None and failure.reason in ("unsafe pattern", "unsafe path"):
        yield Problem(failure.detail, CONFIG)


def _is_trick(detail: str) -> bool:
    return detail.startswith(_TRICKS)


def _pickle_only(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    files = evidence.files or {}
    for safe, pickled in (PEFT_WEIGHTS, ADAPTERS_WEIGHTS):
        if pickled in files and safe not in files:
            yield Problem(f"the weights are in {pickled} alone", pickled)


def _code_files(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    found = [name for name in evidence.files or {} if name.lower().endswith(CODE)]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield Problem(f"{', '.join(found[:3])}{more} beside the adapter", found[0])


def _config_code(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    config = evidence.config or {}
    if config.get("auto_map"):
        yield Problem("auto_map in the config names code in the repository", CONFIG)
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if library is not None and not (isinstance(library, str) and library.partition(".")[0] in _USUAL_LIBRARIES):
        yield Problem(f"auto_mapping would import {str(library)[:60]!r}, which is none of the usual libraries", CONFIG)


def _hub_security(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    for path, level in evidence.security.issues if evidence.security else ():
        if level in _GRAVE:
            yield Problem(f"the Hub's scanners call {path} {level}", path)


def _hub_caution(evidence: Evidence, policy: Policy) -> Iterator[Problem]:  # noqa: ARG001
    if evidence.security is None:
        return
    for path, level in evidence.security.issues:
        if level not in (*_GRAVE, *_HARMLESS):
            yield Problem(f"the Hub's scanners say {level!r} of {path}", path)
    if not evidence.security.done:
        yield Problem("the Hub has not scanned all files yet")


RULES = (
    Rule(
        "unsafe-pickle",
        "safe",
        "error",
        "loading these weights would run what the file says",
        "save the weights as safetensors and delete the file",
        "A weights file that peft or adapters opens by itself (`adapter_model.bin`, `pytorch_adapter.bin`, heads) is a pickle "
        "that asks for anything but tensors, which `torch.load(weights_only=True)` refuses and older versions run. The file is "
        "read instruction by instruction and never unpickled.",
        _unsafe_pickle,
    ),
    Rule(
        "storage-trick",
        "safe",
        "error",
        "a small file that unfolds into gigabytes, or reads outside itself, stops whoever loads it",
        "save the weights anew as safetensors from contiguous tensors",
        "A tensor reaches beyond its storage, repeats its numbers through strides, or has an impossible shape; members of a "
        "zip file overlap or claim more than they hold; a pattern in the config takes too long to match.",
        _storage_trick,
    ),
    Rule(
        "pickle-beside",
        "safe",
        "warning",
        "whoever opens this file runs what it says",
        "delete it from the repository; no adapter needs it to be loaded",
        "A pickle that no library loads by itself, such as `training_args.bin` or `optimizer.pt`, holds more than tensors.",
        _pickle_beside,
    ),
    Rule(
        "pickle-only",
        "safe",
        "warning",
        "pickled weights must be trusted, safetensors need not be",
        "save the weights with `save_pretrained(..., safe_serialization=True)`",
        "The weights exist only as a `.bin` file. That the file was read without finding anything is no promise about the next "
        "upload under the same name.",
        _pickle_only,
    ),
    Rule(
        "code-files",
        "safe",
        "error",
        "an adapter is data; code beside it invites being run",
        "delete the files, or keep them in a repository of code",
        "A file beside the adapter is a program or a library by its name. Code in other folders is not looked at.",
        _code_files,
    ),
    Rule(
        "config-code",
        "safe",
        "error",
        "loading the config would import code that the reader did not choose",
        "remove auto_map and auto_mapping from adapter_config.json",
        "`auto_map` names code in the repository; `auto_mapping.parent_library` is imported by peft's `AutoPeftModel` classes. "
        "Libraries that adapters usually name are accepted.",
        _config_code,
    ),
    Rule(
        "hub-security",
        "safe",
        "error",
        "the Hub's own scanners found something in a file",
        "look at the repository's security tab, and delete the file",
        "The Hub calls a file `unsafe` or `suspicious` (`securityRepoStatus`). Asked only for repositories named on the "
        "command line, and only online.",
        _hub_security,
    ),
    Rule(
        "hub-caution",
        "safe",
        "note",
        "the Hub's scanners are not done, or not sure",
        "check again later",
        "The Hub has not finished scanning, or marks a file with a level short of `suspicious`.",
        _hub_caution,
    ),
)
