"""Estimators of transfer: pure functions from similarities to values, the higher the better.

Each takes the mean cosine of one target with every source, per view, as keyword arguments of shape [n], and gives [n]
values whose order is the ranking. An estimator never sees names, cards or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from hubrank.ranking.estimators.three_views import three_views

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["DEFAULT", "ESTIMATORS", "Estimator", "three_views"]


class Estimator(Protocol):
    """Values [n] from the mean cosines [n] in each view."""

    def __call__(self, *, compute: FloatArray, read: FloatArray, write: FloatArray) -> FloatArray:
        """Values [n], the higher the better."""


DEFAULT = "three-views"
ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({DEFAULT: three_views})
