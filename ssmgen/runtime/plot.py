"""A line chart as an SVG file, written by hand: the demo needs one picture and no plotting library."""

from __future__ import annotations

from math import ceil, floor, log10
from pathlib import Path

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 48, 56
_INK, _FAINT = "#1f2933", "#d9dee3"
_COLOURS = ("#2563a8", "#c2571a", "#3c7d3f")


def line_chart(path: Path, title: str, x_label: str, y_label: str, series: dict[str, list[tuple[float, float]]]) -> None:
    """Write `series` (name -> points) as a chart; every series needs a point.

    The x axis begins at the first point, the y axis at a round number at or below the lowest.
    """
    points = [point for line in series.values() for point in line]
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    x_high = max(x_high, x_low + 1e-9)  # a single point has no width
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x_at(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold">{_escape(title)}</text>',
    ]
    for y in y_ticks:
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_at(y):.1f}" y2="{y_at(y):.1f}" stroke="{_FAINT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y_at(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            parts.append(f'<text x="{x_at(x):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 14}" text-anchor="middle">{_escape(x_label)}</text>')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text transform="translate(18 {middle:.0f}) rotate(-90)" text-anchor="middle">{_escape(y_label)}</text>')
    for index, (name, line) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        corners = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
        place = _WIDTH - _RIGHT - 110 * (len(series) - index)
        parts.append(f'<line x1="{place}" x2="{place + 20}" y1="20" y2="20" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{place + 26}" y="24">{_escape(name)}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def ticks(low: float, high: float) -> list[float]:
    """Round numbers 1, 2 or 5 times a power of ten apart that enclose `low..high`, about six of them."""
    if high <= low:
        high = low + max(abs(low), 1e-9)
    span = high - low
    rough = span / 5
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(i * step, 10) for i in range(floor(low / step), ceil(high / step) + 1)]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
