"""Architecture maps as data: which hidden space each module of a backbone family reads and writes.

One JSON file a family: ``layer`` is the path of a layer with ``{layer}`` for its number, ``modules`` maps module paths
inside a layer to the spaces they read and write. Modules that read the same space share its name. A backbone without a
map still works: its modules are taken to read and write spaces of their own.
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


@dataclass(frozen=True, slots=True)
class _Space:
    reads: str
    writes: str


def site_of(module: str) -> Site:
    """The site that a module path names, such as ``encoder.layer.3.attention.self.query``.

    The number of the layer is the first number in the path; what follows it is the module's path inside the layer.
    """
    number = _NUMBERED.search(module)
    if number is None:
        return Site("", -1, module, reads=module, writes=module)
    before, inside = module[: number.start()], module[number.end() :]
    stack = next((part for part in before.split(".") if part in _STACKS), "")
    space = _spaces().get((before.rpartition(".")[2], inside)) or _Space(inside, inside)
    return Site(stack, int(number.group(1)), inside, reads=space.reads, writes=space.writes)


@lru_cache(maxsize=1)
def _spaces() -> dict[tuple[str, str], _Space]:
    spaces = {}
    for file in files(__package__).iterdir():
        if file.name.endswith(".json"):
            value = json.loads(file.read_text("utf-8"))
            layers = value["layer"].removesuffix(".{layer}").rpartition(".")[2]
            for module, space in value["modules"].items():
                spaces[layers, module] = _Space(space["reads"], space["writes"])
    return spaces
