"""Charts as SVG text: lines with bands, and points, on linear or logarithmic axes. Colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Axis", "Series", "lines", "points"]

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 112, 12, 40
LABEL_HEIGHT, LETTER = 12, 6.2
MOST_LETTERS = 18
"""What a name takes."""

FARTHEST = 2 * LABEL_HEIGHT
"""A name stands from the end of its line, where there are too many for all."""

DOT = 4.5
MANY = 10
"""Beyond so many lines, a band is drawn only of the one that is pointed at."""


@dataclass(frozen=True)
class Axis:
    """What is along an axis, from where to where."""

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()

    @staticmethod
    def over(label: str, values: Sequence[float], log: bool = False, zero: bool = False) -> Axis:
        """An axis that holds some values."""
        low, high = min(values), max(values)
        if log:
            low, high = max(low, 1e-12), max(high, 1e-12)
            return Axis(label, low / 1.15, high * 1.15, True, _log_ticks(low, high))
        low = min(0.0, low) if zero else low
        high = high if high > low else low + 1
        return Axis(label, low, high, False, _ticks(low, high))

    def at(self, value: float) -> float:
        """Where a value stands, 0 to 1."""
        if self.log:
            return (math.log(max(value, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Series:
    """A line or points of one layer.

    Args:
        key: the layer, by which the page lights it up everywhere.
        name: for a reader.
        hue: the number of its family's colour.
        xy: its points.
        band: for each point the interval, or None.
        note: what is told when it is pointed at.
    """

    key: str
    name: str
    hue: int
    xy: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float] | None] = field(default=())
    note: str = ""


def lines(x: Axis, y: Axis, series: Sequence[Series], rules: Sequence[tuple[float, str]] = ()) -> str:
    """Lines, with their bands behind them; `rules` are horizontal lines with a name, such as chance."""
    parts = [_frame(x, y), *(_rule(y, value) for value, _ in rules)]
    named = _end_names([_y(y, s.xy[-1][1]) for s in series])
    for i, s in reversed(list(enumerate(series))):  # the best lies on top
        where = [(_x(x, a), _y(y, b)) for a, b in s.xy]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in where)
        band = _band(x, y, s) if s.band else ""
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in where) if len(where) < 9 else ""
        told = f"<title>{escape(s.name)}{escape(s.note and ': ' + s.note)}</title>"
        group = _group(s, "" if i in named else " quiet")
        parts.append(f'{group}{told}{band}<path class="wide" d="{path}"/><path class="line" d="{path}"/>{dots}</g>')
    parts += [_rule_name(y, value, name) for value, name in rules]  # over the lines that begin there
    for i, s in enumerate(series):
        at = named.get(i, _y(y, s.xy[-1][1])) + 3.5
        parts.append(f"{_group(s)}{_label(s, WIDTH - RIGHT + 5, at, i in named)}</g>")
    return _svg(parts, "many" if len(series) > MANY else "few")


def points(x: Axis, y: Axis, series: Sequence[Series], frontier: Sequence[tuple[float, float]] = ()) -> str:
    """One point for each layer, and the steps of the frontier."""
    parts = [_frame(x, y)]
    if frontier:
        corners = [(_x(x, a), _y(y, b)) for a, b in frontier]
        path = f"M{corners[0][0]:.1f} {corners[0][1]:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in corners[1:])
        parts.append(f'<path class="frontier" d="{path}H{WIDTH - RIGHT}"/>')
    best = set(frontier)
    dots = [(_x(x, s.xy[0][0]), _y(y, s.xy[0][1])) for s in series]
    placed = [(a - DOT, b, a + DOT) for a, b in dots]
    for s in sorted(series, key=lambda s: s.xy[0] not in best):  # names of the frontier come first
        a, b = _x(x, s.xy[0][0]), _y(y, s.xy[0][1])
        end = a > WIDTH - RIGHT - 20
        left = a - 7 - LETTER * len(_brief(s.name)) if end else a + 7
        box = left, b, left + LETTER * len(_brief(s.name))
        room = not any(abs(b - v) < LABEL_HEIGHT - 3 and box[0] < w and u < box[2] for u, v, w in placed)
        placed += [box] if room else []
        parts.append(
            f"{_group(s)}<title>{escape(s.name)}: {escape(s.note)}</title>"
            f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="{DOT}"/>'
            f"{_label(s, a - 7 if end else a + 7, b + 3.5, room, 'end' if end else 'start')}</g>"
        )
    return _svg(parts)


# ------------------------------------------------------------------------------------------------------------- pieces


def _svg(parts: Sequence[str], kind: str = "few") -> str:
    return f'<svg class="{kind}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.at(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - TOP - BOTTOM)


def _group(s: Series, kind: str = "") -> str:
    return f'<g class="series f{s.hue}{kind}" data-layer="{escape(s.key, quote=True)}">'


def _band(x: Axis, y: Axis, s: Series) -> str:
    held = [(a, band) for (a, _), band in zip(s.xy, s.band, strict=True) if band is not None]
    if len(held) < 2:
        return ""
    there = [f"{_x(x, a):.1f} {_y(y, min(high, y.high)):.1f}" for a, (_, high) in held]
    back = [f"{_x(x, a):.1f} {_y(y, max(low, y.low)):.1f}" for a, (low, _) in reversed(held)]
    return f'<path class="band" d="M{"L".join(there + back)}Z"/>'


def _rule(y: Axis, value: float) -> str:
    if not y.low <= value <= y.high:
        return ""
    at = _y(y, value)
    return f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _rule_name(y: Axis, value: float, name: str) -> str:
    if not y.low <= value <= y.high:
        return ""
    return f'<text class="tick" x="{LEFT + 4}" y="{_y(y, value) - 4:.1f}">{escape(name)}</text>'


def _frame(x: Axis, y: Axis) -> str:
    floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{wall}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{floor + 16}" text-anchor="middle">{short(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{wall}" y1="{floor}" y2="{floor}"/>')
    parts.append(
        f'<text class="name" x="{(LEFT + wall) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>'
    )
    parts.append(
        f'<text class="name" transform="translate(11 {(TOP + floor) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return "".join(parts)


def _end_names(ends: Sequence[float]) -> dict[int, float]:
    """Which lines are named where they end, and at which heights: all of them where there is room for so many names;
    else the first ones in the order, as long as no name has to stand far from its line."""
    if len(ends) * LABEL_HEIGHT <= HEIGHT - TOP - BOTTOM:
        return dict(enumerate(_apart(ends, TOP, HEIGHT - BOTTOM)))
    named: dict[int, float] = {}
    for i in range(len(ends)):
        which = [*named, i]
        heights = _apart([ends[j] for j in which], TOP, HEIGHT - BOTTOM)
        if all(abs(ends[j] - at) <= FARTHEST for j, at in zip(which, heights, strict=True)):
            named = dict(zip(which, heights, strict=True))
    return named


def _apart(wanted: Sequence[float], top: float, floor: float) -> list[float]:
    """Heights near the wanted ones, between top and floor, no two closer than a label is high."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    found = [0.0] * len(wanted)
    above = top - LABEL_HEIGHT
    for i in order:
        above = found[i] = max(wanted[i], above + LABEL_HEIGHT)
    below = floor + LABEL_HEIGHT
    for i in reversed(order):
        below = found[i] = min(found[i], below - LABEL_HEIGHT)
    return found


def _label(s: Series, x: float, y: float, shown: bool, anchor: str = "start") -> str:
    """The name of a series; one that has no room is shown when the series is pointed at."""
    hidden = "" if shown else " hidden"
    return f'<text class="label{hidden}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(_brief(s.name))}</text>'


def _brief(name: str) -> str:
    """What fits beside a chart; the whole name is told when its series is pointed at."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


# -------------------------------------------------------------------------------------------------------------- ticks


def _ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    rough = (high - low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(n * step for n in range(first, math.floor(high / step + 1e-9) + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten, or of two where there would be fewer than three."""
    for base in (10, 2):
        exponents = range(math.ceil(math.log(low, base) - 1e-6), math.floor(math.log(high, base) + 1e-6) + 1)
        if len(exponents) >= 3 or base == 2:
            stride = -(-len(exponents) // 6) if exponents else 1
            return tuple(float(base) ** e for e in exponents[::stride])
    return ()


def short(value: float) -> str:
    """A number in a few characters: 0.25, 40, 2048, 16.4k, 2M."""
    if abs(value) < 1e4 and float(value).is_integer():
        return f"{value:.0f}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
