"""Bottleneck adapters and prefixes through the ``adapters`` library, which publishes most of them."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.adapters_families import read_adapters, wanted_adapters_tensors
from hubrank.errors import BaseModelError
from hubrank.target.frameworks import import_adapters
from hubrank.target.methods import Attached, HeadKind, Placement, peft_library
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["NAME", "attach", "config_of"]

NAME = "target"
"""Of what is attached, in the names of its parameters."""


def attach(model: Any, placement: Placement, head: HeadKind) -> Attached:
    """Turn a model into one of the ``adapters`` library (its classes change, in place) and add a method to it.

    Raises:
        BaseModelError: the library does not know the model's architecture.
    """
    adapters = import_adapters()
    from adapters.loading import AdapterLoader

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapters.init(model)
            model.add_adapter(NAME, config=config_of(placement, model))
            model.train_adapter(NAME)
    except (ValueError, AttributeError, TypeError, KeyError, NotImplementedError) as error:
        if placement.method == "prefix" and head == "causal-lm":
            return peft_library.attach(model, placement, head)
        raise BaseModelError(
            f"the adapters library {adapters.__version__} cannot take {type(model).__name__}, which tuning a "
            f"{placement.method} needs; choose other methods with --method, or another --base"
        ) from error
    loader = AdapterLoader(model)

    def published() -> tuple[dict[str, Any], dict[str, Any]]:
        state, config = loader.save_to_state_dict(NAME)
        return state, json.loads(json.dumps(config))

    def tensors() -> dict[str, FloatArray]:
        state, config = published()
        wanted = wanted_adapters_tensors(state, config)
        return {name: state[name].detach().float().cpu().numpy().copy() for name in wanted}

    def fields() -> dict[str, Any]:
        return published()[1]

    def read(base: str) -> Adapter:
        (adapter,) = read_adapters(fields(), tensors(), base)
        return adapter

    trained = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
    if not trained:
        raise BaseModelError(f"{type(model).__name__} has nowhere to put a {placement.method}")
    return Attached(model, trained, 0, tensors, fields, read)


def config_of(placement: Placement, model: Any) -> Any:
    """The library's config of a bottleneck or prefix on a model."""
    adapters = import_adapters()
    left_out = list(placement.left_out)
    if placement.method == "prefix":
        return adapters.PrefixTuningConfig(prefix_length=placement.size, flat=False, leave_out=left_out, dropout=0.0)
    reduction = max(1.0, model.config.hidden_size / placement.size)
    sizes = {"reduction_factor": reduction, "leave_out": left_out}
    match placement.variant:
        case "double_seq_bn":
            return adapters.DoubleSeqBnConfig(**sizes)
        case "par_bn":
            return adapters.ParBnConfig(**sizes)
        case "scaled_par_bn":
            return adapters.ParBnConfig(scaling="learned", **sizes)
        case "attention_bn":
            return adapters.BnConfig(mh_adapter=True, output_adapter=False, non_linearity="relu", **sizes)
        case _:
            return adapters.SeqBnConfig(**sizes)
