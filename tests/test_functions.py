"""The closed set: one entry a function, consistent with itself, and known to whoever must print or differentiate it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_the_table_is_closed_and_consistent():
    for name, function in FUNCTIONS.items():
        assert function.name == name and function.doc and function.arity[0] <= function.arity[1]
        assert function.kind in ("pointwise", "column", "complex", "matrix", "constant", "init")
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
