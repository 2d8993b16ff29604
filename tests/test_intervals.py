"""Interval arithmetic encloses: what an operation gives on points lies in what it gives on their intervals."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssmgen import intervals
from ssmgen.functions import FUNCTIONS
from ssmgen.intervals import INFINITY, WHOLE, Interval, closed, point

ENDS = st.one_of(st.sampled_from([-INFINITY, INFINITY, 0.0, 1.0, -1.0, 0.5, -5.0, 1e-4]), st.floats(-50, 50))


@st.composite
def interval_and_point(draw, ends=ENDS):
    """An interval and a finite number in it."""
    low, high = sorted((draw(ends) + 0.0, draw(ends) + 0.0))
    assume(low < INFINITY and high > -INFINITY)
    low_open, high_open = draw(st.booleans()) or math.isinf(low), draw(st.booleans()) or math.isinf(high)
    assume(low < high or not (low_open or high_open))
    interval = Interval(low, high, low_open, high_open)
    value = draw(st.floats(max(low, -60.0) if low > -INFINITY else -60.0, min(high, 60.0) if high < INFINITY else 60.0))
    assume(interval.contains(value))
    return interval, value


def encloses(found: Interval, value: float) -> bool:
    """Floats reach limits that reals only approach: an open end counts within a rounding."""
    if math.isnan(value):
        return True
    slack = 4 * math.ulp(value) if math.isfinite(value) else 0.0
    return found.contains(value) or found.low - slack <= value <= found.high + slack


@pytest.mark.parametrize(
    "operation, on_floats",
    [
        (intervals.add, lambda a, b: a + b),
        (intervals.subtract, lambda a, b: a - b),
        (intervals.multiply, lambda a, b: a * b),
        (intervals.divide, lambda a, b: a / b),
        (intervals.minimum, min),
        (intervals.maximum, max),
        (intervals.power, lambda a, b: a**b),
    ],
    ids=["add", "subtract", "multiply", "divide", "min", "max", "power"],
)
@settings(max_examples=300, deadline=None)
@given(left=interval_and_point(), right=interval_and_point())
def test_binary_operations_enclose(operation, on_floats, left, right):
    (a, x), (b, y) = left, right
    try:
        value = on_floats(x, y)
    except (ZeroDivisionError, OverflowError):
        return
    if isinstance(value, float):
        assert encloses(operation(a, b), value), (a, x, b, y, value, operation(a, b))


POINTWISE = [f for f in FUNCTIONS.values() if f.value is not None and f.arity == (1, 1)]


@pytest.mark.parametrize("function", POINTWISE, ids=lambda f: f.name)
@settings(max_examples=200, deadline=None)
@given(pair=interval_and_point())
def test_functions_enclose(function, pair):
    interval, x = pair
    if not function.domain.contains(x):
        return
    try:
        value = function.value(x)
    except (ValueError, OverflowError, ZeroDivisionError):
        return
    found = function.transfer(interval)
    assert encloses(found, value), (interval, x, value, found)


@settings(max_examples=200, deadline=None)
@given(pair=interval_and_point(), exponent=st.integers(-4, 6))
def test_integer_powers_enclose(pair, exponent):
    interval, x = pair
    assume(x != 0 or exponent > 0)
    try:
        value = x**exponent
    except OverflowError:
        return
    assert encloses(intervals.power(interval, point(exponent)), value)


@settings(max_examples=200, deadline=None)
@given(pair=interval_and_point(), other=interval_and_point())
def test_lattice(pair, other):
    (a, x), (b, y) = pair, other
    assert a.hull(b).contains(x) and a.hull(b).contains(y)
    assert a.is_within(a.hull(b)) and b.is_within(a.hull(b)) and a.is_within(WHOLE)
    if b.contains(x):
        assert a.meet(b).contains(x)


def test_open_ends():
    assert str(FUNCTIONS["sigmoid"].transfer(WHOLE)) == "(0, 1)"
    assert str(intervals.exp(Interval(-INFINITY, 0.0, True, False))) == "(0, 1]"
    assert str(intervals.exp(intervals.negate(intervals.exp(WHOLE)))) == "(0, 1)"
    assert str(FUNCTIONS["logsigmoid"].transfer(WHOLE)) == "(-inf, 0)"
    assert str(intervals.absolute(Interval(-2.0, 1.0, False, True))) == "[0, 2]"
    assert str(intervals.absolute(Interval(-2.0, 2.0, True, False))) == "[0, 2]"


def test_exact_ends_stay_exact():
    assert intervals.multiply(point(-5), Interval(0.0, 1.0)) == Interval(-5.0, 0.0)
    assert intervals.divide(Interval(0.0, 3.0), point(3)) == Interval(0.0, 1.0)
    assert intervals.power(point(2), Interval(-INFINITY, -5.0, True, False)) == Interval(0.0, 2.0**-5, True, False)
    assert intervals.sqrt(Interval(0.0, 1.0)) == Interval(0.0, 1.0)


def test_zero_times_infinity_is_zero():
    assert intervals.multiply(closed(0.0, 0.0), WHOLE) == closed(0.0, 0.0)


def test_inexact_ends_go_outwards():
    third = intervals.divide(point(1), point(3))
    assert third.low < third.high and third.high - third.low <= math.ulp(1 / 3)


def test_a_divisor_that_changes_sign():
    assert intervals.divide(point(1), closed(-1.0, 1.0)) == WHOLE
    assert str(intervals.divide(point(1), Interval(0.0, 2.0, True, False))) == "[0.5, inf)"
