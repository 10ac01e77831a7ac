"""What every source makes of the target's rows, to first order, and how well that explains their labels.

LogME (You, Liu, Wang and Long, ICML 2021) asks how probable the labels are under Bayesian linear regression on a model's
features, and so wants the rows run through every source. A source's update is small, though, and to first order all that it
adds at a site is ``U diag(S) V^T x``, x being what the site reads in the untouched base (:mod:`hubrank.target.site_inputs`).
U has orthonormal columns and changes no distance, so the source's features are ``diag(S) V^T x`` of all its sites side by
side: a product of matrices that the packed zoo holds. No source is run, and the target need not be tuned for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubrank.ranking.rivals.features import log_evidence, one_hot
from hubrank.signatures.threads import one_thread
from hubrank.target.site_inputs import space_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.target.site_inputs import SiteInputs
    from hubrank.types import FloatArray
    from hubrank.zoo.packed import Packed

    Numbers = NDArray[np.float64]

__all__ = ["HALF_TRUSTED", "Evidence", "first_order_evidence"]

HALF_TRUSTED = 64
"""So many rows count for half of what very many would."""

_SOURCES = 16  # at a time: what is iterated over stays in the processor's cache
_COLUMNS = 16_384  # of features at a time and thread, a few dozen megabytes
_THREADS = 8
_NOTHING = 1e-6  # eigenvalues below this part of the largest are rounding
_NOISE = 0.1  # of the labels' variance, at least: people err, and with more columns than rows all would be explained


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a target's rows say of the sources of a zoo.

    Attributes:
        values: [n] LogME of the labels on each source's first-order features, a row; NaN for a source without any.
        rows: how many rows there were.
        outputs: classes, values or labels that they were to explain.
        seconds: of the processor that it took, the rows' pass through the base included.
    """

    values: FloatArray
    rows: int
    outputs: int
    seconds: float = 0.0

    @property
    def trust(self) -> float:
        """From 0 towards 1: what it is to count for.

        Of 16 out of 200 rows the evidence did harm by a weight of 2 in ``four-views`` and none by 1; of 128 and more, weights
        of 2 and 3 served best (on bench/transfer's rows). How many classes there are makes no difference: of 20 and 70 classes
        in 200 rows it ranked better than the tuned target did.
        """
        return self.rows / (self.rows + HALF_TRUSTED)


def first_order_evidence(packed: Packed, inputs: SiteInputs, *, until: float | None = None) -> Evidence | None:
    """LogME of the rows' labels on each source's first-order features.

    Features are centred, and have a mean squared norm of 1 over the rows, so that a strong source is no better than a weak one.
    Outputs are standardised: an intercept is no source's merit. None where no label differs from another, no site's inputs are
    known, or the time is up.

    Args:
        until: on the clock of ``time.perf_counter``, when the time is up.
    """
    if not len(inputs.labels):
        return None
    y = _standardised(one_hot(inputs.labels))
    read = _inputs_on(packed, inputs)
    if not read or not y.shape[1]:
        return None
    values: FloatArray = np.full(len(packed.sources), np.nan)
    together = max(1, min(_SOURCES, _COLUMNS * len(values) // max(1, len(packed.u))))

    def work(first: int) -> bool:
        if until is not None and time.perf_counter() >= until:
            return False
        last = min(first + together, len(values))
        spectra = [_spectrum(features, y) for features in _features(packed, read, first, last)]
        known = [i for i, one in enumerate(spectra) if one is not None]
        if known:
            values[np.add(known, first)] = _evidence([one for one in spectra if one is not None], y)
        return True

    # Small matrices: what more threads for one would win, starting them costs; but each thread can have matrices of its own.
    with one_thread(), ThreadPoolExecutor(_threads()) as pool:
        done = all(list(pool.map(work, range(0, len(values), together))))
    return Evidence(values, *y.shape) if done else None


def _threads() -> int:
    """As many as this process may use, where that can be told."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _THREADS)


def _standardised(y: Numbers) -> Numbers:
    """Outputs less their means, in their deviations; those that are the same for all rows are left out."""
    largest = np.abs(y).max(axis=0)
    y = y[:, (largest > 0) & np.isfinite(largest)] / largest[(largest > 0) & np.isfinite(largest)]
    y = y - y.mean(axis=0)
    deviations = y.std(axis=0)
    differ = deviations > 1e-12
    standard: Numbers = y[:, differ] / deviations[differ]
    return standard


def _inputs_on(packed: Packed, inputs: SiteInputs) -> dict[int, FloatArray]:
    """[rows, p] by number of the site: what it reads, centred, on the zoo's basis."""
    out = {}
    for number, (site, basis) in enumerate(packed.basis.sites.items()):
        x = inputs.spaces.get(space_of(site))
        if x is not None and x.shape[1] == len(basis.read):
            out[number] = (x - x.mean(axis=0)) @ basis.read
    return out


def _features(packed: Packed, read: dict[int, FloatArray], first: int, last: int) -> list[FloatArray]:
    """[rows, columns] of each of the sources ``first`` to ``last``."""
    parts: list[list[FloatArray]] = [[] for _ in range(first, last)]
    for number, x in read.items():
        starts = packed.starts[number, first : last + 1]
        rows = slice(int(starts[0]), int(starts[-1]))
        # A view's weights are divided by the norm of the whole update.
        norms = np.repeat(packed.norms[first:last, number], np.diff(starts))
        sizes = packed.weights[rows, 0] * packed.scales[rows, 1] * norms
        made = x @ (packed.v[rows, : x.shape[1]].astype(np.float32) * sizes[:, None].astype(np.float32)).T
        for i, (a, b) in enumerate(zip(starts[:-1] - starts[0], starts[1:] - starts[0], strict=True)):
            parts[i].append(made[:, a:b])
    nothing: FloatArray = np.zeros((len(next(iter(read.values()))), 0), np.float32)
    return [np.concatenate([nothing, *part], axis=1) for part in parts]


@dataclass(frozen=True, slots=True, eq=False)
class _Spectrum:
    """Of features: squared singular values [k], squared products of the left vectors with the outputs [k, outputs], columns."""

    squares: Numbers
    fitted: Numbers
    columns: int


def _spectrum(features: FloatArray, y: Numbers) -> _Spectrum | None:
    """By the smaller Gram matrix of the features; None of features that are all nothing."""
    n, d = features.shape
    largest = float(np.abs(features).max(initial=0.0))
    if not np.isfinite(largest) or largest <= 0:
        return None
    x = features / np.float32(largest)  # before squaring: a hostile file's numbers may be as large as float32 has them
    x /= np.float32(np.sqrt((x**2).sum(dtype=np.float64) / n))
    squares, vectors = np.linalg.eigh(x.T @ x if d <= n else x @ x.T)
    kept = squares > _NOTHING * squares[-1]
    squares, vectors = squares[kept].astype(np.float64), vectors[:, kept].astype(np.float64)
    # Of X = L diag(s) R^T, L^T y by way of R where that is the smaller.
    products = vectors.T @ (x.T @ y) / np.sqrt(squares)[:, None] if d <= n else vectors.T @ y
    return _Spectrum(squares, products**2, d)


def _evidence(spectra: Sequence[_Spectrum], y: Numbers) -> Numbers:
    """[sources] mean over the outputs of each source's log evidence."""
    rows, outputs = y.shape
    most = max(len(one.squares) for one in spectra)
    squares = np.zeros((most, len(spectra), outputs))
    fitted = np.zeros_like(squares)
    for i, one in enumerate(spectra):
        squares[: len(one.squares), i] = one.squares[:, None]
        fitted[: len(one.squares), i] = one.fitted
    found = log_evidence(
        squares.reshape(most, -1),
        fitted=fitted.reshape(most, -1),
        total=np.tile((1 + _NOISE) * (y**2).sum(axis=0), len(spectra)),
        n=rows,
        d=np.repeat([one.columns for one in spectra], outputs),
    )
    means: Numbers = found.reshape(len(spectra), outputs).mean(axis=1)
    return means
