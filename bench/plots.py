"""The figures of docs/method.md, as SVG, from results that are committed.

    python bench/plots.py [--rivals bench/results/rivals.json] [--transfer bench/transfer/rows-lora.jsonl] [--out docs]

``method-regret.svg``: each ranking's mean regret with its bootstrap interval over targets. ``method-targets.svg``: a panel a target,
each source's measured transfer against hubrank's value. They are written without a plotting library, so that the same
numbers give the same bytes; tests/bench/test_method_page.py holds the committed files to that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rivals import read_rows

from hubrank.benchmark.transfer import MeasuredTarget

HERE = Path(__file__).resolve().parent
RIVALS, TRANSFER = HERE / "results" / "rivals.json", HERE / "transfer" / "rows-lora.jsonl"
OURS = "four-views"
REFERENCES = ("chance", "no transfer", "source prior, leave one target out", "noise ceiling")
WITH, WITHOUT = "all sources", "without kin"

# Both schemes paint their own ground: a page may be dark where the reader's system is light.
STYLE = """.ground{fill:#fff}.text{fill:#1f2328}.faint{fill:#57606a;font-size:11px}.grid{stroke:#d0d7de;stroke-width:1}
.rival{fill:#57606a;stroke:#57606a}.ours{fill:#0969da;stroke:#0969da}.ref{fill:#9a6700;stroke:#9a6700}.hollow{fill:#fff}
.bar{stroke-width:1.5;fill:none}.dot{stroke-width:1.5}.none{stroke:#9a6700;stroke-width:1.2;stroke-dasharray:4 3}
.stranger{fill:#8c959f;fill-opacity:.75}.kin{fill:#0969da}.first{fill:none;stroke:#cf222e;stroke-width:1.8}
@media (prefers-color-scheme: dark){.ground{fill:#0d1117}.text{fill:#e6edf3}.faint{fill:#9da7b3}.grid{stroke:#30363d}
.rival{fill:#9da7b3;stroke:#9da7b3}.ours{fill:#58a6ff;stroke:#58a6ff}.ref{fill:#d29922;stroke:#d29922}.hollow{fill:#0d1117}
.none{stroke:#d29922}.stranger{fill:#8b949e}.kin{fill:#58a6ff}.first{stroke:#ff7b72}}"""


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers from ``low`` to ``high`` onto pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def svg(width: int, height: int, title: str, about: str, parts: Iterable[str]) -> str:
    """A whole file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(title)}">'
    )
    ground = f'<rect class="ground" width="{width}" height="{height}"/>'
    return "\n".join([head, f"<title>{escape(about)}</title>", f"<style>{STYLE}</style>", ground, *parts, "</svg>", ""])


def text(x: float, y: float, words: str, style: str = "text", anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def circle(x: float, y: float, radius: float, style: str, about: str = "") -> str:
    inside = f"<title>{escape(about)}</title>" if about else ""
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{inside}</circle>'


def shown(name: str) -> str:
    """A ranking's name with what a reader must know."""
    return {
        OURS: "hubrank (four-views)",
        "three-views": "hubrank without the rows",
        "first-order LogME": "hubrank without tuning",
        "three-views, random start": "without the rows, random start",
        "read-write": "hubrank's read-write",
        "compute-std": "hubrank's compute-std",
        "tokens-std": "hubrank's tokens-std",
        "flattened A and B, strangers at 0": "flattened, strangers at 0",
        REFERENCES[2]: "source prior",
    }.get(name, name)


def in_order(result: Mapping[str, Any]) -> list[str]:
    """Rankings by their mean regret@1 over all sources, the best first."""
    found = {name: line["mean, low, high"]["regret@1"] for name, line in result[WITH].items()}
    return sorted((name for name, one in found.items() if one is not None), key=lambda name: found[name][0])


def regret_plot(result: Mapping[str, Any]) -> str:
    """Two panels, regret@1 and regret@3; a row a ranking."""
    names = in_order(result)
    top, row, left, wide, gap = 74, 27, 232, 292, 30
    bottom = top + row * len(names)
    figures = {(g, n, m): result[g][n]["mean, low, high"][m] for g in (WITH, WITHOUT) for n in names for m in MEASURED}
    most = max(one[2] for one in figures.values() if one is not None)
    targets = len(result["targets"])
    parts = [
        text(16, 24, "What is lost by trying only the first, or the first three, sources of a ranking"),
        text(
            16, 44, f"mean over {targets} targets, 95 % bootstrap intervals; filled: all sources, hollow: without kin", "faint"
        ),
    ]
    for panel, measure in enumerate(MEASURED):
        scale = Scale(0, most, left + panel * (wide + gap), left + panel * (wide + gap) + wide)
        parts.append(text(scale.start, top - 10, f"{measure}, %", "text"))
        for tick in range(0, int(100 * most) + 1, 10):
            x = scale(tick / 100)
            parts += [line(x, top, x, bottom, "grid"), text(x, bottom + 16, str(tick), "faint", "middle")]
        for i, name in enumerate(names):
            style = "ours" if name == OURS else "ref" if name in REFERENCES else "rival"
            for group, shift in ((WITH, -5), (WITHOUT, 5)):
                one, y = figures[group, name, measure], top + row * (i + 0.5) + shift
                if one is not None:
                    parts.append(line(scale(one[1]), y, scale(one[2]), y, f"bar {style}"))
                    parts.append(circle(scale(one[0]), y, 4, f"dot {style}{' hollow' if group == WITHOUT else ''}"))
    parts += [text(left - 14, top + row * (i + 0.5) + 4, shown(name), "text", "end") for i, name in enumerate(names)]
    return svg(left + 2 * wide + gap + 20, bottom + 30, "Regret of each ranking", f"Regret of {len(names)} rankings", parts)


MEASURED = ("regret@1", "regret@3")


def panel(target: MeasuredTarget, sources: Sequence[str], values: np.ndarray, corner: tuple[float, float]) -> list[str]:
    """One target: hubrank's value to the right, measured transfer upwards.

    Args:
        values: [tuned, n] of hubrank; their mean is shown, the first place of each is ringed.
    """
    (left, top), (wide, high) = corner, (176, 108)
    there = np.flatnonzero(target.there)
    truth, mean = target.truth, values.mean(axis=0)
    fresh = float(np.nanmean(target.scratch[there]))
    across = Scale(float(mean[there].min()), float(mean[there].max()), left + 34, left + wide - 4)
    low, high_value = min(fresh, float(truth[there].min())), float(truth[there].max())
    up = Scale(low, high_value, top + high - 4, top + 22)
    parts = [
        text(left, top + 8, target.name),
        line(left + 26, top + 16, left + 26, top + high + 2, "grid"),
        line(left + 26, top + high + 2, left + wide, top + high + 2, "grid"),
        *(text(left + 22, up(value) + 4, f"{100 * value:.0f}", "faint", "end") for value in (low, high_value)),
        line(left + 26, up(fresh), left + wide, up(fresh), "none"),
    ]
    for i in there:
        about = f"{sources[i]}: {truth[i]:.3f}, no transfer {target.scratch[i]:.3f}"
        parts.append(circle(across(mean[i]), up(truth[i]), 3.6, "kin" if target.kin[i] else "stranger", about))
    for first in sorted({int(there[one[there].argmax()]) for one in values}):
        parts.append(circle(across(mean[first]), up(truth[first]), 7, "first"))
    return parts


def targets_plot(result: Mapping[str, Any], targets: Sequence[MeasuredTarget], sources: Sequence[str]) -> str:
    """A panel a target, four in a row."""
    across, down, top = 212, 144, 86
    values = result["values"][OURS]
    rows = -(-len(targets) // 4)
    parts = [
        text(16, 24, "What each source gave (upwards: the metric, in percent) against hubrank's value (to the right)"),
        circle(22, 46, 3.6, "kin"), text(32, 50, "trained on the target's own task or corpus", "faint"),
        circle(286, 46, 3.6, "stranger"), text(296, 50, "any other source", "faint"),
        circle(412, 46, 6, "first"), text(424, 50, "first in the ranking, one a tuned seed", "faint"),
        line(640, 46, 664, 46, "none"), text(670, 50, "no transfer", "faint"),
    ]  # fmt: skip
    for i, target in enumerate(targets):
        of_target = np.array([values[target.name][name] for name in sources], dtype=float).T
        parts += panel(target, sources, of_target, (20 + across * (i % 4), top + down * (i // 4)))
    return svg(
        20 + 4 * across, top + down * rows, "Measured transfer by target", "Measured transfer and hubrank's value", parts
    )


def plots(rivals: Path = RIVALS, transfer: Path = TRANSFER) -> dict[str, str]:
    """Both files by name."""
    result = json.loads(rivals.read_text("utf-8"))
    matrix = read_rows(transfer, "first", 200)
    if list(matrix.sources) != result["sources"]:
        raise ValueError(f"{rivals} and {transfer} are of different sources; run bench/rivals.py on these rows first")
    targets = [target for target in matrix.targets if target.name in result["targets"]]
    return {
        "method-regret.svg": regret_plot(result),
        "method-targets.svg": targets_plot(result, targets, matrix.sources),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, default=RIVALS)
    parser.add_argument("--transfer", type=Path, default=TRANSFER)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs")
    options = parser.parse_args()
    for name, drawn in plots(options.rivals, options.transfer).items():
        (options.out / name).write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
