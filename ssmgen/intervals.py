"""Interval arithmetic over the extended reals: what a gate can reach, from what its arguments can reach.

Every operation returns an interval that contains each result of the real operation on points of its arguments
(outward rounding where a float cannot hold the exact end). A finite end is open when no point attains it; an infinite
end is always open. `0 * inf` is 0: the infinite end is a limit, never a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

INFINITY = float("inf")


@dataclass(frozen=True)
class Interval:
    """`low..high`, each end open or closed. The default is the whole line. Ends are floats, rounded outwards."""

    low: float = -INFINITY
    high: float = INFINITY
    low_open: bool = True
    high_open: bool = True

    def __str__(self) -> str:
        left = "(" if self.low_open else "["
        right = ")" if self.high_open else "]"
        return f"{left}{self.low + 0.0:.6g}, {self.high + 0.0:.6g}{right}"

    @property
    def is_whole(self) -> bool:
        """Nothing is known."""
        return self.low == -INFINITY and self.high == INFINITY

    @property
    def is_bounded(self) -> bool:
        """Both ends are finite."""
        return self.low > -INFINITY and self.high < INFINITY

    @property
    def is_positive(self) -> bool:
        """Every point is > 0."""
        return self.low > 0 or (self.low == 0 and self.low_open)

    @property
    def is_nonnegative(self) -> bool:
        """Every point is >= 0."""
        return self.low >= 0

    @property
    def is_nonpositive(self) -> bool:
        """Every point is <= 0."""
        return self.high <= 0

    @property
    def magnitude(self) -> float:
        """The largest absolute value of an end."""
        return max(abs(self.low), abs(self.high))

    def contains(self, value: float) -> bool:
        """Whether `value` is a point of the interval."""
        above = value > self.low or (value == self.low and not self.low_open)
        below = value < self.high or (value == self.high and not self.high_open)
        return above and below

    def is_within(self, other: Interval) -> bool:
        """Whether every point is a point of `other`."""
        above = self.low > other.low or (self.low == other.low and (self.low_open or not other.low_open))
        below = self.high < other.high or (self.high == other.high and (self.high_open or not other.high_open))
        return above and below

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that contains both."""
        return _from_ends(min(_low_end(self), _low_end(other), key=_low_order), max(_high_end(self), _high_end(other), key=_high_order))

    def meet(self, other: Interval) -> Interval:
        """The points of both. `self` when rounding leaves nothing in common."""
        low = max(_low_end(self), _low_end(other), key=_low_order)
        high = min(_high_end(self), _high_end(other), key=_high_order)
        if low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1])):
            return self
        return _from_ends(low, high)


WHOLE = Interval()
POSITIVE = Interval(0.0, INFINITY)
NONNEGATIVE = Interval(0.0, INFINITY, low_open=False)
UNIT_BALL = Interval(-1.0, 1.0, low_open=False, high_open=False)


def point(value: Fraction | float | int) -> Interval:
    """The interval of one written number. A number stands for its nearest float, in a domain and in an expression alike,
    so that `min(x, 1e-4)` is provably `<= 1e-4`."""
    nearest = _nearest(Fraction(value)) if not isinstance(value, float) else value
    return closed(nearest, nearest)


def closed(low: float, high: float) -> Interval:
    """`[low, high]`, open at infinite ends."""
    return Interval(low + 0.0, high + 0.0, math.isinf(low), math.isinf(high))


# --- ends --------------------------------------------------------------------------------------------------------
# An end is (value, open). Exact values are Fractions or infinite floats; `_from_exact` rounds them outwards.

_End = tuple[float, bool]
_Exact = Fraction | float


def _low_end(interval: Interval) -> _End:
    return interval.low, interval.low_open


def _high_end(interval: Interval) -> _End:
    return interval.high, interval.high_open


def _low_order(end: _End) -> tuple[float, bool]:
    return end[0], end[1]  # at one value, the closed end reaches lower


def _high_order(end: _End) -> tuple[float, bool]:
    return end[0], not end[1]


def _from_ends(low: _End, high: _End) -> Interval:
    return Interval(low[0], high[0], low[1], high[1])


def _exact(value: float) -> _Exact:
    return value if math.isinf(value) else Fraction(value)


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return INFINITY if value > 0 else -INFINITY


def round_down(value: _Exact) -> float:
    """The largest float not above `value`."""
    if isinstance(value, float):
        return value
    nearest = _nearest(value)
    if nearest == INFINITY:
        return math.nextafter(INFINITY, 0.0)
    return math.nextafter(nearest, -INFINITY) if nearest > value else nearest


def round_up(value: _Exact) -> float:
    """The smallest float not below `value`."""
    return -round_down(-value)


def _from_exact(candidates: Iterable[tuple[_Exact, bool]]) -> Interval:
    """The hull of exact points, each attained (False) or only approached (True)."""
    candidates = list(candidates)
    low = min(value for value, _ in candidates)
    high = max(value for value, _ in candidates)
    low_open = all(is_open for value, is_open in candidates if value == low)
    high_open = all(is_open for value, is_open in candidates if value == high)
    low, high = round_down(low) + 0.0, round_up(high) + 0.0
    return Interval(low, high, low_open or math.isinf(low), high_open or math.isinf(high))


def hull_of_exact(candidates: Iterable[tuple[Fraction, bool]]) -> Interval:
    """The smallest interval around exact values, each with whether it is only approached."""
    return _from_exact(candidates)


# --- arithmetic --------------------------------------------------------------------------------------------------


def negate(a: Interval) -> Interval:
    return Interval(-a.high + 0.0, -a.low + 0.0, a.high_open, a.low_open)


def add(a: Interval, b: Interval) -> Interval:
    low, high = _exact(a.low) + _exact(b.low), _exact(a.high) + _exact(b.high)
    return _from_exact([(low, a.low_open or b.low_open), (high, a.high_open or b.high_open)])


def subtract(a: Interval, b: Interval) -> Interval:
    return add(a, negate(b))


def multiply(a: Interval, b: Interval) -> Interval:
    return _from_exact(_product(x, y) for x in (_low_end(a), _high_end(a)) for y in (_low_end(b), _high_end(b)))


def _product(x: _End, y: _End) -> tuple[_Exact, bool]:
    if x[0] == 0 or y[0] == 0:
        attained = (x[0] == 0 and not x[1]) or (y[0] == 0 and not y[1])
        return Fraction(0), not attained
    return _exact(x[0]) * _exact(y[0]), x[1] or y[1]


def divide(a: Interval, b: Interval) -> Interval:
    """The whole line when the divisor can change sign."""
    if b.low < 0 < b.high or b.low == b.high == 0:
        return WHOLE
    from_above = b.low >= 0
    quotients = [_quotient(x, y, from_above) for x in (_low_end(a), _high_end(a)) for y in (_low_end(b), _high_end(b))]
    return _from_exact([q for q in quotients if q is not None])


def _quotient(x: _End, y: _End, from_above: bool) -> tuple[_Exact, bool] | None:
    if math.isinf(x[0]) and math.isinf(y[0]):
        return None  # the other corners of the box reach both limits
    if x[0] == 0:
        return Fraction(0), x[1]
    if y[0] == 0:
        return (INFINITY if (x[0] > 0) == from_above else -INFINITY), True
    if math.isinf(y[0]):
        return Fraction(0), True
    return _exact(x[0]) / Fraction(y[0]), x[1] or y[1]


def square(a: Interval) -> Interval:
    return _integer_power(a, 2)


def absolute(a: Interval) -> Interval:
    if a.low >= 0:
        return a
    if a.high <= 0:
        return negate(a)
    return Interval(0.0, max(a.high, -a.low), False, _abs_open(a))


def _abs_open(a: Interval) -> bool:
    ends = [(a.high, a.high_open), (-a.low, a.low_open)]
    top = max(value for value, _ in ends)
    return all(is_open for value, is_open in ends if value == top)


def minimum(a: Interval, b: Interval) -> Interval:
    low = min(_low_end(a), _low_end(b), key=_low_order)
    high = min(_high_end(a), _high_end(b), key=_high_order)
    return _from_ends(low, high)


def maximum(a: Interval, b: Interval) -> Interval:
    low = max(_low_end(a), _low_end(b), key=_low_order)
    high = max(_high_end(a), _high_end(b), key=_high_order)
    return _from_ends(low, high)


def clamp(a: Interval, low: Interval, high: Interval) -> Interval:
    return minimum(maximum(a, low), high)


MAX_EXACT_EXPONENT = 64


def power(base: Interval, exponent: Interval) -> Interval:
    """`base ^ exponent`: any base for an integer exponent, a nonnegative one otherwise (else the whole line)."""
    if exponent.low == exponent.high:
        number = exponent.low
        if number == int(number) and abs(number) <= MAX_EXACT_EXPONENT:
            return _integer_power(base, int(number))
        if base.low < 0:
            return WHOLE
        if number > 0:
            return _real_power_of_ends(base, number)
        return divide(point(1), _real_power_of_ends(base, -number))
    if base.low == base.high and base.low > 0:
        ends = [_float_power(base.low, exponent.low), _float_power(base.low, exponent.high)]
        opens = [exponent.low_open, exponent.high_open]
        if base.low < 1:
            ends, opens = ends[::-1], opens[::-1]
        (low, _), (_, high) = ends
        low = max(low, 0.0)
        return Interval(low, high, opens[0] or low == 0.0, opens[1] or math.isinf(high))
    if base.is_positive:
        return exp(multiply(exponent, log(base)))
    return WHOLE


def _integer_power(a: Interval, n: int) -> Interval:
    if n == 0:
        return point(1)
    if n < 0:
        return divide(point(1), _integer_power(a, -n))
    ends = [(_exact(a.low) ** n, a.low_open), (_exact(a.high) ** n, a.high_open)]
    if n % 2 == 0 and a.low < 0 < a.high:
        ends.append((Fraction(0), False))
    return _from_exact(ends)


def _float_power(base: float, exponent: float) -> tuple[float, float]:
    """`base ** exponent` rounded down and up; base > 0."""
    if math.isinf(exponent):
        limit = INFINITY if (base > 1) == (exponent > 0) else 0.0
        limit = 1.0 if base == 1 else limit
        return limit, limit
    if exponent == int(exponent) and abs(exponent) <= MAX_EXACT_EXPONENT:
        exact = Fraction(base) ** int(exponent)
        return round_down(exact), round_up(exact)
    try:
        value = base**exponent
    except OverflowError:
        return math.nextafter(INFINITY, 0.0), INFINITY
    return _widen(value)


def _real_power_of_ends(base: Interval, exponent: float) -> Interval:
    def end(value: float) -> tuple[float, float]:
        if value in (0.0, 1.0) or math.isinf(value):
            return value, value
        return _sqrt_ends(value) if exponent == 0.5 else _float_power(value, exponent)

    low, high = max(end(base.low)[0], 0.0), end(base.high)[1]
    return Interval(low, high, base.low_open, base.high_open or math.isinf(high))


def _sqrt_ends(value: float) -> tuple[float, float]:
    root = math.sqrt(value)
    if Fraction(root) ** 2 == Fraction(value):
        return root, root
    return math.nextafter(root, 0.0), math.nextafter(root, INFINITY)


def sum_of(a: Interval, may_be_empty: bool = False) -> Interval:
    """A sum of one or more values of `a`, their number unknown."""
    low = -INFINITY if a.low < 0 else (0.0 if may_be_empty else a.low)
    high = INFINITY if a.high > 0 else (0.0 if may_be_empty else a.high)
    low_open = a.low_open or math.isinf(low)
    high_open = a.high_open or math.isinf(high)
    return Interval(low, high, low_open, high_open)


# --- functions ---------------------------------------------------------------------------------------------------


def _widen(value: float, steps: int = 2) -> tuple[float, float]:
    low = high = value
    for _ in range(steps):
        low, high = math.nextafter(low, -INFINITY), math.nextafter(high, INFINITY)
    return low, high


def monotone(function: Callable[[float], float], a: Interval, floor: float = -INFINITY, ceiling: float = INFINITY) -> Interval:
    """Transfer of a strictly increasing function with open range `(floor, ceiling)`, its limits at -inf and inf.

    An end that rounding brings to a limit is open there: the function never attains it.
    """
    low = floor if a.low == -INFINITY else _call(function, a.low)[0]
    high = ceiling if a.high == INFINITY else _call(function, a.high)[1]
    low, high = max(low, floor) + 0.0, min(high, ceiling) + 0.0
    return Interval(low, high, a.low_open or low == floor, a.high_open or high == ceiling)


_EXACT_VALUES = {0.0, 0.5, 1.0, -1.0}


def _call(function: Callable[[float], float], at: float) -> tuple[float, float]:
    try:
        value = function(at)
    except OverflowError:
        return math.nextafter(INFINITY, 0.0), INFINITY
    if math.isinf(value):
        return (math.nextafter(INFINITY, 0.0), INFINITY) if value > 0 else (-INFINITY, -math.nextafter(INFINITY, 0.0))
    # exp(0), tanh(0), sigmoid(0), log(1), relu: known points of these functions, exact in floats
    if at in (0.0, 1.0) and value in _EXACT_VALUES:
        return value, value
    return _widen(value, steps=4)


def exp(a: Interval) -> Interval:
    return monotone(math.exp, a, floor=0.0)


def log(a: Interval) -> Interval:
    """On the positive part of `a`."""
    if a.high <= 0:
        return WHOLE
    if a.low <= 0:
        return Interval(-INFINITY, monotone(math.log, Interval(a.high, a.high, a.high_open, a.high_open)).high, True, a.high_open)
    return monotone(math.log, a)


def sqrt(a: Interval) -> Interval:
    """On the nonnegative part of `a`."""
    if a.high < 0:
        return NONNEGATIVE
    if a.low < 0:
        a = Interval(0.0, a.high, False, a.high_open)
    return _real_power_of_ends(a, 0.5)


def rsqrt(a: Interval) -> Interval:
    return divide(point(1), sqrt(a))


def angle(y: Interval, x: Interval) -> Interval:
    """Of x + i y: less than a quarter turn either way where x > 0."""
    quarter = math.nextafter(math.pi / 2, 2.0)
    low, high = (-quarter, quarter) if x.is_nonnegative else (-2 * quarter, 2 * quarter)
    high = 0.0 if y.is_nonpositive and x.is_positive else high
    return Interval(0.0, high, low_open=y.is_positive, high_open=False) if y.is_nonnegative else closed(low, high)


def valley(function: Callable[[float], float], a: Interval, bottom: float, least: float, at_minus_infinity: float) -> Interval:
    """Transfer of a function that decreases from 0 to `least` (a lower bound of the minimum, near `bottom`) and then grows.

    `at_minus_infinity` is the limit there, approached from below.
    """
    ends = []
    for value, is_open in (_low_end(a), _high_end(a)):
        if value == -INFINITY:
            ends.append((at_minus_infinity, at_minus_infinity, True))
        elif value == INFINITY:
            ends.append((INFINITY, INFINITY, True))
        else:
            low, high = _call(function, value)
            ends.append((low, high, is_open))
    low, low_open = min((low, is_open) for low, _, is_open in ends)
    high = max(high for _, high, _ in ends)
    high_open = all(is_open for _, value, is_open in ends if value == high)
    margin = 1e-3
    if a.low - margin <= bottom <= a.high + margin:
        low, low_open = least, True
    return Interval(low, high, low_open, high_open)
