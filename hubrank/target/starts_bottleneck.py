"""A published bottleneck adapter as a start: only those that compute what one of our own shapes computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.adapters_config import parse_adapters_config
from hubrank.checkpoints.adapters_weights import split_key
from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from hubrank.target.methods import Placement
from hubrank.target.methods.adapters_library import NAME, config_of
from hubrank.target.starts import Start

if TYPE_CHECKING:
    from hubrank.checkpoints.reader import Published
    from hubrank.types import Adapter, FloatArray

__all__ = ["bottleneck_start"]

_VARIANTS = ("seq_bn", "double_seq_bn", "par_bn", "scaled_par_bn")
_PARTS = ("adapter_down", "adapter_up", "scaling")
# What decides what a bottleneck computes; sizes follow from the tensors, and how it was initialised is over.
_COMPUTES = (
    *("mh_adapter", "output_adapter", "non_linearity", "original_ln_before", "original_ln_after", "ln_before", "ln_after"),
    *("is_parallel", "scaling", "use_gating", "residual_before_ln", "adapter_residual_before_ln"),
    *("cross_adapter", "phm_layer"),
)


def bottleneck_start(published: Published, adapter: Adapter, model: Any) -> Start:
    """Numbers by our own name of each parameter.

    Raises:
        AdapterError: it computes something that none of our shapes does, or its sizes differ from layer to layer.
    """
    config = parse_adapters_config(published.config)
    ((_, method),) = config.methods
    if adapter.variant not in _VARIANTS:
        raise AdapterError(
            "cannot be run", f"a {adapter.variant} is not among the bottlenecks that are run ({', '.join(_VARIANTS)})"
        )
    if any("invertible" in warning for warning in adapter.warnings):
        raise AdapterError("cannot be run", "it has an invertible part before the first layer")
    sizes = {len(delta.down) for delta in adapter.deltas}
    if len(sizes) != 1:
        raise AdapterError("cannot be run", "its bottlenecks differ in size from layer to layer")
    layers = {delta.site.layer for delta in adapter.deltas}
    count = int(getattr(model.config, "num_hidden_layers", 0))
    left_out = tuple(layer for layer in range(count) if layer not in layers)
    placement = Placement("bottleneck", size=sizes.pop(), variant=adapter.variant, left_out=left_out)
    _same_function(method, placement, model)
    return Start(placement, _numbers(published, model))


def _same_function(method: Mapping[str, Any], placement: Placement, model: Any) -> None:
    ours = config_of(placement, model).to_dict()
    for name in _COMPUTES:
        theirs = method.get(name, ours[name])
        if theirs != ours[name]:
            raise AdapterError("cannot be run", f"{name} is {str(theirs)[:40]!r}, which no {placement.variant} of ours has")


def _numbers(published: Published, model: Any) -> dict[str, FloatArray]:
    """By parameter: ``PATH.adapters.NAME.PART`` of the file is ``PATH.adapters.<our name>.PART`` of the model."""
    paths: dict[object, str] = {}
    for name, _ in model.named_modules():
        paths.setdefault(site_of(f"{name}.adapters"), name)
    numbers: dict[str, FloatArray] = {}
    for key, tensor in published.tensors.items():
        split = split_key(key, "adapters", _PARTS)
        if split is None:
            continue
        path = paths.get(site_of(f"{split.module}.adapters"))
        if path is None:
            raise AdapterError("cannot be run", f"the base model has no module {split.module[-120:]}")
        numbers[f"{path}.adapters.{NAME}.{split.part}"] = tensor
    return numbers
