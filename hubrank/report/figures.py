"""Inline SVG: bars, a heatmap, a map. Colours come from the page's sheet; all text of strangers is escaped and cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hubrank.ranking.zoo_map import Place, ZooMap
from hubrank.report.page import text

__all__ = ["HeatRow", "bar_svg", "heatmap_svg", "map_svg"]

_CELL_HEIGHT, _LABEL, _WIDTH = 18, 330, 900
_MAP_WIDTH, _MAP_HEIGHT, _MARGIN, _LINE, _ROOM = 900, 560, 36, 14, 240
_NAME = 46


@dataclass(frozen=True, slots=True)
class HeatRow:
    """A row of a heatmap: its label, the anchor that it leads to, and a value a column, None where there is none."""

    label: str
    anchor: str | None
    values: Sequence[float | None]


def bar_svg(part: float, *, width: int = 90) -> str:
    """A bar for a part from 0 to 1; its number stands beside it, so it says nothing to those who hear it."""
    length = max(0.0, min(1.0, part)) * width
    shape = f'<rect class="bar" width="{length:.1f}" height="5" rx="1"/>'
    return f'<svg width="{width}" height="5" viewBox="0 0 {width} 5" aria-hidden="true">{shape}</svg>'


def heatmap_svg(rows: Sequence[HeatRow], columns: Sequence[str], *, label: str, digits: int = 3) -> str:
    """Cells as dark as their values are large, the largest of all the darkest; negative ones in the other colour."""
    most = max((abs(v) for row in rows for v in row.values if v is not None), default=0.0) or 1.0
    width = min(64.0, (_WIDTH - _LABEL) / max(1, len(columns)))
    step = max(1, -(-len(columns) // int((_WIDTH - _LABEL) / 26)))
    height = _CELL_HEIGHT * len(rows) + 22
    parts = []
    for x, column in enumerate(columns):
        if x % step == 0:
            at = _LABEL + (x + 0.5) * width
            parts.append(f'<text class="faint" x="{at:.1f}" y="12" text-anchor="middle">{text(column, 8)}</text>')
    for y, row in enumerate(rows):
        top = 20 + y * _CELL_HEIGHT
        name = f'<text x="{_LABEL - 8}" y="{top + 13}" text-anchor="end">{text(_short(row.label))}</text>'
        parts.append(f'<a href="#{row.anchor}">{name}</a>' if row.anchor else name)
        for x, value in enumerate(row.values):
            place = f'x="{_LABEL + x * width:.1f}" y="{top}" width="{width - 1:.1f}" height="{_CELL_HEIGHT - 2}"'
            if value is None:
                parts.append(f'<rect class="none" {place}><title>{text(columns[x], 20)}: not there</title></rect>')
                continue
            kind = "cell" if value >= 0 else "minus"
            shade = f'fill-opacity="{max(0.03, abs(value) / most):.3f}"'
            said = f"<title>{text(row.label, 80)}, layer {text(columns[x], 20)}: {value:.{digits}f}</title>"
            parts.append(f'<rect class="{kind}" {shade} {place}>{said}</rect>')
    view = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f'<svg {view} role="group" aria-label="{text(label)}">{"".join(parts)}</svg>'


def map_svg(drawn: ZooMap, *, anchors: Mapping[str, str], near: Collection[str], label: str) -> str:
    """Points of a map: guests as diamonds with their names, near sources in colour with theirs, the others as dots.

    Args:
        anchors: where a point leads to, by its name; only those can be reached by keyboard.
        near: names of the sources to tell apart.
    """
    xs, ys = [place.x for place in drawn.places], [place.y for place in drawn.places]
    wide, high = max(max(xs) - min(xs), 1e-9), max(max(ys) - min(ys), 1e-9)
    # Alike in both directions, and with room to the right for names.
    unit = min((_MAP_WIDTH - 2 * _MARGIN - _ROOM) / wide, (_MAP_HEIGHT - 2 * _MARGIN) / high)
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2

    def at(place: Place) -> tuple[float, float]:
        return (_MAP_WIDTH - _ROOM) / 2 + (place.x - middle_x) * unit, _MAP_HEIGHT / 2 - (place.y - middle_y) * unit

    far = [place for place in drawn.places if not place.guest and place.name not in near]
    named = [place for place in drawn.places if place.guest or place.name in near]
    parts = [f'<rect class="frame" x=".5" y=".5" width="{_MAP_WIDTH - 1}" height="{_MAP_HEIGHT - 1}"/>']
    parts += [_point(place, *at(place), "dot", anchors) for place in far]
    parts += _labels([(place, *at(place)) for place in named])
    parts += [_point(place, *at(place), "guest" if place.guest else "near", anchors) for place in named]
    view = f'viewBox="0 0 {_MAP_WIDTH} {_MAP_HEIGHT}" width="{_MAP_WIDTH}" height="{_MAP_HEIGHT}"'
    return f'<svg {view} role="group" aria-label="{text(label)}">{"".join(parts)}</svg>'


def _point(place: Place, x: float, y: float, kind: str, anchors: Mapping[str, str]) -> str:
    said = f"<title>{text(place.name)}{f' ({text(place.task, 60)})' if place.task else ''}</title>"
    if kind == "guest":
        shape = f'<path class="guest" d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z">{said}</path>'
    else:
        shape = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if kind == "near" else 3.5}">{said}</circle>'
    anchor = anchors.get(place.name)
    return f'<a href="#{anchor}" aria-label="{text(place.name)}">{shape}</a>' if anchor else shape


def _labels(named: Sequence[tuple[Place, float, float]]) -> list[str]:
    """Names beside their points, moved down until none lies over another, with a line back where they had to move."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for place, x, y in sorted(named, key=lambda one: (not one[0].guest, one[2])):
        name = _short(place.name if place.guest or not place.task else f"{place.task}: {place.name}")
        width = 6.2 * len(name)
        left = x + 11 if x + 11 + width < _MAP_WIDTH - 4 else x - 11 - width
        top = y + 4
        while any(abs(top - other) < _LINE and left < end and start < left + width for start, end, other in taken):
            top += _LINE
        top = min(top, _MAP_HEIGHT - 4)
        taken.append((left, left + width, top))
        if top - y > _LINE:
            parts.append(f'<line class="lead-line" x1="{x:.1f}" y1="{y:.1f}" x2="{left:.1f}" y2="{top - 4:.1f}"/>')
        parts.append(f'<text x="{left:.1f}" y="{top:.1f}">{text(name)}</text>')
    return parts


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 1]}…{name[-_NAME // 2 :]}"
