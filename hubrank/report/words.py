"""Words that explanations share: views, layers, places, lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hubrank.report.inert import inert
from hubrank.types import View

__all__ = ["BY_VIEW", "OF_ROWS", "VERBS", "in_ascii", "layer_words", "layers_words", "listed", "ordinal"]

VERBS: Mapping[View, str] = MappingProxyType({"compute": "computes", "read": "reads", "write": "writes"})
BY_VIEW: Mapping[View, str] = MappingProxyType(
    {"compute": "what it computes", "read": "where it reads", "write": "where it writes"}
)
OF_ROWS = "what it makes of the rows"


def ordinal(n: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``11th``."""
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def in_ascii(text: str, *, unicode: bool) -> str:
    """What a terminal without Unicode can show of a text."""
    return text if unicode else text.replace("\u2026", "...").encode("ascii", "replace").decode("ascii")


def layer_words(stack: str, layer: int, *, word: bool = False) -> str:
    """``encoder 3``, with ``word`` ``encoder layer 3``; layer -1 is what lies outside the layers."""
    if layer < 0:
        return f"{inert(stack, 40)} outside the layers".strip()
    return f"{inert(stack, 40)} {'layer ' if word else ''}{layer}".strip()


def layers_words(layers: Sequence[tuple[str, int]]) -> str:
    """``encoder layers 1, 3 to 5 and 7``, stack after stack."""
    parts = []
    for stack in dict.fromkeys(stack for stack, _ in layers):
        mine = sorted(layer for of, layer in layers if of == stack)
        if mine[0] < 0:
            parts.append(layer_words(stack, -1))
            mine = mine[1:]
        if mine:
            runs = _runs(mine)
            words = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
            parts.append(f"{inert(stack, 40)} {'layers' if len(mine) > 1 else 'layer'} {listed(words)}".strip())
    return listed(parts)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours together: (first, last) of each run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
