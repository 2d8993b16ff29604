"""Constructors keep the value, the type and the span; logarithms are exact and only of what is provably positive."""

from __future__ import annotations

from fractions import Fraction

import evaluate as ev
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import column, matrix, number, recurrence, state, symbol
from specs import ref as ref_of

from ssmgen import algebra, spec
from ssmgen.algebra import add, apply, const, div, inner, matmul, mul, neg, power, sub, transpose
from ssmgen.derive import derive
from ssmgen.expressions import factors, key, references, same
from ssmgen.intervals import Interval
from ssmgen.logarithm import log_of
from ssmgen.parse import parse
from ssmgen.resolve import resolve
from ssmgen.source import NOWHERE, Source, Span
from ssmgen.spec_text import expr_text

SIZES = {"N": 4, "P": 3}
SCALARS = [spec.Ref(spec.Type(), NOWHERE, name) for name in "abc"]
COLUMNS = [spec.Ref(column("N"), NOWHERE, name) for name in "uvw"]
A, B, C = SCALARS
U, V, W = COLUMNS
M = spec.Ref(matrix("N", "N"), NOWHERE, "M")
IDENTITY = spec.Identity(matrix("N", "N"), NOWHERE)


def environment(seed: int = 0) -> ev.Env:
    rng = np.random.default_rng(seed)
    names = {e.name: rng.uniform(0.5, 2.0, ev.shape_of(e.type, ev.Env(SIZES, {}))) for e in (*SCALARS, *COLUMNS, M)}
    return ev.Env(SIZES, names)


# --- constructors keep the value ---------------------------------------------------------------------------------
# A tree is built twice, by plain nodes and by the constructors, and both are evaluated.


def plain_scalar():
    leaves = st.sampled_from(SCALARS) | st.integers(-3, 3).map(number)

    def larger(inside):
        two = st.tuples(inside, inside)
        return st.one_of(
            two.map(lambda p: spec.Add(spec.Type(), NOWHERE, p)),
            two.map(lambda p: spec.Mul(spec.Type(), NOWHERE, *p)),
            inside.map(lambda x: spec.Neg(spec.Type(), NOWHERE, x)),
            st.tuples(inside, st.sampled_from([*SCALARS, number(2), number(-1)])).map(lambda p: spec.Div(spec.Type(), NOWHERE, *p)),
            st.tuples(inside, st.integers(0, 3)).map(lambda p: spec.Pow(spec.Type(), NOWHERE, p[0], number(p[1]))),
            inside.map(lambda x: spec.Apply(spec.Type(), NOWHERE, "tanh", (x,))),
        )

    return st.recursive(leaves, larger, max_leaves=12)


def plain_column():
    leaves = st.sampled_from(COLUMNS)

    def larger(inside):
        two = st.tuples(inside, inside)
        scalar = plain_scalar()
        return st.one_of(
            two.map(lambda p: spec.Add(U.type, NOWHERE, p)),
            two.map(lambda p: spec.Mul(U.type, NOWHERE, *p)),
            st.tuples(scalar, inside).map(lambda p: spec.Mul(U.type, NOWHERE, *p)),
            st.tuples(scalar, inside).map(lambda p: spec.Add(U.type, NOWHERE, p)),
            inside.map(lambda x: spec.Neg(U.type, NOWHERE, x)),
            inside.map(lambda x: spec.MatMul(U.type, NOWHERE, M, x)),
            two.map(lambda p: spec.MatMul(U.type, NOWHERE, spec.Diag(M.type, NOWHERE, p[0]), p[1])),
            inside.map(lambda x: spec.MatMul(U.type, NOWHERE, IDENTITY, x)),
        )

    return st.recursive(leaves, larger, max_leaves=8)


def simplified(expr: spec.Expr) -> spec.Expr:
    from ssmgen.expressions import children

    return algebra.rebuild(expr, tuple(simplified(operand) for operand in children(expr)))


@settings(max_examples=150, deadline=None)
@given(plain_scalar() | plain_column())
def test_simplifying_keeps_value_and_type(expr):
    found = simplified(expr)
    assert found.type == expr.type
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(ev.evaluate(found, environment()), ev.evaluate(expr, environment()), rtol=1e-8, atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(plain_scalar())
def test_factors_multiply_back(expr):
    value = algebra.factored(algebra.product(*factors(expr)))
    np.testing.assert_allclose(ev.evaluate(value, environment()), ev.evaluate(expr, environment()), rtol=1e-8, atol=1e-8)


# --- one rule at a time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found, wanted",
    [
        (add(A, const(0)), "a"),
        (add(A, B, neg(A)), "b"),
        (add(A, A), "2 * a"),
        (sub(A, A), "0"),
        (add(const(1), A, const(2)), "3 + a"),
        (mul(const(1), A), "a"),
        (mul(A, const(0)), "0"),
        (mul(neg(A), neg(B)), "a * b"),
        (mul(const(2), mul(const(3), A)), "6 * a"),
        (mul(A, div(const(1), B)), "a / b"),
        (neg(neg(A)), "a"),
        (neg(const(2)), "-2"),
        (div(A, A), "1"),
        (div(mul(A, B), mul(C, A)), "b / c"),
        (div(neg(A), B), "-(a / b)"),
        (power(A, const(1)), "a"),
        (power(A, const(0)), "1"),
        (power(const(2), const(-3)), "1/8"),
        (apply("exp", const(0)), "1"),
        (apply("exp", apply("log", A)), "a"),
        (apply("log", apply("exp", A)), "a"),
        (apply("expm1", const(0)), "0"),
        (apply("Re", A), "a"),
        (matmul(IDENTITY, U), "u"),
        (matmul(mul(A, M), mul(B, U)), "a * b * (M u)"),
        (transpose(transpose(U)), "u"),
        (transpose(matmul(U, transpose(V))), "v u^T"),
        (inner(U, V), "u^T v"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules(found, wanted):
    assert expr_text(found) == wanted


def test_the_type_survives_what_vanishes():
    assert sub(U, U).type == U.type
    assert mul(const(0), U).type == U.type
    assert add(const(1), sub(U, U)).type == U.type
    assert div(U, U).type == U.type


def test_spans_cover_the_operands():
    a, b = (spec.Ref(spec.Type(), Span(i, i + 1), name) for i, name in ((3, "a"), (9, "b")))
    assert mul(a, b).span == Span(3, 10)
    assert add(a, b, span=Span(0, 20)).span == Span(0, 20)


def test_a_sum_over_ranks_keeps_a_body_that_uses_the_index():
    rows = spec.Ref(spec.Type(column("R").rows, column("N").rows), NOWHERE, "k")
    row = spec.Element(column("N"), NOWHERE, rows, "r")
    total = algebra.sum_over("r", column("R").rows, row)
    assert isinstance(total, spec.SumOver)
    assert expr_text(algebra.sum_over("r", column("R").rows, U)) == "R * u"


def test_equality_up_to_order():
    assert same(mul(A, mul(B, C)), mul(mul(C, A), B))
    assert same(add(A, B), add(B, A))
    assert same(inner(U, V), inner(V, U))
    assert same(div(A, B), mul(A, div(const(1), B)))
    assert not same(matmul(M, U), matmul(transpose(M), U))
    assert key(A) != key(B)


def test_what_all_terms_have_stands_in_front():
    assert expr_text(algebra.factored(add(mul(A, mul(B, U)), neg(mul(C, mul(A, U)))))) == "a * u * (b - c)"
    assert expr_text(algebra.factored(add(mul(A, U), mul(B, V)))) == "a * u + b * v"


def test_quotient_takes_out_factors_or_says_no():
    assert expr_text(algebra.quotient(neg(mul(A, apply("exp", B))), apply("exp", B))) == "-a"
    assert expr_text(algebra.quotient(mul(U, V), V)) == "u"
    assert algebra.quotient(A, B) is None
    assert algebra.quotient(U, V) is None


def test_references_come_in_order():
    assert references(add(mul(B, A), C, A)) == ("b", "a", "c")


def test_complex_parts():
    i = apply("i")
    real, imaginary = algebra.split_imaginary(mul(add(A, mul(i, B)), add(C, neg(i))))
    assert same(real, add(mul(A, C), B)) and same(imaginary, sub(mul(B, C), A))


# --- logarithms --------------------------------------------------------------------------------------------------


def with_symbols(*symbols: spec.Symbol):
    s = state("S")
    kept = spec.Assignment("S", spec.StateRef(s.type, NOWHERE, "S", False), NOWHERE)
    return derive(recurrence("logs", symbols, [s], [kept], ref_of(symbols[0])))


OPEN_UNIT = Interval(0.0, 1.0)
POSITIVE = Interval(0.0)


def logarithm(expr: spec.Expr, *symbols: spec.Symbol) -> str | None:
    found = log_of(expr, with_symbols(*symbols))
    return None if found is None else expr_text(found)


def test_logarithms_in_closed_form():
    x, p = symbol("x"), symbol("p", interval=OPEN_UNIT)
    f = symbol("f", kind="gate", definition=apply("sigmoid", ref_of(x)), interval=OPEN_UNIT)
    X, P, F = map(ref_of, (x, p, f))
    known = (x, p, f)
    assert logarithm(apply("exp", X), *known) == "x"
    assert logarithm(apply("sigmoid", X), *known) == "logsigmoid(x)"
    assert logarithm(F, *known) == "logsigmoid(x)"
    assert logarithm(sub(const(1), apply("sigmoid", X)), *known) == "logsigmoid(-x)"
    assert logarithm(sub(const(1), F), *known) == "logsigmoid(-x)"
    assert logarithm(sub(const(1), P), *known) == "log1p(-p)"
    assert logarithm(P, *known) == "log(p)"
    assert logarithm(mul(P, apply("exp", X)), *known) == "log(p) + x"
    assert logarithm(div(apply("exp", X), P), *known) == "x - log(p)"
    assert logarithm(const(Fraction(1, 2)), *known) == "log(1/2)"
    assert logarithm(power(P, const(2)), *known) == "2 * log(p)"
    assert logarithm(apply("sqrt", apply("exp", X)), *known) == "1/2 * x"


def test_a_row_of_a_gate_has_the_logarithm_of_its_row():
    x = symbol("x", type=column("n"))
    a = symbol("a", type=column("n"), kind="gate", definition=apply("sigmoid", ref_of(x)), interval=OPEN_UNIT)
    assert logarithm(spec.Element(spec.Type(), NOWHERE, ref_of(a), 2), x, a) == "logsigmoid(x[2])"


def test_a_decay_of_an_exponential_is_held_where_nothing_is_left():
    x, p = symbol("x"), symbol("p", kind="param")
    near = symbol("near", interval=Interval(-5.0, 5.0))
    g = symbol("g", kind="gate", definition=neg(apply("exp", ref_of(x))), interval=Interval(-float("inf"), 0.0))
    decay = lambda log: apply("exp", log)  # noqa: E731
    assert logarithm(decay(neg(apply("exp", ref_of(x)))), x) == logarithm(decay(ref_of(g)), x, g) == "-exp(min(x, 12))"
    # of the token alone, and where it has no bound
    assert logarithm(decay(neg(apply("exp", ref_of(p)))), x, p) == "-exp(p)"
    assert logarithm(decay(neg(apply("exp", ref_of(near)))), near) == "-exp(near)"


def test_no_logarithm_of_what_may_vanish():
    x, p = symbol("x"), symbol("p", interval=Interval(0.0, 1.0, low_open=False))
    X, P = ref_of(x), ref_of(p)
    for expr in (X, P, neg(apply("exp", X)), const(0), const(-1), mul(X, X), add(const(1), X)):
        assert logarithm(expr, x, p) is None


def test_a_definition_without_closed_form_is_named():
    x = symbol("x", interval=POSITIVE)
    g = symbol("g", kind="gate", definition=add(ref_of(x), apply("softplus", ref_of(x))), interval=POSITIVE)
    assert logarithm(ref_of(g), x, g) == "log(g)"


def test_a_declared_range_proves_one_minus():
    power_of_two = spec.Pow(spec.Type(), NOWHERE, number(2), sub(const(-5), spec.Ref(spec.Type(), NOWHERE, "head")))
    gamma = symbol("gamma", kind="param", definition=sub(const(1), power_of_two), interval=Interval(0.9, 1.0), static=True)
    assert logarithm(ref_of(gamma), gamma) == "log1p(-2^(-5 - head))"


@pytest.mark.parametrize("name", ["retnet", "mamba2", "simple_gla", "lightning", "mlstm_sigmoid", "hnet_ema"])
def test_decays_of_the_examples_have_logarithms(name, root):
    text = (root / "examples" / f"{name}.ssm").read_text()
    derived = derive(resolve(parse(Source(name, text))).recurrences[0])
    one = derived.spec
    env = ev.Env({n: {"N": 4, "P": 3}.get(n, d) for n, d in one.dims} | dict(one.counts), {})
    env.names = ev.random_names(one, env, np.random.default_rng(0))
    for term in derived.steps[0].transitions:
        found = log_of(term.coefficient, derived)
        assert found is not None
        np.testing.assert_allclose(np.exp(ev.evaluate(found, env)), ev.evaluate(term.coefficient, env), rtol=1e-10)
