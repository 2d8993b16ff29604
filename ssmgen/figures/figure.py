"""Drawings as SVG: scales, ticks and marks come to positions here, and `templates/figure/figure.svg.jinja` lays them out.

Colours are classes of the drawing's own style sheet, which has a light and a dark set; a mark's class is `s0` to `s3`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, isfinite, log10

from .._environment import render

SERIES = 4
"""How many colours there are."""


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` as positions from `start` to `end`; logarithmic where `is_log`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The position of a value, held inside the scale."""
        low, high, value = (log10(x) for x in (self.low, self.high, max(value, self.low))) if self.is_log else (self.low, self.high, value)
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self.start + part * (self.end - self.start), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers of the scale: position and label. Powers of ten on a logarithmic one, with 2 and 5 between few."""
        if self.is_log:
            decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            step, digits = max(1, ceil(len(decades) / 7)), (1, 2, 5) if len(decades) <= 4 else (1,)
            numbers = [digit * 10.0**d for d in decades if d % step == 0 for digit in digits]
            return [(self.at(x), f"{x:g}") for x in numbers if self.low * (1 - 1e-9) <= x <= self.high * (1 + 1e-9)]
        return [(self.at(x), f"{x:g}") for x in ticks(self.low, self.high) if self.low - 1e-9 <= x <= self.high + 1e-9]


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """Corners as SVG wants them; `style` is a class of the style sheet."""

    corners: str
    style: str


@dataclass(frozen=True)
class Disc:
    x: float
    y: float
    r: float
    style: str


@dataclass(frozen=True)
class Ring:
    """A circle drawn as a band, `width` wide around radius `r`."""

    x: float
    y: float
    r: float
    width: float
    style: str


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    style: str


@dataclass(frozen=True)
class Words:
    x: float
    y: float
    text: str
    anchor: str
    style: str


@dataclass
class Panel:
    """A frame with two scales; marks are added in the numbers of the scales, `clip` keeps them inside."""

    title: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    number: int = 0
    has_y_ticks: bool = True
    boxes: list[Box] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    discs: list[Disc] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)

    @property
    def x_ticks(self) -> list[Tick]:
        return [Tick(*tick) for tick in self.x.ticks()]

    @property
    def y_ticks(self) -> list[Tick]:
        return [Tick(*tick) for tick in self.y.ticks()] if self.has_y_ticks else []

    @property
    def left(self) -> float:
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def top(self) -> float:
        return self.y.end

    @property
    def bottom(self) -> float:
        return self.y.start

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    @property
    def centre(self) -> float:
        return (self.top + self.bottom) / 2

    @property
    def head(self) -> float:
        """Where the title stands."""
        return self.top - 12

    @property
    def tick_row(self) -> float:
        """Where the labels of the x axis stand."""
        return self.bottom + 16

    @property
    def tick_column(self) -> float:
        """Where the labels of the y axis end."""
        return self.left - 7

    @property
    def foot(self) -> float:
        """Where the label of the x axis stands."""
        return self.bottom + 34

    @property
    def side(self) -> float:
        """Where the label of the y axis stands."""
        return self.left - 44

    # --- marks, in the numbers of the scales ---

    def line(self, points: list[tuple[float, float]], style: str) -> None:
        """A line through points."""
        self.lines.append(Line(" ".join(f"{self.x.at(x):g},{self.y.at(y):g}" for x, y in points if isfinite(y)), style))

    def dot(self, x: float, y: float, style: str, r: float = 2.5) -> None:
        """A point, `r` pixels wide."""
        self.discs.append(Disc(self.x.at(x), self.y.at(y), r, style))

    def circle(self, radius: float, style: str) -> None:
        """A circle around 0 on a panel whose two scales are equal."""
        self.discs.append(Disc(self.x.at(0), self.y.at(0), round(self.x.at(radius) - self.x.at(0), 2), style))

    def ring(self, low: float, high: float, style: str) -> None:
        """What lies between two radii around 0 on a panel whose two scales are equal."""
        inner, outer = (self.x.at(radius) - self.x.at(0) for radius in (low, high))
        self.rings.append(Ring(self.x.at(0), self.y.at(0), round((inner + outer) / 2, 2), round(outer - inner, 2), style))

    def box(self, x0: float, x1: float, y0: float, y1: float, style: str, least: float = 0.0) -> None:
        """A box between two corners, at least `least` pixels in width and in height."""
        left, right = sorted((self.x.at(x0), self.x.at(x1)))
        top, bottom = sorted((self.y.at(y0), self.y.at(y1)))
        width, height = max(right - left, least), max(bottom - top, least)
        x, y = (left + right - width) / 2, (top + bottom - height) / 2
        self.boxes.append(Box(round(x, 2), round(y, 2), round(width, 2), round(height, 2), style))

    def say(self, x: float, y: float, text: str, style: str = "note", right: float = 0.0, down: float = 0.0) -> None:
        """Words that begin `right` and `down` pixels from a point."""
        self.words.append(Words(round(self.x.at(x) + right, 2), round(self.y.at(y) + down, 2), escape(text), "start", style))


@dataclass(frozen=True)
class Figure:
    """Panels on one sheet, with a title and lines below it."""

    width: float
    height: float
    title: str
    notes: tuple[str, ...]
    panels: tuple[Panel, ...]

    def svg(self) -> str:
        """The drawing as text; the same bytes for the same numbers."""
        for number, panel in enumerate(self.panels):
            panel.number = number
        notes = [Words(16, 44 + 15 * i, escape(line), "start", "note") for i, line in enumerate(self.notes)]
        return render("figure/figure.svg.jinja", figure=self, title=escape(self.title), notes=notes)


def panel(title: str, place: tuple[float, float, float, float], x: tuple, y: tuple, x_label: str = "", y_label: str = "", **more) -> Panel:
    """An empty panel: `place` is left, top, width and height in pixels, `x` and `y` are (low, high) or (low, high, is_log)."""
    left, top, width, height = place
    across, up = Scale(x[0], x[1], left, left + width, *x[2:]), Scale(y[0], y[1], top + height, top, *y[2:])
    return Panel(escape(title), across, up, escape(x_label), escape(y_label), **more)


def line_chart(title: str, x_label: str, y_label: str, series: dict[str, list[tuple[float, float]]], is_log: bool = False) -> str:
    """`series` (name -> points, at least one each) as one panel, with their names at the right; `is_log`: the x axis.

    The x axis begins at the first point, the y axis at a round number at or below the lowest.
    """
    points = [point for line in series.values() for point in line]
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    rows = ticks(min(y for _, y in points), max(y for _, y in points))
    chart = panel("", (64, 56, 540, 300), (low, max(high, low + 1e-9), is_log), (rows[0], rows[-1]), x_label, y_label)
    used: list[float] = []
    for number, (name, line) in enumerate(series.items()):
        chart.line(line, f"line s{number % SERIES}" + " dashed" * (number >= SERIES))
        down = 4.0
        while any(abs(chart.y.at(line[-1][1]) + down - other) < 13 for other in used):
            down += 1.0
        used.append(chart.y.at(line[-1][1]) + down)
        chart.words.append(Words(chart.right + 8, round(used[-1], 2), escape(name), "start", f"name s{number % SERIES}"))
    return Figure(760, 410, title, (), (chart,)).svg()


def ticks(low: float, high: float) -> list[float]:
    """Round numbers 1, 2 or 5 times a power of ten apart that enclose `low..high`, about six of them."""
    if high <= low:
        high = low + max(abs(low), 1e-9)
    span = high - low
    rough = span / 5
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(i * step, 10) for i in range(floor(low / step), ceil(high / step) + 1)]
