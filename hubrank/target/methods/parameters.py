"""Parameters tuned in place: BitFit's biases (Ben Zaken, Ravfogel and Goldberg, ACL 2022), norms, or whole weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubrank.checkpoints.bare_families import read_bare_tuned
from hubrank.errors import BaseModelError
from hubrank.target.methods import Attached, Placement
from hubrank.types import Adapter

if TYPE_CHECKING:
    from hubrank.types import FloatArray

__all__ = ["attach"]


def attach(model: Any, placement: Placement) -> Attached:
    """Make some of a model's own parameters trainable, and no others; what counts is how far they move.

    Raises:
        BaseModelError: the model has none of them.
    """
    wanted = set(placement.modules)
    chosen = {name: parameter for name, parameter in model.named_parameters() if name in wanted}
    if not chosen:
        raise BaseModelError("the base model has none of the parameters that the zoo tunes")
    model.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in chosen.items()}

    def tensors() -> dict[str, FloatArray]:
        return {
            name: (parameter.detach() - before[name].to(parameter.device)).float().cpu().numpy()
            for name, parameter in chosen.items()
        }

    def read(base: str) -> Adapter:
        return read_bare_tuned(tensors(), base, variant="bitfit", differences=True)

    return Attached(model, tuple(chosen.values()), 0, tensors, dict, read)
