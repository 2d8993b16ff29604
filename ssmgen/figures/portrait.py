"""A recurrence in one drawing: eigenvalues in the complex plane, what is left of a write, half-lives, and gates that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log, log10

from ..intervals import Interval
from ..recurrence import Recurrence
from .figure import SERIES, Figure, Panel, panel
from .spectrum import Spectrum, spectra

PLANE, HEIGHT, ROW = 260, 260, 350
"""Pixels: the side of the plane, the height of a panel, and from row to row without its legend."""
CURVES = 5
"""Eigenvalues whose powers are drawn, from the fastest to the slowest."""
HORIZON, TURNS = 4096, 200
"""Tokens that a curve is followed at most, and one that turns."""


@dataclass(frozen=True)
class Measured:
    """The values of one gate in a sample, as a histogram: `shares` of them between `edges`, and what lies in the middle."""

    name: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    median: float
    count: int


def portrait(
    recurrences: Mapping[str, Recurrence], measured: Mapping[str, tuple[Measured, ...]] | None = None, has_sample: bool = False
) -> str:
    """The drawing of derived recurrences, by name, as SVG.

    `measured` has the gates of a checkpoint by recurrence, at a sample where `has_sample`, else at inputs 0.
    """
    comments = [recurrence.written.comment.strip().split("\n")[0] for recurrence in recurrences.values()]
    notes = (
        *(line for line in comments[:1] if line and len(comments) == 1),
        "Bands: what is proved for every token. Points and curves: at initial parameters, inputs 0; drawn parameters spread evenly.",
        *((f"Histograms: the checkpoint's gates {'on the sample' if has_sample else 'at inputs 0'}.",) if measured else ()),
    )
    panels: list[Panel] = []
    top = 66 + 15 * len(notes)
    for name, recurrence in recurrences.items():
        found = spectra(recurrence)
        legend = _legend(found)
        panels += [_plane(name, found, legend, top), _response(found, top), _half_lives(found, top)]
        top += ROW + 15 * len(legend)
        gates = (measured or {}).get(name, ())
        for first in range(0, len(gates), 4):
            panels += [_histogram(gate, 64 + 265 * i, top, i) for i, gate in enumerate(gates[first : first + 4])]
            top += 250
    return Figure(1120, top - 30, ", ".join(recurrences) or "nothing recurrent", notes, tuple(panels)).svg()


# --- eigenvalues -------------------------------------------------------------------------------------------------


def _plane(name: str, found: tuple[Spectrum, ...], legend: list[tuple[str, str]], top: float) -> Panel:
    numbers = [abs(a) for each in found for a in (*each.eigenvalues, *each.initial_along)]
    reach = max([1.25, *(1.1 * number for number in numbers if number < 10)])
    plane = panel(f"{name}: eigenvalues of a token", (64, top, PLANE, HEIGHT), (-reach, reach), (-reach, reach), "Re", "Im")
    plane.circle(1.0, "rim")
    for i, each in enumerate(found):
        style = f"s{i % SERIES}"
        if each.factor is not None and each.signed is None:
            plane.ring(each.factor.low, min(each.factor.high, 2 * reach), f"ring {style}")
        elif each.signed is not None:
            _stretch(plane, each.signed, reach, 0.035, f"band {style}")
        if each.along is not None:
            _stretch(plane, each.along, reach, 0.075, f"band {style}")
        for a in each.eigenvalues:
            plane.dot(a.real, a.imag, f"dot {style}")
        for a in each.initial_along:
            plane.box(a.real, a.real, a.imag - 0.075, a.imag + 0.075, f"bar {style}", least=2.0)
    for i, (text, style) in enumerate(legend):
        plane.say(-reach, -reach, text, style, down=54.0 + 15 * i)
    return plane


def _stretch(plane: Panel, interval: Interval, reach: float, half: float, style: str) -> None:
    """A stretch of the real axis, at least two pixels long."""
    plane.box(max(interval.low, -reach), min(interval.high, reach), -half, half, style, least=2.0)


def _legend(found: tuple[Spectrum, ...]) -> list[tuple[str, str]]:
    lines = []
    for i, each in enumerate(found):
        states = ", ".join(each.states)
        turned = ", turning" if each.factor is not None and each.signed is None else ""
        known = "no bound" if each.factor is None else f"|a| in {each.factor}"
        lines.append((f"{states}: {known}{turned}", f"name s{i % SERIES}"))
        if each.along is not None:
            lines.append((f"{states}: {each.along} along the key of its correction", f"name s{i % SERIES}"))
    return lines or [("not linear in its states", "note")]


# --- what is left of a write -------------------------------------------------------------------------------------


def _response(found: tuple[Spectrum, ...], top: float) -> Panel:
    lives = [life for each in found for a in each.eigenvalues if (life := _life(abs(a))) is not None]
    last = min(HORIZON, max(8, ceil(7 * max(lives, default=1))))
    if any(a.imag for each in found for a in each.eigenvalues):
        last = min(last, TURNS)
    is_log = last > TURNS and min(lives, default=1) * 20 < max(lives, default=1)
    turning = any(a.real < -1e-6 for each in found for a in each.eigenvalues)
    tokens = (1.0, float(last), True) if is_log else (0.0, float(last))
    chart = panel("Impulse response: Re a^t", (410, top, 300, HEIGHT), tokens, (-1.05 if turning else 0.0, 1.05), "tokens after a write")
    for i, each in enumerate(found):
        for a in _picked(each.eigenvalues):
            chart.line([(t, (a**t).real if abs(a) > 0 or t == 0 else 0.0) for t in _moments(tokens)], f"line thin s{i % SERIES}")
    if not any(each.eigenvalues for each in found):
        chart.say(chart.x.low, chart.y.high, "no eigenvalue is known as a number", right=8.0, down=20.0)
    return chart


def _picked(values: tuple[complex, ...]) -> list[complex]:
    """The fastest, the slowest and some between; of a conjugate pair one."""
    upper = [a for a in values if a.imag >= 0]
    if len(upper) <= CURVES:
        return upper
    return [upper[round(i * (len(upper) - 1) / (CURVES - 1))] for i in range(CURVES)]


def _moments(tokens: tuple) -> list[float]:
    """Whole numbers of tokens that show a curve: every one of few, else some that lie evenly on the scale."""
    low, high = int(tokens[0]), int(tokens[1])
    if high <= TURNS:
        return list(range(low, high + 1))
    if len(tokens) == 3:
        return sorted({round(10 ** (log10(high) * i / 160)) for i in range(161)})
    return sorted({round(low + (high - low) * i / 160) for i in range(161)})


# --- half-lives --------------------------------------------------------------------------------------------------


def _half_lives(found: tuple[Spectrum, ...], top: float) -> Panel:
    ends = [end for each in found if each.half_life for end in (each.half_life.low, each.half_life.high) if 0 < end < inf]
    ends += [life for each in found for a in each.eigenvalues if (life := _life(abs(a))) is not None]
    low, high = 10.0 ** floor(log10(max(min(ends, default=1), 1e-3))), 10.0 ** ceil(log10(min(max(ends, default=1), 1e6)) + 1e-9)
    scale = (min(low, 0.1), max(high, 1e3), True)
    chart = panel("Half-life", (760, top, 300, HEIGHT), scale, (0.0, float(max(len(found), 1))), "tokens (log)", has_y_ticks=False)
    for i, each in enumerate(found):
        y, style = len(found) - i - 0.5, f"s{i % SERIES}"
        chart.say(scale[0], y, f"{', '.join(each.states)}: {_life_words(each)}", f"name {style}", right=8.0, down=-24.0)
        if each.half_life is not None:
            chart.box(max(each.half_life.low, scale[0]), min(each.half_life.high, scale[1]), y - 0.06, y + 0.06, f"band {style}", least=2.0)
        early = sorted({life for a in each.eigenvalues if (life := _life(abs(a))) is not None})
        for life in early:
            chart.dot(life, y, f"dot {style}", 3.0)
        if early:
            span = f"{early[0]:.3g}" if len(early) == 1 else f"{early[0]:.3g} to {early[-1]:.3g}"
            chart.say(scale[0], y, f"{span} before training", right=8.0, down=34.0)
    return chart


def _life(factor: float) -> float | None:
    """Tokens after which half is left; None where nothing fades, or all at once."""
    return log(2) / -log(factor) if 0 < factor < 1 else None


def _life_words(each: Spectrum) -> str:
    if each.factor is None:
        return "nothing is proved"
    if each.half_life is None:
        return "nothing fades" if each.factor.low == each.factor.high == 1 else "may grow"
    return f"proved in {each.half_life}"


# --- gates -------------------------------------------------------------------------------------------------------


def _histogram(gate: Measured, left: float, top: float, number: int) -> Panel:
    high = max(gate.shares)
    chart = panel(
        gate.name, (left, top, 210, 150), (gate.edges[0], gate.edges[-1]), (0.0, 1.1 * high), f"median {gate.median:.4g} of {gate.count:,}"
    )
    for low, high, share in zip(gate.edges[:-1], gate.edges[1:], gate.shares, strict=True):
        if share:
            chart.box(low, high, 0.0, share, f"bar s{number % SERIES}")
    return chart


def histogram(name: str, values: list[float], bins: int = 32) -> Measured:
    """The histogram of finite values between the least and the largest; all in one bin where they are equal. ValueError for none."""
    kept = sorted(value for value in values if isfinite(value))
    if not kept:
        raise ValueError(f"`{name}` has no finite value")
    low, high = kept[0], kept[-1]
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    counts = [0] * bins
    for value in kept:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    return Measured(name, tuple(edges), tuple(count / len(kept) for count in counts), kept[len(kept) // 2], len(kept))
