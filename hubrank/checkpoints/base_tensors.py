"""Where a reader gets the weights of the base model from, for the methods whose update depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["BaseTensors"]


class BaseTensors(Protocol):
    """The parameters of a base model, read when they are asked for."""

    def get(self, name: str) -> FloatArray | None:
        """A parameter by its full name relative to the base model, such as ``encoder.layer.0.attention.self.query.weight``."""
