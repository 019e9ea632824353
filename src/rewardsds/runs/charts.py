"""Small line charts as inline SVG; the page's style sheet gives colours, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 34


@dataclass(frozen=True)
class Series:
    """A line. style: CSS classes of its path."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str


def line_chart(title: str, series: Sequence[Series], logarithmic: bool = False, x_label: str = "step") -> str:
    """An SVG figure over steps or whatever `x_label` says, or an empty string when there is nothing to draw."""
    drawn = []
    for line in series:
        points = [
            (x, math.log10(y) if logarithmic else y)
            for x, y in zip(line.x, line.y, strict=True)
            if math.isfinite(y) and (y > 0 or not logarithmic)
        ]
        if len(points) >= 2:
            drawn.append((line, points))
    if not drawn:
        return ""
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    x_ticks = ticks(min(xs), max(xs))
    y_ticks = ticks(min(ys), max(ys))
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in y_ticks:
        label = _number(10**y if logarithmic else y)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{label}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            place = f'x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            parts.append(f'<text {place} text-anchor="middle">{_number(x)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    for line, points in drawn:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline class="{line.style}" points="{path}"><title>{escape(line.name)}</title></polyline>'
        )
    parts.append("</svg>")
    legend = "".join(f'<span><i class="{line.style}"></i>{escape(line.name)}</span>' for line, _ in drawn)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{"".join(parts)}'
        f'<div class="legend">{legend}</div></figure>'
    )


@dataclass(frozen=True)
class Mark:
    """A point with whiskers. x, y: (value, low, high); low and high are the value where nothing is known of them."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    style: str = "a"


def mark_chart(
    title: str, marks: Sequence[Mark], x_label: str, y_label: str, logarithmic_x: bool = False
) -> str:
    """An SVG figure of named points, an empty string when there are none. logarithmic_x: for x above 0 alone."""
    if not marks:
        return ""

    def scaled(value: float) -> float:
        return math.log10(value) if logarithmic_x else value

    xs = [scaled(value) for mark in marks for value in mark.x]
    ys = [value for mark in marks for value in mark.y]
    x_ticks = _log_ticks(min(xs), max(xs)) if logarithmic_x else ticks(min(xs), max(xs))
    y_ticks = ticks(min(ys), max(ys))
    x_low, x_high = _widened(min(x_ticks[0], *xs), max(x_ticks[-1], *xs), 0.06)
    y_low, y_high = _widened(y_ticks[0], y_ticks[-1], 0.09)  # room for names above the highest

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in y_ticks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
            f'<text x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{_number(y)}</text>'
        )
    for x in x_ticks:
        label = _number(10**x if logarithmic_x else x)
        parts.append(
            f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
        )
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 3}">{escape(y_label)}</text>')
    taken: list[tuple[float, float]] = []
    for mark in marks:
        x, y = across(scaled(mark.x[0])), up(mark.y[0])
        for (x1, y1), (x2, y2) in (
            ((across(scaled(mark.x[1])), y), (across(scaled(mark.x[2])), y)),
            ((x, up(mark.y[1])), (x, up(mark.y[2]))),
        ):
            if (x1, y1) != (x2, y2):
                parts.append(
                    f'<polyline class="{mark.style} whisker" points="{x1:.1f},{y1:.1f} {x2:.1f},{y2:.1f}"/>'
                )
        parts.append(
            f'<circle class="{mark.style}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{escape(mark.name)}</title></circle>"
        )
        right = x < 0.6 * WIDTH
        place = y - 8
        while any(abs(place - other) < 13 and abs(x - there) < 150 for there, other in taken):
            place += 13  # names of neighbours below each other
        taken.append((x, place))
        anchor = "start" if right else "end"
        parts.append(
            f'<text class="name" x="{x + (8 if right else -8):.1f}" y="{place:.1f}" text-anchor="{anchor}">'
            f"{escape(mark.name)}</text>"
        )
    parts.append("</svg>")
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{"".join(parts)}</figure>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) that enclose low…high; always at least two."""
    if not high > low:
        around = abs(low) * 0.1 or 1.0
        low, high = low - around, high + around
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten, from the last below `low` to the first above `high`."""
    powers = range(math.floor(low) - 1, math.ceil(high) + 2)
    places = [power + math.log10(m) for power in powers for m in (1, 2, 5)]
    first = max(index for index, place in enumerate(places) if place <= low + 1e-9)
    last = min(index for index, place in enumerate(places) if place >= high - 1e-9)
    return places[first : max(last, first + 1) + 1]


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    margin = share * (high - low)
    return low - margin, high + margin


def smoothed(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Exponential moving average over about `share` of the values, without a bias at the start."""
    decay = 1 - 1 / max(1.0, share * len(values))
    total = norm = 0.0
    result = []
    for value in values:
        total = decay * total + (1 - decay) * value
        norm = decay * norm + (1 - decay)
        result.append(total / norm)
    return result


def _number(value: float) -> str:
    if 1e3 <= abs(value) < 1e5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e5 and (value == 0 or abs(value) >= 1e-3) else f"{value:.0e}"
