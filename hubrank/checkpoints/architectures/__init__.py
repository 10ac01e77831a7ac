"""Architecture maps as data: which hidden space each module of a backbone family reads and writes.

One JSON file a family: ``families`` are the model types of transformers that it serves, ``layers`` the paths of its layers
with ``{layer}`` for the number, ``modules`` maps module paths inside a layer to the spaces they read and write. Modules
that read the same space share its name: query, key and value; the first projections of a feed-forward block; all of them
where a block runs both side by side on one normalised input (GPT-J, Phi). A backbone without a map still works: its
modules are taken to read and write spaces of their own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from hubrank.types import Site

__all__ = ["site_of"]

# The name of a layer list is followed by the layer's number: encoder.layer.3, h.3, layers.3, block.3.
_NUMBERED = re.compile(r"(?:^|\.)(\d{1,4})\.")
_STACKS = ("encoder", "decoder")
_VISION = ("vision_model", "vision_tower", "visual")
# What lists of layers are called. A list of any other name (down_blocks, up_blocks) is a stack of its own, so that its
# layers are not taken for those of another list.
_LISTS = ("layer", "layers", "h", "block", "blocks", "albert_layer_groups", "")
_MAX_KEPT = 200


@dataclass(frozen=True, slots=True)
class _Space:
    reads: str
    writes: str


def site_of(module: str) -> Site:
    """The site that a module path names, such as ``encoder.layer.3.attention.self.query``.

    The number of the layer is the first number in the path; what follows it is the module's path inside the layer. What
    comes before it tells stacks apart (``encoder``, ``decoder``, a vision tower) and is otherwise left out, so that a module
    is the same site with a head on the model and without.
    """
    # The same few hundred modules name the sites of thousands of adapters; names that no model has are not kept.
    return _known_site(module) if len(module) <= _MAX_KEPT else _site(module)


@lru_cache(maxsize=16_384)
def _known_site(module: str) -> Site:
    return _site(module)


def _site(module: str) -> Site:
    number = _NUMBERED.search(module)
    if number is None:
        return Site("", -1, module, reads=module, writes=module)
    before, inside = module[: number.start()], module[number.end() :]
    stack, layers = _stack(before.split("."))
    space = _spaces().get((stack, layers, inside)) or _Space(inside, inside)
    return Site(stack, int(number.group(1)), inside, reads=space.reads, writes=space.writes)


def _stack(before: list[str]) -> tuple[str, str]:
    """The stack that a layer belongs to, and the name of its list of layers."""
    layers = before[-1]
    if any(part in _VISION for part in before):
        return "vision", layers
    stack = next((part for part in before if part in _STACKS), "" if layers in _LISTS else layers)
    return stack, layers


@lru_cache(maxsize=1)
def _spaces() -> dict[tuple[str, str, str], _Space]:
    """Spaces by stack, name of the list of layers, and module."""
    spaces = {}
    for file in files(__package__).iterdir():
        if file.name.endswith(".json"):
            value = json.loads(file.read_text("utf-8"))
            for path in value["layers"]:
                stack, layers = _stack(path.removesuffix(".{layer}").split("."))
                for module, space in value["modules"].items():
                    spaces[stack, layers, module] = _Space(space["reads"], space["writes"])
    return spaces
