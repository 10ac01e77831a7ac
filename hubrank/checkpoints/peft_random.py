"""peft's VeRA and FourierFT: trained numbers along random directions that a seed in the config stands for.

Formulas (peft 0.21): VeRA ``(b[:, None] * B[:d_out]) @ (d[:, None] * A[:, :d_in])``, A and B shared by all modules
(``tuners/vera/layer.py``); FourierFT ``scaling * Re ifft2(F)``, F [d_out, d_in] zero but for the n trained frequencies
(``fourierft/layer.py``). What was not saved is drawn again, as peft does on loading, from torch's generator: only these two
functions import torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hubrank.checkpoints import config as fields
from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors, base_shape
from hubrank.checkpoints.fourier import Frequencies
from hubrank.checkpoints.leading import WHOLE, Room, of_product
from hubrank.checkpoints.peft_modules import Budget, Grammar, adapter_of, matrix
from hubrank.checkpoints.peft_widths import input_width, read_one_space, shape_of
from hubrank.errors import AdapterError
from hubrank.types import Adapter, Delta

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.checkpoints.peft_modules import Parts
    from hubrank.types import FloatArray

    _Spectra: TypeAlias = Mapping[str, FloatArray]
    _Shapes: TypeAlias = Mapping[str, tuple[int, int]]
    _Places: TypeAlias = Mapping[tuple[int, int], NDArray[np.int64]]

__all__ = ["MAX_DRAWN", "read_fourierft", "read_vera", "wanted_fourierft", "wanted_vera"]

MAX_DRAWN = 1 << 25
"""Random numbers that are drawn again for one adapter (VeRA) or one shape of module (FourierFT)."""

_VERA = Grammar.of("vera_lambda_[bd]")
_FOURIERFT = Grammar.of("fourierft_spectrum")
_PROJECTIONS = ("base_model.vera_A", "base_model.vera_B")
_SHARED = re.compile(r"base_model\.vera_[AB](?:\.[^.]+)?")
_SEEDS = 1 << 53  # what JSON numbers hold exactly


def wanted_vera(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_vera` needs."""
    names = list(names)
    return _VERA.wanted(names) + [name for name in names if _SHARED.fullmatch(name)]


def wanted_fourierft(names: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """The tensors of a file that :func:`read_fourierft` needs."""
    return _FOURIERFT.wanted(names)


def read_vera(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the tensors of a VeRA into deltas of its rank.

    Args:
        config: adapter_config.json.
        tensors: lambda_b [d_out] and lambda_d [r] by key; A [r, max d_in] and B [max d_out, r] where they were saved.
        base: id of the base model.
        base_tensors: tells each module's d_in. Without them, A does where all modules read hidden states of one width,
            or the names of the modules do.

    Raises:
        AdapterError: a tensor is missing, of the wrong shape, or not finite; the config is malformed; widths cannot be
            known without the base model ("needs base"); or the projections would be too large to draw again.
    """
    modules = _VERA.modules(tensors)
    shared = {name[-1]: _projection(tensors, name) for name in _PROJECTIONS}
    a, b = shared["A"], shared["B"]
    vectors = {}
    for module, parts in modules.items():
        vectors[module] = matrix(parts, "vera_lambda_b", module, ndim=1), matrix(parts, "vera_lambda_d", module, ndim=1)
    ranks = {len(d) for _, d in vectors.values()}
    if len(ranks) > 1 or ranks != {fields.integer(config, "r", default=256)}:
        raise AdapterError("shape mismatch", f"ranks {sorted(ranks)[:4]} in the file, {config.get('r', 256)} in the config")
    widths = _vera_widths(config, modules, a, base_tensors)
    shape = (max(ranks), max(widths.values()), max(len(b) for b, _ in vectors.values()))
    warnings = []
    if a is None or b is None:
        a, b = _draw_projections(config, *shape)
        warnings.append("VeRA: its random projections were not saved and were drawn again from their seed")
    if a.shape[0] != shape[0] or b.shape[1] != shape[0] or a.shape[1] < shape[1] or b.shape[0] < shape[2]:
        raise AdapterError("shape mismatch", f"vera_A {list(a.shape)} and vera_B {list(b.shape)} do not fit the modules")
    sides = {module: (len(lambda_b), widths[module]) for module, (lambda_b, _) in vectors.items()}
    whole = sum(d_out + d_in for d_out, d_in in sides.values()) * shape[0] <= WHOLE
    room = None if whole else Room(sides.values())
    deltas = []
    for module, (lambda_b, lambda_d) in vectors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            up, down = lambda_b[:, None] * b[: len(lambda_b)], lambda_d[:, None] * a[:, : widths[module]]
            if room is None:
                deltas.append(Delta(site_of(module), down=down, up=up))
            else:
                room.work(module, shape[0], max(sides[module]), 2)
                deltas.append(of_product(up, down, room.kept).delta(site_of(module)))
    return adapter_of(base, "lora", deltas, variant="vera", warnings=warnings)


def _projection(tensors: Mapping[str, FloatArray], name: str) -> FloatArray | None:
    found = [tensor for key, tensor in tensors.items() if key == name or key.startswith(name + ".")]
    if len(found) > 1:
        raise AdapterError("several adapters", f"the file holds {len(found)} of {name}")
    if found and (found[0].ndim != 2 or 0 in found[0].shape):
        raise AdapterError("shape mismatch", f"{name} has the shape {list(found[0].shape)}")
    if found and not np.isfinite(found[0]).all():
        raise AdapterError("not finite", f"{name} holds NaN or infinity")
    return found[0] if found else None


def _vera_widths(
    config: Mapping[str, Any], modules: Mapping[str, Parts], a: FloatArray | None, base_tensors: BaseTensors | None
) -> dict[str, int]:
    widths = {}
    same = read_one_space(modules)
    for module, parts in modules.items():
        d_out = len(parts["vera_lambda_b"])
        shape = base_shape(base_tensors, module, config, d_out=d_out)
        if shape is not None:
            width: int | None = shape[1]
        else:
            width = a.shape[1] if a is not None and same else input_width(module, d_out)
        if width is None:
            raise AdapterError("needs base", f"{module[-120:]}: the file does not say how wide its input is")
        widths[module] = width
    return widths


def _draw_projections(config: Mapping[str, Any], r: int, d_in: int, d_out: int) -> tuple[FloatArray, FloatArray]:
    """A [r, d_in], then B [d_out, r], from one generator; ``tuners/vera/model.py``."""
    if r * (d_in + d_out) > MAX_DRAWN:
        raise AdapterError("too large", f"VeRA's projections have {r * (d_in + d_out):,} numbers")
    key = fields.integer(config, "projection_prng_key", default=0, low=0, high=_SEEDS)
    import torch

    generator = torch.Generator(device="cpu").manual_seed(key)
    drawn = []
    for shape in ((r, d_in), (d_out, r)):
        bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(shape[1]))
        drawn.append(torch.empty(shape).uniform_(-bound, bound, generator=generator).numpy())
    return drawn[0], drawn[1]


def read_fourierft(
    config: Mapping[str, Any], tensors: Mapping[str, FloatArray], base: str, *, base_tensors: BaseTensors | None = None
) -> Adapter:
    """Turn the spectra of a FourierFT into dense deltas.

    Args:
        config: adapter_config.json.
        tensors: the spectrum [n] of each module by key.
        base: id of the base model.
        base_tensors: tells the shapes of the modules, which place the frequencies.

    Raises:
        AdapterError: a tensor is of the wrong shape or not finite; the config is malformed; the base weights are not at
            hand ("needs base"); or the update would be too large.
    """
    scaling = fields.number(config, "scaling", default=150.0)
    seed = fields.integer(config, "random_loc_seed", default=777, low=0, high=_SEEDS)
    n_frequency = fields.integer(config, "n_frequency", default=1000)
    same = not fields.mapping(config, "n_frequency_pattern")
    spectra, shapes = {}, {}
    for module, parts in _FOURIERFT.modules(tensors).items():
        spectrum = matrix(parts, "fourierft_spectrum", module, ndim=1)
        shape = shape_of(base_tensors, module, config)
        entries = shape[0] * shape[1]
        if len(spectrum) > entries or (same and len(spectrum) != n_frequency):
            raise AdapterError("shape mismatch", f"{module[-120:]}: {len(spectrum)} frequencies, {n_frequency} in the config")
        spectra[module], shapes[module] = spectrum, shape
    drawn = sum(out * into for out, into in set(shapes.values()))
    if drawn > MAX_DRAWN:
        raise AdapterError("too large", f"modules of {len(set(shapes.values()))} shapes have {drawn:,} places for frequencies")
    most = {shape: max(len(spectra[module]) for module in spectra if shapes[module] == shape) for shape in set(shapes.values())}
    places = {shape: _draw_places(seed, shape[0] * shape[1], most[shape]) for shape in most}
    whole = sum(out * into + min(out, into) ** 2 for out, into in shapes.values()) <= WHOLE
    make = _dense_fourier if whole else _sparse_fourier
    return adapter_of(base, "lora", make(spectra, shapes, places, scaling), variant="fourierft")


def _dense_fourier(spectra: _Spectra, shapes: _Shapes, places: _Places, scaling: float) -> list[Delta]:
    budget = Budget()
    deltas = []
    for module, spectrum in spectra.items():
        shape = shapes[module]
        dense = np.zeros(shape[0] * shape[1], np.float32)
        dense[places[shape][: len(spectrum)]] = spectrum
        with np.errstate(over="ignore", invalid="ignore"):
            up, down = budget.factors((np.fft.ifft2(dense.reshape(shape)).real * scaling).astype(np.float32), module)
        deltas.append(Delta(site_of(module), down=down, up=up))
    return deltas


def _sparse_fourier(spectra: _Spectra, shapes: _Shapes, places: _Places, scaling: float) -> list[Delta]:
    room = Room(shapes.values())
    known: dict[tuple[tuple[int, int], int], Frequencies] = {}
    for module, spectrum in spectra.items():
        which = shapes[module], len(spectrum)
        if which not in known:
            known[which] = Frequencies(places[which[0]][: which[1]], which[0])
        known[which].work(room, module)
    return [
        known[shapes[module], len(spectrum)].leading(spectrum, room.kept).delta(site_of(module), scaling)
        for module, spectrum in spectra.items()
    ]


def _draw_places(seed: int, entries: int, count: int) -> NDArray[np.int64]:
    """Flat places of the first frequencies in a module with this many entries, in the order of the spectrum."""
    import torch

    # Half the memory of the int64 that peft draws, and the same numbers.
    drawn = torch.randperm(entries, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    places: NDArray[np.int64] = drawn[:count].numpy().astype(np.int64)
    return places
