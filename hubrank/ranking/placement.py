"""Where and how large the target's own adapter shall be: as most sources of the zoo are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import BaseModelError
from hubrank.signatures.canonical import SHIFT
from hubrank.target.methods import Placement
from hubrank.types import Site

if TYPE_CHECKING:
    from hubrank.zoo.packed import Packed

__all__ = ["usual_modules", "usual_placement", "usual_rank"]

_MOST = 0.5
# A target of a few hundred rows needs no more, and a LoRA's rank of 1 has no subspace to speak of.
_RANKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"lora": (2, 32), "bottleneck": (2, 256), "prefix": (1, 64), "prompt": (1, 128)}
)
_BOTTLENECKS: Mapping[str, str] = MappingProxyType(
    {"mam": "par_bn", "unipelt": "seq_bn", "compacter": "double_seq_bn", "adapterplus": "seq_bn", "compacter++": "seq_bn"}
)
_KNOWN_BOTTLENECKS = ("seq_bn", "double_seq_bn", "par_bn", "scaled_par_bn")


def usual_placement(packed: Packed, model: Any) -> Placement:
    """Method, modules, layers and size as most of the zoo's sources of that method have them.

    Kept by :mod:`hubrank.target.placed_files`, whose FORMAT is raised when something else comes out.

    Args:
        model: the base model, which nothing has been put on yet.

    Raises:
        BaseModelError: the model has nothing where the zoo's adapters apply.
    """
    method, size = packed.method, usual_rank(packed)
    match method:
        case "lora":
            return Placement(method, usual_modules(packed, _names(model)), size, alpha=2.0 * size)
        case "ia3":
            modules = usual_modules(packed, _names(model))
            return Placement(method, modules, inputs=_scaled_inputs(packed, model, modules))
        case "bias":
            return Placement(method, usual_modules(packed, (name for name, _ in model.named_parameters())))
        case "bottleneck":
            return Placement(method, size=size, variant=_usual_variant(packed), left_out=_left_out(packed, model))
        case "prefix":
            return Placement(method, size=size, left_out=_left_out(packed, model))
        case _:
            return Placement(method, size=size, both_stacks=any(site.stack == "decoder" for site in _wanted(packed)))


def usual_rank(packed: Packed) -> int:
    """The rank, bottleneck size or number of tokens that most sources have, within the method's bounds."""
    low, high = _RANKS.get(packed.method, (1, 32))
    (rank, _), *_ = Counter(source.rank for source in packed.sources).most_common(1)
    return max(low, min(high, rank))


def usual_modules(packed: Packed, modules: Iterable[str]) -> tuple[str, ...]:
    """Those of the base model's modules that at least half of the sources adapt; if none, those of the commonest site.

    Raises:
        BaseModelError: the base model has no module where the zoo's adapters apply.
    """
    wanted = {_without_shift(site) for site in _wanted(packed)}
    chosen = tuple(name for name in modules if site_of(name) in wanted or _weight_of(name) in wanted)
    if not chosen:
        raise BaseModelError(f"{packed.base}: has none of the modules that the zoo's adapters apply to, such as {min(wanted)}")
    return chosen


def _wanted(packed: Packed) -> set[Site]:
    shares = dict(zip(packed.sites, packed.there.mean(axis=0), strict=True))
    bar = min(_MOST, max(shares.values()))
    return {site for site, share in shares.items() if share >= bar}


def _without_shift(site: Site) -> Site:
    """A shift's site is its module's, with a word more."""
    module = site.module.removesuffix(SHIFT)
    return Site(site.stack, site.layer, module, reads=site.reads, writes=site.writes)


def _weight_of(parameter: str) -> Site | None:
    """The site of the matrix that a parameter is; diff pruning tunes whole weights."""
    return site_of(parameter.removesuffix(".weight")) if parameter.endswith(".weight") else None


def _names(model: Any) -> Iterable[str]:
    return (name for name, _ in model.named_modules())


def _usual_variant(packed: Packed) -> str:
    (variant, _), *_ = Counter(source.variant for source in packed.sources).most_common(1)
    variant = _BOTTLENECKS.get(variant, variant)
    if variant in _KNOWN_BOTTLENECKS:
        return variant
    attention = {"attention" in site.module or "attn" in site.module for site in _wanted(packed)}
    return "double_seq_bn" if attention == {True, False} else "attention_bn" if attention == {True} else "seq_bn"


def _left_out(packed: Packed, model: Any) -> tuple[int, ...]:
    """Layers that most sources leave alone; of models with one stack, in which layers have one number each."""
    sites = [site for site in _wanted(packed) if site.layer >= 0]
    if not sites or len({site.stack for site in sites}) > 1:
        return ()
    layers = {site.layer for site in sites}
    return tuple(layer for layer in range(int(getattr(model.config, "num_hidden_layers", 0))) if layer not in layers)


def _scaled_inputs(packed: Packed, model: Any, modules: Iterable[str]) -> tuple[str, ...]:
    """Modules whose scales are as long as their inputs, as in the second half of a feed-forward block."""
    lengths = {_without_shift(s): len(b.write) for s, b in packed.basis.sites.items() if s.module.endswith(SHIFT)}
    found = []
    for name in modules:
        weight = getattr(model.get_submodule(name), "weight", None)
        length = lengths.get(site_of(name))
        if weight is None or length is None or weight.ndim != 2:
            continue
        transposed = type(model.get_submodule(name)).__name__ == "Conv1D"
        d_out, d_in = (weight.shape[1], weight.shape[0]) if transposed else tuple(weight.shape)
        if length == d_in != d_out:
            found.append(name)
    return tuple(found)
