"""Even and odd parts of exponentials: f(x + s) = e + s o and f(x - s) = e - s o, entire functions of x and d = s^2.

Where d >= 0, x + s and x - s are the eigenvalues of a real 2 x 2 matrix; where d < 0 they are a conjugate pair, and e and o are as real.
phi_k(x) is the sum of x^j / (j + k)!, and phi_0 = exp: phi_k(x + s) is the integral over r in [0, 1] of exp(r (x + s)) by a weight
that is not negative, so that e and o of phi_k are those of exp(r x) and d r^2, weighed.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

from . import intervals
from .intervals import INFINITY, Interval

LEAST_SINC = -0.21723362821122166
"""The least value of sin(w) / w, at w = 4.493."""


def parts(order: int, x: float, d: float) -> tuple[float, float]:
    """e and o of phi of this order."""
    if order and abs(d) < 1 and abs(x) < 2:
        even, odd = 1.0, 0.0
        for j in range(28, 0, -1):
            even, odd = 1 + (even * x + odd * d) / (j + order), (even + odd * x) / (j + order)
        return even / math.factorial(order), odd / math.factorial(order)
    if order == 0 and abs(d) < 1:
        even = odd = 1.0
        for j in range(9, 0, -1):
            even, odd = 1 + d * even / (2 * j * (2 * j - 1)), 1 + d * odd / (2 * j * (2 * j + 1))
        return math.exp(x) * even, math.exp(x) * odd
    if abs(d) >= 1:
        root = cmath.sqrt(d)
        above, below = _phi(order, x + root), _phi(order, x - root)
        return ((above + below) / 2).real, ((above - below) / (2 * root)).real
    # s is small and x is not: phi_k = (phi_{k-1} - 1 / (k-1)!) / z, and 1 / z = (x - s) / (x^2 - d)
    even, odd = parts(order - 1, x, d)
    even, size = even - 1 / math.factorial(order - 1), x * x - d
    return (even * x - odd * d) / size, (odd * x - even) / size


def _phi(order: int, z: complex) -> complex:
    if order and abs(z) < 1:
        value = 1 + 0j
        for j in range(20, 0, -1):
            value = 1 + z * value / (j + order)
        return value / math.factorial(order)
    value = cmath.exp(z)
    for k in range(order):
        value = (value - 1 / math.factorial(k)) / z
    return value


def bend(order: int, x: float, d: float) -> float:
    """The derivative of o by d, of phi of this order: by its own series in d where that is small."""
    if abs(d) >= 1:
        slope, odd = parts(order, x, d)
        slope -= order * parts(order + 1, x, d)[0] if order else 0.0
        return (slope - odd) / (2 * d)
    if order == 0:
        total = 1.0
        for j in range(9, 0, -1):
            total = 1 + d * total / (2 * j * (2 * j + 3))
        return math.exp(x) * total / 6
    if abs(x) < 2:
        even, odd, d_even, d_odd = 1.0, 0.0, 0.0, 0.0
        for j in range(28, 0, -1):
            n = j + order
            d_even, d_odd = (d_even * x + d_odd * d + odd) / n, (d_even + d_odd * x) / n
            even, odd = 1 + (even * x + odd * d) / n, (even + odd * x) / n
        return d_odd / math.factorial(order)
    size, odd = x * x - d, parts(order, x, d)[1]
    return (bend(order - 1, x, d) * x - parts(order - 1, x, d)[1] / 2 + odd) / size


def part(order: int, place: int) -> Callable[[float, float], float]:
    """e (place 0) or o (place 1) as a function of x and d."""
    return lambda x, d: parts(order, x, d)[place]


def reach(order: int, place: int) -> Callable[[Interval, Interval], Interval]:
    """An interval of e or o: both grow in x and in d from d = 0 up; below, an entry of exp is at most exp(x) times cos or sin(w) / w."""

    def transfer(x: Interval, d: Interval) -> Interval:
        def end(x: float, d: float) -> float:
            if x == -INFINITY:
                return 0.0
            if INFINITY in (x, d):
                return INFINITY
            try:
                return parts(order, x, d)[place]
            except OverflowError:
                return INFINITY

        high = end(x.high, max(d.high, 0.0))
        if d.low >= 0:
            low = end(x.low, d.low)
        else:
            low = -end(x.high, 0.0) if place == 0 else LEAST_SINC * end(x.high, 0.0)
        # a float of some arithmetic: a few of its last places outwards
        slack = 1e-12
        low = low - abs(low) * slack if math.isfinite(low) else low
        high = high + abs(high) * slack if math.isfinite(high) else high
        return intervals.closed(low, high)

    return transfer
