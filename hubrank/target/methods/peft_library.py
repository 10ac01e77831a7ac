"""LoRA, (IA)^3 and soft prompts through ``peft``; and prefixes of decoders that the ``adapters`` library cannot take."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.peft_families import read_peft, wanted_peft_tensors
from hubrank.errors import BaseModelError
from hubrank.target.frameworks import import_peft
from hubrank.target.methods import Attached, HeadKind, Placement
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["attach"]

_TASKS: Mapping[HeadKind, str] = MappingProxyType(
    {"none": "FEATURE_EXTRACTION", "causal-lm": "CAUSAL_LM", "seq2seq-lm": "SEQ_2_SEQ_LM"}
)
_IN_FRONT = ("prompt", "prefix")


def attach(model: Any, placement: Placement, head: HeadKind) -> Attached:
    """Wrap a model by peft.

    Raises:
        BaseModelError: it has none of the modules, or modules of a kind that peft does not adapt.
    """
    peft = import_peft()
    before = {name: parameter.detach() for name, parameter in model.named_parameters()} if placement.method == "ia3" else {}
    first = next(iter(placement.modules), "none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's advice on how to train
            config = _config(peft, model, placement, head)
            wrapped = peft.get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        if placement.method in _IN_FRONT:
            raise BaseModelError(f"peft cannot give {type(model).__name__} a {placement.method}: {_line(error)}") from error
        raise BaseModelError(
            f"the base model has none of the modules that the zoo tunes, such as {first}, or not of a kind that peft takes"
        ) from error

    def tensors() -> dict[str, FloatArray]:
        state = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in state.items()}

    def fields() -> dict[str, Any]:
        found: dict[str, Any] = wrapped.peft_config["default"].to_dict()
        return found

    def read(base: str) -> Adapter:
        found = tensors()
        names = wanted_peft_tensors(found, fields())
        base_tensors = _Parameters(before) if before else None
        return read_peft(fields(), {name: found[name] for name in names}, base, base_tensors=base_tensors)

    trained = tuple(parameter for parameter in wrapped.parameters() if parameter.requires_grad)
    virtual = placement.size if placement.method == "prompt" else 0
    return Attached(wrapped, trained, virtual, tensors, fields, read)


def _config(peft: Any, model: Any, placement: Placement, head: HeadKind) -> Any:
    task = _TASKS[head]
    modules = list(placement.modules)
    match placement.method:
        case "lora":
            return peft.LoraConfig(
                task_type=task,
                r=placement.size,
                lora_alpha=placement.alpha,
                lora_dropout=0.0,
                target_modules=modules,
                fan_in_fan_out=_kept_transposed(model, modules),
            )
        case "ia3":
            return peft.IA3Config(
                task_type=task,
                target_modules=modules,
                feedforward_modules=list(placement.inputs),
                fan_in_fan_out=_kept_transposed(model, modules),
            )
        case "prompt":
            stacks = {"num_transformer_submodules": 1 + placement.both_stacks} if head == "seq2seq-lm" else {}
            # An encoder-decoder without a head counts two stacks, but the prompt is put before the encoder alone.
            stacks = stacks or {"num_transformer_submodules": 1}
            return peft.PromptTuningConfig(task_type=task, num_virtual_tokens=placement.size, **stacks)
        case _:
            return peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=placement.size)


def _kept_transposed(model: Any, modules: list[str]) -> bool:
    """Whether the modules keep their weights as [d_in, d_out], as GPT-2's Conv1D does."""
    return any(type(model.get_submodule(name)).__name__ == "Conv1D" for name in modules[:1])


class _Parameters:
    """A model's own parameters, as they were before it was wrapped, as readers ask for them."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def get(self, name: str) -> FloatArray | None:
        """The parameter in float32, or None where the model has none of that name."""
        found = self._parameters.get(name)
        return None if found is None else found.float().cpu().numpy()


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
