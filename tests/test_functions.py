"""The closed set: one entry a function, consistent with itself, and known to whoever must print or differentiate it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmgen.even_odd import bend
from ssmgen.functions import FUNCTIONS, names
from ssmgen.intervals import Interval, point

EXPECTED = {
    "exp": (1.0, math.e), "log": (2.0, math.log(2)), "log1p": (1.0, math.log(2)), "expm1": (1.0, math.e - 1), "sigmoid": (0.0, 0.5),
    "logsigmoid": (0.0, -math.log(2)), "softplus": (0.0, math.log(2)), "inv_softplus": (math.log(2), 0.0),
    "silu": (1.0, 1 / (1 + math.exp(-1))),
    "gelu": (1.0, 0.5 * (1 + math.erf(1 / math.sqrt(2)))), "tanh": (1.0, math.tanh(1)), "relu": (-1.0, 0.0), "elu": (-1.0, math.expm1(-1)),
    "abs": (-2.0, 2.0), "sqrt": (4.0, 2.0), "rsqrt": (4.0, 0.5), "square": (-3.0, 9.0), "sin": (1.0, math.sin(1)),
    "cos": (1.0, math.cos(1)),
    "heavy_tail": (-1.0, 0.5), "phi1": (-2.0, (1 - math.exp(-2)) / 2), "phi2": (2.0, (math.exp(2) - 3) / 4),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in names("pointwise") if FUNCTIONS[n].arity == (1, 1)])
def test_value(name):
    x, expected = EXPECTED[name]
    assert FUNCTIONS[name].value(x) == pytest.approx(expected, abs=1e-12)


OF_TWO = [n for n in names("pointwise") if n.endswith(("_even", "_odd"))]


def even_and_odd(order: int, x: float, d: float) -> tuple[float, float]:
    """By the first column of the series of [[x, d], [1, x]], whose eigenvalues are x +- sqrt(d), in rational arithmetic."""
    a, b = Fraction(x), Fraction(d)
    even, odd, total, other = Fraction(1), Fraction(0), Fraction(0), Fraction(0)
    for j in range(90):
        total, other = total + even / math.factorial(j + order), other + odd / math.factorial(j + order)
        even, odd = even * a + odd * b, even + odd * a
    return float(total), float(other)


@pytest.mark.parametrize("x", [0.0, 1e-7, -0.3, 1.5, -1.99, -2.0, -7.0])
@pytest.mark.parametrize("d", [0.0, 1e-9, -1e-9, 0.25, -0.25, 0.999, -1.0, 4.0, 49.0, -60.0])
def test_even_and_odd_parts(x, d):
    """Values where eigenvalues are one, near each other, near 0, apart, or a conjugate pair; what an interval says holds them."""
    largest = math.exp(x + math.sqrt(max(d, 0.0)))
    for name in OF_TWO:
        order, place = int(name.startswith("phi1")), int(name.endswith("odd"))
        expected, found = even_and_odd(order, x, d)[place], FUNCTIONS[name].value(x, d)
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-14 * max(largest, 1))
        around = FUNCTIONS[name].transfer(Interval(x - 0.5, x + 0.1), Interval(d - 3, d + 1)), FUNCTIONS[name].transfer(point(x), point(d))
        assert all(each.low <= found <= each.high for each in around), (name, around, found)


@pytest.mark.parametrize("x", [0.4, -1.5, -6.0])
@pytest.mark.parametrize("d", [1e-6, -0.5, 0.9, 3.0, -20.0])
def test_the_slope_of_an_odd_part(x, d):
    for order in (0, 1):
        change = (even_and_odd(order, x, d + 1e-5)[1] - even_and_odd(order, x, d - 1e-5)[1]) / 2e-5
        # the central difference is off by its third derivative times 1e-10, and by 1e-16 over the step
        assert bend(order, x, d) == pytest.approx(change, rel=1e-6, abs=1e-10)


def test_the_table_is_closed_and_consistent():
    for name, function in FUNCTIONS.items():
        assert function.name == name and function.doc and function.arity[0] <= function.arity[1]
        assert function.kind in ("pointwise", "column", "complex", "matrix", "square", "constant", "init")
        assert function.result in ("same", "scalar", "real", "complex", "pairs")
        assert function.monotone in ("", "increasing", "decreasing")
        args = [Interval(1.0, 2.0)] * function.arity[0]
        assert isinstance(function.transfer(*args), Interval)


@pytest.mark.parametrize("name", [n for n in names("pointwise") if FUNCTIONS[n].monotone and FUNCTIONS[n].arity == (1, 1)])
@settings(max_examples=100, deadline=None)
@given(x=st.floats(1e-3, 30), y=st.floats(1e-3, 30))
def test_monotone(name, x, y):
    function = FUNCTIONS[name]
    low, high = sorted((x, y))
    first, second = function.value(low), function.value(high)
    assert first <= second + 1e-12 if function.monotone == "increasing" else first + 1e-12 >= second


@pytest.mark.parametrize("y", [1e-3, 0.1, 1.0, 30.0])
def test_inverses(y):
    assert FUNCTIONS["softplus"].value(FUNCTIONS["inv_softplus"].value(y)) == pytest.approx(y, rel=1e-12)


def test_valleys_reach_their_bottom():
    for name, bottom in (("silu", -1.2784645), ("gelu", -0.7517916)):
        found = FUNCTIONS[name].transfer(Interval(-5.0, 5.0))
        value = FUNCTIONS[name].value(bottom)
        assert found.low <= value and value - found.low < 1e-6


def test_ends_far_out():
    assert str(FUNCTIONS["sigmoid"].transfer(point(1000.0))) == "(1, 1)" or FUNCTIONS["sigmoid"].transfer(point(1000.0)).high <= 1.0
    assert FUNCTIONS["exp"].transfer(point(1000.0)).high == math.inf
    assert FUNCTIONS["exp"].transfer(point(-1000.0)).low == 0.0


def test_a_backend_prints_every_function():
    from ssmgen.backends import torch_text

    printable = {**torch_text.FUNCTIONS, **torch_text.AXIS_FUNCTIONS}
    missing = [name for name in names("pointwise", "complex") if name not in printable]
    assert missing == []
