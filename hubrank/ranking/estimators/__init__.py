"""Estimators of transfer: pure functions from similarities to values, the higher the better.

Each takes arrays as keyword arguments, and the names of its parameters say which it wants:

    compute, read, write  [n]     mean cosine of the target with each source in that view
    zoo                   [m, n]  compute cosines of m sources of the zoo, each playing the target, with each source; NaN
                                  where a pair does not count: a source with itself, and two that share no site
    strength              [m]     how strong the updates of these m sources are, as parts of the target's strength
    evidence              [n]     how well what each source makes of the target's rows to first order explains their labels; NaN
                                  where that is not known
    usual_read, usual_write  [n]  median cosine of each source with the rest of the zoo in that view
    trust                 float   from 0, where there is none, towards 1: what the evidence is to count for

It gives [n] values whose order is the ranking. An estimator never sees names, cards or files. Which sites the cosines are
means over is the packed zoo's affair (:func:`hubrank.zoo.packed.is_compared`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, get_args

from hubrank.ranking.estimators.four_views import four_views
from hubrank.ranking.estimators.read_write import read_write
from hubrank.ranking.estimators.standardised_compute import standardised_compute
from hubrank.ranking.estimators.standardised_tokens import standardised_tokens
from hubrank.ranking.estimators.three_views import three_views
from hubrank.types import View

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = [
    "DEFAULT",
    "DEFAULTS",
    "ESTIMATORS",
    "Estimator",
    "default_estimator",
    "four_views",
    "read_write",
    "standardised_compute",
    "standardised_tokens",
    "takes_off_usual",
    "three_views",
    "wanted",
]


class Estimator(Protocol):
    """Values [n] from some of the arrays above, all by keyword."""

    def __call__(self, *args: Any, **kwargs: Any) -> FloatArray:
        """Values [n], the higher the better."""


DEFAULT = "three-views"
ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        DEFAULT: three_views,
        "four-views": four_views,
        "read-write": read_write,
        "compute-std": standardised_compute,
        "tokens-std": standardised_tokens,
    }
)

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"lora": "four-views", "bottleneck": "read-write", "prompt": "tokens-std", "prefix": "compute-std"}
)
"""The estimator of each method that was measured."""


def default_estimator(method: str) -> str:
    """The name of the estimator that ranks a method where nobody says otherwise; :data:`DEFAULT` for one without figures."""
    return DEFAULTS.get(method, DEFAULT)


def takes_off_usual(estimator: Estimator, view: View | None = None) -> bool:
    """Whether an estimator takes off what is usual for each source, in a view or in any."""
    views = get_args(View) if view is None else (view,)
    return any(f"usual_{one}" in wanted(estimator) for one in views)


def wanted(estimator: Estimator) -> tuple[str, ...]:
    """Names of the arrays that an estimator takes."""
    return tuple(inspect.signature(estimator).parameters)
