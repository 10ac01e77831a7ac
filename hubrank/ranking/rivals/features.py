"""Rankings from features: the target's rows are run through every source, and a source is good whose features fit the labels.

These run each source's model (or a map that imitates it) over the target's rows, which is what hubrank spares its users;
they are here to be measured against, and to re-rank a few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

__all__ = ["affine_map", "h_score", "log_evidence", "logme", "one_hot"]

_ROUNDS, _CLOSE = 100, 1e-3


def logme(*, features: ArrayLike, labels: ArrayLike) -> float:
    """Log of maximum evidence, a row: how probable the labels are under Bayesian linear regression on the features.

    You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning" (ICML 2021), with the
    fixed-point iteration of its journal version (JMLR 2022), whose step for both precisions is shown to converge.

    Args:
        features: [n, d] of the target's rows.
        labels: [n] classes as integers, or numbers; [n, k] several outputs, each with an evidence of its own.

    Returns:
        The mean over the outputs of log p(y | features) / n; the higher the better.
    """
    x = np.asarray(features, dtype=np.float64)
    y = one_hot(labels)
    n, d = x.shape
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    outputs = y.shape[1]
    squares, columns = np.repeat(s[:, None] ** 2, outputs, axis=1), np.full(outputs, d)
    return float(log_evidence(squares, fitted=(u.T @ y) ** 2, total=(y**2).sum(axis=0), n=n, d=columns).mean())


def log_evidence(squares: Numbers, *, fitted: Numbers, total: Numbers, n: int, d: NDArray[np.int64]) -> Numbers:
    """[m] log p(y | features) / n of m outputs, each with features of its own, of which only this need be known.

    Args:
        squares: [k, m] squared singular values of each output's features, filled up with zeros.
        fitted: [k, m] squared products of the left singular vectors with the output.
        total: [m] squared norm of each output.
        n: rows of all features; ``d``: [m] columns of each.
    """
    outside = np.maximum(total - fitted.sum(axis=0), 0.0)
    t = np.ones(fitted.shape[1])
    alpha, beta, going = np.ones_like(t), np.ones_like(t), np.arange(len(t))
    # Outputs that have settled leave; what is left is copied as rarely as that happens.
    left = squares, fitted, outside
    for _ in range(_ROUNDS):
        gamma, weights, errors = _fixed_point(*left, t[going])
        alpha[going] = gamma / np.maximum(weights, 1e-12)
        beta[going] = (n - gamma) / np.maximum(errors, 1e-12)
        new = alpha[going] / beta[going]
        still = (new > 0) & (np.abs(new - t[going]) > _CLOSE * t[going])
        t[going[still]] = new[still]
        if not still.any():
            break
        if not still.all():
            going = going[still]
            left = squares[:, going], fitted[:, going], outside[going]
    alpha, beta = np.maximum(alpha, 1e-12), np.maximum(beta, 1e-12)
    _, weights, errors = _fixed_point(squares, fitted, outside, alpha / beta)
    evidence = d * np.log(alpha) + n * np.log(beta) - n * np.log(2 * np.pi) - beta * errors - alpha * weights
    evidence -= np.log(alpha + beta * squares).sum(axis=0) + (d - len(squares)) * np.log(alpha)
    found: Numbers = evidence / 2 / n
    return found


def _fixed_point(squares: Numbers, fitted: Numbers, outside: Numbers, t: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Effective dimension, squared norm of the weights, squared error of each output; t is the ratio of the precisions."""
    part = 1 / (squares + t)
    over = fitted * part**2
    return (squares * part).sum(axis=0), (squares * over).sum(axis=0), t**2 * over.sum(axis=0) + outside


def h_score(*, features: ArrayLike, labels: ArrayLike) -> float:
    """trace(cov(features)^-1 cov(class means)), the covariance shrunk as Ledoit and Wolf do.

    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning" (ICIP 2019), regularised by
    Ibrahim, Ponomareva and Mazumder, "Newer is not always better: Rethinking transferability metrics" (ECML 2022).

    Args:
        features: [n, d].
        labels: [n] classes as integers; numbers are cut into five classes of equal size.
    """
    x = np.asarray(features, dtype=np.float64)
    classes = _classes(labels)
    x = x - x.mean(axis=0)
    n, d = x.shape
    covariance = x.T @ x / n
    mean = np.trace(covariance) / d
    spread = ((covariance - mean * np.eye(d)) ** 2).sum() / d
    noise = ((x**2).sum(axis=1) ** 2).mean() - (covariance**2).sum()
    shrink = min(max(noise / n / d, 0.0) / spread, 1.0) if spread > 0 else 1.0
    shrunk = (1 - shrink) * covariance + shrink * mean * np.eye(d)
    means = np.stack([x[classes == c].mean(axis=0) for c in np.unique(classes)])[np.unique(classes, return_inverse=True)[1]]
    between = means.T @ means / n
    return float((1 - shrink) * np.trace(np.linalg.lstsq(shrunk, between, rcond=None)[0]))


def affine_map(*, before: ArrayLike, after: ArrayLike, ridge: float = 1e-3) -> tuple[Numbers, Numbers]:
    """The affine map from the base model's features to a source model's, by ridge regression: ([d, e], [e]).

    An embedding space map: Schulte et al., "Less is More: Parameter-Efficient Selection of Intermediate Tasks for Transfer
    Learning" (EMNLP 2024), keep one such map a source instead of the model, and score ``logme`` on what it makes of the
    target's base features. They fit it by gradient descent on the source's rows; this is the optimum of the same loss.

    Args:
        before, after: [n, d] and [n, e] of the source's own rows.
        ridge: part of the mean square of ``before`` that is added to its Gram matrix.
    """
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    weight: Numbers = np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)
    return weight, y_mean - x_mean @ weight


def one_hot(labels: ArrayLike) -> Numbers:
    """[n, outputs] float64: integer classes as one column each, numbers as one column, several columns as they are."""
    values = np.asarray(labels)
    if values.ndim == 2:
        return values.astype(np.float64)
    if np.issubdtype(values.dtype, np.integer):
        columns: Numbers = (values[:, None] == np.unique(values)[None]).astype(np.float64)
        return columns
    return values.astype(np.float64)[:, None]


def _classes(labels: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(labels)
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    bins = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    return np.searchsorted(bins, values, side="right").astype(np.int64)
