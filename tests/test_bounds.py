"""Bounds of expressions: sound on sampled points, and tight where gates need it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from specs import SCALAR, add, apply, column, matmul, mul, neg, number, ref, symbol, transposed

from ssmgen import spec
from ssmgen.bounds import Bounds
from ssmgen.functions import FUNCTIONS
from ssmgen.intervals import WHOLE, Interval, closed
from ssmgen.source import NOWHERE

P, L, S, X, Y = (ref(symbol(name)) for name in ("p", "l", "s", "x", "y"))
KNOWN = {
    "p": closed(0.0, 1.0),
    "l": Interval(0.0, 1.0, False, True),
    "s": Interval(0.0, 1.0),
    "x": WHOLE,
    "y": Interval(-math.inf, 2.0, True, False),
}
ONE = number(1)


def bound(expr, unit=()):
    return str(Bounds(KNOWN, frozenset(unit)).of(expr))


def index(name):
    return spec.Ref(SCALAR, NOWHERE, name)


def div(a, b):
    return spec.Div(SCALAR, NOWHERE, a, b)


def power(a, n):
    return spec.Pow(a.type, NOWHERE, a, number(n))


@pytest.mark.parametrize(
    "expr, expected",
    [
        (mul(X, X), "[0, inf)"),
        (power(X, 2), "[0, inf)"),
        (add(P, add(ONE, neg(P))), "[1, 1]"),
        (add(L, mul(add(ONE, neg(L)), S)), "(0, 1)"),
        (add(mul(P, L), mul(add(ONE, neg(P)), L)), "[0, 1)"),
        (add(ONE, neg(power(S, 2))), "(0, 1)"),
        (add(mul(add(ONE, neg(L)), power(S, 2)), mul(L, add(ONE, neg(power(add(ONE, neg(S)), 2))))), "(0, 1)"),
        (apply("sqrt", add(ONE, neg(power(S, 2)))), "(0, 1)"),
        (add(ONE, neg(apply("sigmoid", X))), "(0, 1)"),
        (div(S, add(S, P)), "(0, 1]"),
        (div(index("layer"), add(index("layers"), neg(ONE), number("1/100"))), "[0, 1)"),
        (div(index("head"), index("heads")), "[0, 1)"),
        (add(index("heads"), neg(index("head"))), "[1, inf)"),
        (neg(mul(apply("exp", X), apply("softplus", Y))), "(-inf, 0)"),
    ],
    ids=str,
)
def test_correlated(expr, expected):
    assert bound(expr) == expected


def test_unit_columns():
    k = ref(symbol("k", column("N")))
    q = ref(symbol("q", column("N")))
    assert bound(k, ["k"]) == "[-1, 1]"
    assert bound(matmul(transposed(k), q), ["k", "q"]) == "[-1, 1]"
    assert bound(matmul(transposed(k), k), ["k"]) == "[0, 1]"
    assert bound(matmul(transposed(k), k)) == "[0, inf)"
    assert bound(matmul(transposed(k), q), ["k"]) == "(-inf, inf)"
    assert bound(matmul(k, transposed(q)), ["k", "q"]) == "[-1, 1]"
    assert Bounds({}).is_unit(apply("rope", apply("unit", k)))
    assert not Bounds({}).is_unit(k)


def test_before_the_first_token_there_is_zero():
    assert bound(spec.Delayed(SCALAR, NOWHERE, "s")) == "[0, 1)"


# --- soundness ---------------------------------------------------------------------------------------------------

LEAVES = {"p": (0.0, 1.0), "l": (0.0, 0.999), "s": (0.001, 0.999), "x": (-6.0, 6.0), "y": (-6.0, 2.0)}


def trees():
    leaf = st.sampled_from([P, L, S, X, Y]) | st.sampled_from([number(n) for n in ("1", "-2", "1/3", "0.5")])
    pointwise = [n for n, f in FUNCTIONS.items() if f.kind == "pointwise" and f.arity == (1, 1)]

    def grow(inner):
        return st.one_of(
            st.tuples(inner, inner).map(lambda ab: add(*ab)),
            st.tuples(inner, inner).map(lambda ab: mul(*ab)),
            st.tuples(inner, inner).map(lambda ab: div(*ab)),
            inner.map(neg),
            st.tuples(inner, st.integers(1, 3)).map(lambda an: power(*an)),
            st.tuples(st.sampled_from(pointwise), inner).map(lambda fa: apply(*fa)),
        )

    return st.recursive(leaf, grow, max_leaves=8)


def evaluate(expr, at):
    match expr:
        case spec.Ref(name=name):
            return at[name]
        case spec.Const(value=value):
            return float(value)
        case spec.Add(terms=terms):
            return math.fsum(evaluate(t, at) for t in terms)
        case spec.Mul(left=a, right=b):
            return evaluate(a, at) * evaluate(b, at)
        case spec.Div(left=a, right=b):
            return evaluate(a, at) / evaluate(b, at)
        case spec.Neg(operand=a):
            return -evaluate(a, at)
        case spec.Pow(base=a, exponent=b):
            return evaluate(a, at) ** evaluate(b, at)
        case spec.Apply(function=function, args=args):
            values = [evaluate(a, at) for a in args]
            assume(FUNCTIONS[function].domain.contains(values[0]))
            return FUNCTIONS[function].value(*values)
    raise AssertionError(expr)


@settings(max_examples=600, deadline=None)
@given(expr=trees(), data=st.data())
def test_bounds_enclose(expr, data):
    at = {name: data.draw(st.floats(*ends)) for name, ends in LEAVES.items()}
    try:
        value = evaluate(expr, at)
    except (ValueError, OverflowError, ZeroDivisionError):
        return
    assume(math.isfinite(value) and abs(value) < 1e6)
    found = Bounds(KNOWN).of(expr)
    slack = 1e-6 * max(1.0, abs(value))
    assert found.low - slack <= value <= found.high + slack, (expr, at, value, found)


def test_a_fraction_is_its_nearest_float():
    found = Bounds({}).of(number("1/10000"))
    assert found.low == found.high == float(Fraction(1, 10000))
