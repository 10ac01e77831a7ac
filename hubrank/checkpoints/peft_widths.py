"""How wide a module's input is, for the families whose files do not say.

VeRA, MiSS and FourierFT save nothing that has the length of the input. The base weights tell; without them, so do
modules whose shape follows from what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hubrank.checkpoints.architectures import site_of
from hubrank.checkpoints.base_tensors import BaseTensors, base_shape
from hubrank.errors import AdapterError

__all__ = ["input_width", "read_one_space", "shape_of"]

# Rows of the weight for each column, in every model that has a module of this name: BERT and its kin, DistilBERT, GPT-2.
_ROWS_PER_COLUMN = {
    **dict.fromkeys(("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"), 1),
    **dict.fromkeys(("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "attn.c_proj"), 1),
    "attn.c_attn": 3,
}
# Modules that read the model's own hidden state, whatever the model.
_READ_HIDDEN = frozenset(
    {
        *("query", "key", "value", "q", "k", "v", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin"),
        *("c_attn", "query_key_value", "qkv_proj", "Wqkv", "in_proj"),
    }
)


def input_width(module: str, d_out: int) -> int | None:
    """Columns of a module's weight, from its rows and its name; None where these do not tell."""
    name = next((name for name in _ROWS_PER_COLUMN if module == name or module.endswith("." + name)), None)
    return d_out // _ROWS_PER_COLUMN[name] if name is not None and d_out % _ROWS_PER_COLUMN[name] == 0 else None


def read_one_space(modules: Iterable[str]) -> bool:
    """Whether all modules read hidden spaces of one width, as far as their names tell."""
    modules = list(modules)
    names = {module.rpartition(".")[2] for module in modules}
    return names <= _READ_HIDDEN or len({site_of(module).reads for module in modules}) == 1


def shape_of(
    base_tensors: BaseTensors | None, module: str, config: Mapping[str, Any], *, d_out: int | None = None
) -> tuple[int, int]:
    """(d_out, d_in) of the base weight of a module that cannot be read without it.

    Raises:
        AdapterError: with reason ``needs base`` where it is not at hand.
    """
    shape = base_shape(base_tensors, module, config, d_out=d_out)
    if shape is None:
        raise AdapterError("needs base", f"{module[-120:]}: the file does not say how wide its input is")
    return shape
