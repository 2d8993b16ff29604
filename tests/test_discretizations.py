"""Laws of every discretization: the proved order is the declared one, and solutions converge at it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from ssmgen.discretizations import _method as formulas
from ssmgen.discretizations import methods
from ssmgen.discretizations._method import Formula, Method, Number, Product
from ssmgen.functions import phi
from ssmgen.reference.token import STEPS
from ssmgen.runtime.interpret import _METHODS

METHODS = {name: method for name, method in methods().items() if method.parameters}
POLYNOMIAL = {name for name, method in METHODS.items() if formulas.coefficients(method.transition) is not None}
GENERIC = {"lam": Fraction(1, 3)}


def values(method: Method) -> dict[str, Fraction]:
    return {name: GENERIC[name] for name in method.parameters[1:]}


def number(formula: Formula, z: complex, at: dict[str, Fraction]) -> complex:
    """The formula in floating point, as it is written."""
    match formula:
        case formulas.Number(value):
            return float(value)
        case formulas.Variable(name):
            return z if name == "z" else float(at[name])
        case formulas.Sum(left, right):
            return number(left, z, at) + number(right, z, at)
        case formulas.Difference(left, right):
            return number(left, z, at) - number(right, z, at)
        case formulas.Product(left, right):
            return number(left, z, at) * number(right, z, at)
        case formulas.Quotient(left, right):
            return number(left, z, at) / number(right, z, at)
        case formulas.Exponential(operand):
            value = number(operand, z, at)
            return math.exp(value) if not isinstance(value, complex) else complex(math.e) ** value
        case formulas.Phi(order, operand):
            return phi(order)(number(operand, z, at))
    raise AssertionError(formula)


def final_error(method: Method, at: dict[str, Fraction], steps: int, held: bool) -> float:
    """|error| at t = 1 for ds/dt = -0.7 s + b(t), s(0) = 1, with b = cos 3t, or constant in each step of 1/4."""
    a, dt = -0.7, 1.0 / steps

    def b(t: float) -> float:
        # a held input changes at quarters only; a step belongs to the quarter in which it ends
        return math.cos(3.0 * math.floor(4 * (t - 1e-12)) / 4) if held else math.cos(3.0 * t)

    transition, write = number(method.transition, a * dt, at), number(method.write, a * dt, at)
    beginning = number(method.older, a * dt, at) if method.older is not None else 0.0
    s, t = 1.0, 0.0
    for _ in range(steps):
        older = b(t + 1e-9) if held else b(t)
        s = transition * s + dt * beginning * older + dt * write * b(t + dt)
        t += dt
    return abs(s - exact(a, held))


def exact(a: float, held: bool) -> float:
    if held:
        s = 1.0
        for quarter in range(4):
            s = math.exp(a / 4) * s + math.expm1(a / 4) / a * math.cos(3.0 * quarter / 4)
        return s
    # the integral of e^(a (1 - t)) cos 3t over [0, 1]
    ends = [(-a * math.cos(3 * t) + 3 * math.sin(3 * t)) * math.exp(a * (1 - t)) for t in (1.0, 0.0)]
    return math.exp(a) + (ends[0] - ends[1]) / (a * a + 9)


@pytest.mark.parametrize("name", METHODS)
def test_proved_order_is_the_declared_order(name):
    method = METHODS[name]
    order = formulas.order_of(method, values(method))
    assert (order.smooth, order.held) == (method.order, method.held_order)


@pytest.mark.parametrize("held", [False, True], ids=["smooth", "held"])
@pytest.mark.parametrize("name", METHODS)
def test_solutions_converge_at_the_order(name, held):
    method = METHODS[name]
    coarse, fine = (final_error(method, values(method), steps, held) for steps in (32, 64))
    order = method.held_order if held else method.order
    if order is None:
        assert coarse < 1e-12
    else:
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


def test_exp_trapezoid_is_second_order_exactly_at_one_half():
    method = METHODS["exp_trapezoid"]
    assert formulas.special_value(method, "lam") == (Fraction(1, 2), 2)
    for lam in (Fraction(0), Fraction(1, 4), Fraction(499, 1000), Fraction(1)):
        assert formulas.order_of(method, {"lam": lam}).smooth == 1
    at = {"lam": Fraction(1, 2)}
    assert math.log2(final_error(method, at, 32, False) / final_error(method, at, 64, False)) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_words(name):
    import importlib

    module = importlib.import_module(f"ssmgen.discretizations.{name}")
    assert "rder" in module.__doc__ and METHODS[name].source


def test_none_is_the_equation_itself():
    method = methods()["none"]
    assert method.order is None and formulas.text(method.transition) == "z"


# --- series ------------------------------------------------------------------------------------------------------


def test_series_are_exact():
    z = formulas.Z
    assert formulas.series(formulas.exp(z), 5) == [Fraction(1, math.factorial(k)) for k in range(5)]
    assert formulas.series((formulas.exp(z) - 1) / z, 4) == formulas.series(formulas.phi(1), 4)
    assert formulas.series(formulas.phi(1), 4) == [Fraction(1, math.factorial(k + 1)) for k in range(4)]
    assert formulas.series(1 / (1 - z), 4) == [1, 1, 1, 1]
    assert formulas.series((1 + z / 2) / (1 - z / 2), 4) == [1, 1, Fraction(1, 2), Fraction(1, 4)]


def test_a_pole_at_zero_is_found():
    with pytest.raises(ZeroDivisionError):
        formulas.series(formulas.exp(formulas.Z) / formulas.Z, 3)


def test_polynomials_are_recognised():
    z = formulas.Z
    assert formulas.coefficients((1 + z) * (1 + z)) == (Number(Fraction(1)), Number(Fraction(2)), Number(Fraction(1)))
    assert formulas.coefficients(formulas.exp(z)) is None
    assert formulas.coefficients(1 / (1 - z)) is None


def test_runge_kutta_of_one_stage_is_euler():
    transition, write = formulas.runge_kutta(a=((),), b=(1,))
    assert formulas.series(transition, 4) == [1, 1, 0, 0] and formulas.series(write, 3) == [1, 0, 0]


def test_runge_kutta_of_two_stages():
    half = Fraction(1, 2)
    transition, _ = formulas.runge_kutta(a=((), (half,)), b=(0, 1))
    assert formulas.series(transition, 4) == [1, 1, half, 0]


def test_formulas_print_as_they_are_written():
    shown = {name: formulas.text(Product(m.transition, m.write)) for name, m in METHODS.items()}
    assert shown["exp_euler"] == "exp(z) * 1" and shown["zoh"] == "exp(z) * phi1(z)"
    assert formulas.text(METHODS["bilinear"].transition, {"z": "dt*A"}) == "(1 + dt*A / 2) / (1 - dt*A / 2)"


def test_the_definition_and_the_second_oracle_know_every_step():
    """Both are written out by hand. Polynomials of the rate may go without a text of their own: the definition takes their stages."""
    assert set(_METHODS) == set(methods())
    for kind, steps in STEPS.items():
        assert set(steps) <= set(methods()) and set(METHODS) - set(steps) <= POLYNOMIAL, kind
