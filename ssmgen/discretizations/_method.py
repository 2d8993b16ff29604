"""What a discretization is, and the proof of its order.

For ds/dt = a s + b(t) and one step from t - dt to t, with z = dt * a:

    s' = transition(z) * s + dt * older(z) * b(t - dt) + dt * write(z) * b(t)

A formula is a small tree over z and the method's parameters. It is read as exact power series here (the order), as an
expression of the specification in `derive` (the update), as floats in the tests (the convergence), as text for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction


class Formula:
    """A node; `+ - * /` build larger ones, numbers are lifted."""

    def __add__(self, other: Formula | int | Fraction) -> Formula:
        return Sum(self, lift(other))

    def __radd__(self, other: int | Fraction) -> Formula:
        return Sum(lift(other), self)

    def __sub__(self, other: Formula | int | Fraction) -> Formula:
        return Difference(self, lift(other))

    def __rsub__(self, other: int | Fraction) -> Formula:
        return Difference(lift(other), self)

    def __mul__(self, other: Formula | int | Fraction) -> Formula:
        return Product(self, lift(other))

    def __rmul__(self, other: int | Fraction) -> Formula:
        return Product(lift(other), self)

    def __truediv__(self, other: Formula | int | Fraction) -> Formula:
        return Quotient(self, lift(other))

    def __rtruediv__(self, other: int | Fraction) -> Formula:
        return Quotient(lift(other), self)


@dataclass(frozen=True)
class Number(Formula):
    value: Fraction


@dataclass(frozen=True)
class Variable(Formula):
    """`z`, or a parameter of the method."""

    name: str


@dataclass(frozen=True)
class Sum(Formula):
    left: Formula
    right: Formula


@dataclass(frozen=True)
class Difference(Formula):
    left: Formula
    right: Formula


@dataclass(frozen=True)
class Product(Formula):
    left: Formula
    right: Formula


@dataclass(frozen=True)
class Quotient(Formula):
    left: Formula
    right: Formula


@dataclass(frozen=True)
class Exponential(Formula):
    operand: Formula


@dataclass(frozen=True)
class Phi(Formula):
    """The sum of z^j / (j + order)!: (e^z - 1) / z for order 1, which is 1 at 0; (phi1 - 1) / z for order 2."""

    order: int
    operand: Formula


Z = Variable("z")


def lift(value: Formula | int | Fraction) -> Formula:
    """A number as a formula."""
    return value if isinstance(value, Formula) else Number(Fraction(value))


def exp(operand: Formula) -> Formula:
    """e to the operand."""
    return Exponential(operand)


def phi(order: int) -> Formula:
    """What an input that grows as the power `order` - 1 of time adds in a step of an exact solution."""
    return Phi(order, Z)


def parameter(name: str) -> Formula:
    """A parameter of the method besides the step size, such as the weight of the newer input."""
    return Variable(name)


@dataclass(frozen=True)
class Method:
    """One discretization.

    parameters: what `discretize method(...)` takes, step size first; empty for a method that takes the equation as it is.
    transition, write, older: the formulas above; `older` None when the input at the beginning of the step does not enter.
    order: of accuracy for a smooth input b(t), proved by `order_of`; None when the method approximates nothing.
    held_order: the same for an input that is constant during the step; None when exact (or when `order` is None).
    source: where the method is defined.
    """

    parameters: tuple[str, ...]
    transition: Formula
    write: Formula
    older: Formula | None
    order: int | None
    held_order: int | None
    source: str

    @property
    def through(self) -> Formula | None:
        """What the older input is weighed by where it enters before the transition, like the state; None where it does not."""
        match self.older:
            case Product(weight, transition) if transition == self.transition:
                return weight
        return None


# --- exact power series in z -------------------------------------------------------------------------------------

Series = list[Fraction]


def series(formula: Formula, length: int, values: Mapping[str, Fraction] = {}) -> Series:
    """The first `length` coefficients of the formula's power series in z, exactly; `values` gives the parameters.

    Raises ZeroDivisionError when the formula has a pole at z = 0.
    """
    # a quotient that is 0/0 at z = 0 loses one coefficient for every power of z that cancels
    spare = length + depth_of_quotients(formula)
    return _series(formula, spare, values)[:length]


def _series(formula: Formula, n: int, values: Mapping[str, Fraction]) -> Series:
    match formula:
        case Number(value):
            return [value] + [Fraction(0)] * (n - 1)
        case Variable("z"):
            return [Fraction(int(k == 1)) for k in range(n)]
        case Variable(name):
            return [Fraction(values[name])] + [Fraction(0)] * (n - 1)
        case Sum(left, right):
            return [a + b for a, b in zip(_series(left, n, values), _series(right, n, values), strict=False)]
        case Difference(left, right):
            return [a - b for a, b in zip(_series(left, n, values), _series(right, n, values), strict=False)]
        case Product(left, right):
            a, b = _series(left, n, values), _series(right, n, values)
            return [sum((a[i] * b[k - i] for i in range(k + 1)), Fraction(0)) for k in range(min(len(a), len(b)))]
        case Quotient(left, right):
            return _divide(_series(left, n, values), _series(right, n, values))
        case Exponential(operand):
            return _exponential(_series(operand, n, values))
        case Phi(order, Variable("z")):
            return _phi(order, n)
    raise ValueError(f"not a formula: {formula!r}")


def _divide(a: Series, b: Series) -> Series:
    """Coefficients of a/b; common powers of z cancel first."""
    while b and b[0] == 0:
        if not a or a[0] != 0:
            raise ZeroDivisionError("a pole at z = 0")
        a, b = a[1:], b[1:]
    if not b:
        raise ZeroDivisionError("division by zero")
    quotient: Series = []
    for k in range(min(len(a), len(b))):
        quotient.append((a[k] - sum((quotient[i] * b[k - i] for i in range(k)), Fraction(0))) / b[0])
    return quotient


def _exponential(a: Series) -> Series:
    """y = exp(a) from y' = a' y; the constant term of `a` must be 0 to stay exact."""
    if a[0] != 0:
        raise ValueError("exp of a formula that is not 0 at z = 0 has no rational series")
    result = [Fraction(1)]
    for k in range(1, len(a)):
        result.append(sum((i * a[i] * result[k - i] for i in range(1, k + 1)), Fraction(0)) / k)
    return result


def depth_of_quotients(formula: Formula) -> int:
    """How many quotients a path through the formula meets at most."""
    operands = [value for value in vars(formula).values() if isinstance(value, Formula)]
    deepest = max((depth_of_quotients(operand) for operand in operands), default=0)
    return deepest + isinstance(formula, Quotient)


def coefficients(formula: Formula) -> tuple[Formula, ...] | None:
    """The formula as a polynomial in z, lowest power first, coefficients free of z; None when it is not a polynomial."""
    match formula:
        case Variable("z"):
            return (Number(Fraction(0)), Number(Fraction(1)))
        case Number() | Variable():
            return (formula,)
        case Sum(left, right) | Difference(left, right):
            a, b = coefficients(left), coefficients(right)
            if a is None or b is None:
                return None
            kind = type(formula)
            zero = Number(Fraction(0))
            width = max(len(a), len(b))
            padded = zip(a + (zero,) * (width - len(a)), b + (zero,) * (width - len(b)), strict=True)
            return tuple(_folded(kind(x, y)) for x, y in padded)
        case Product(left, right):
            a, b = coefficients(left), coefficients(right)
            if a is None or b is None:
                return None
            total: list[Formula] = [Number(Fraction(0))] * (len(a) + len(b) - 1)
            for i, x in enumerate(a):
                for j, y in enumerate(b):
                    total[i + j] = _folded(Sum(total[i + j], _folded(Product(x, y))))
            return tuple(total)
        case Quotient(left, right):
            a, b = coefficients(left), coefficients(right)
            if a is None or b is None or len(b) != 1:
                return None
            return tuple(_folded(Quotient(x, b[0])) for x in a)
    return None


def slope_and_pole(formula: Formula) -> tuple[Fraction, Fraction] | None:
    """`(s, g)` with `formula = f(0) + s z / (1 - g z)`; None for other formulas."""
    above, below = (formula.left, formula.right) if isinstance(formula, Quotient) else (formula, lift(1))
    above, below = coefficients(above), coefficients(below)
    if above is None or below is None or len(above) > 2 or len(below) > 2:
        return None
    if not all(isinstance(c, Number) for c in above + below) or below[0].value == 0:
        return None
    a, b = ([c.value / below[0].value for c in side] + [Fraction(0)] for side in (above, below))
    return a[1] - a[0] * b[1], -b[1]


def _folded(formula: Formula) -> Formula:
    match formula:
        case Sum(Number(a), Number(b)):
            return Number(a + b)
        case Sum(Number(value), other) | Sum(other, Number(value)) if value == 0:
            return other
        case Difference(Number(a), Number(b)):
            return Number(a - b)
        case Difference(other, Number(value)) if value == 0:
            return other
        case Product(Number(a), Number(b)):
            return Number(a * b)
        case Product(Number(value), other) | Product(other, Number(value)) if value in (0, 1):
            return other if value else Number(Fraction(0))
        case Quotient(Number(a), Number(b)) if b != 0:
            return Number(a / b)
    return formula


# --- order of accuracy -------------------------------------------------------------------------------------------

MAX_ORDER = 8


@dataclass(frozen=True)
class Order:
    """Proved orders, capped at MAX_ORDER: for a smooth input and for an input held during the step (None: exact)."""

    smooth: int
    held: int | None


def order_of(method: Method, values: Mapping[str, Fraction] = {}) -> Order:
    """The order of accuracy, from exact series.

    Local error O(dt^(p+1)) needs transition = e^z + O(z^(p+1)), and for an input ((t' - t + dt) / dt)^m / m! an input
    weight of phi_(m+1)(z) + O(z^(p-m)), where phi_k(z) = sum of z^j / (j + k)!, since dt^m is part of such an input.
    """
    length = MAX_ORDER + 2
    transition = series(method.transition, length, values)
    write = series(method.write, length, values)
    older = series(method.older, length, values) if method.older is not None else [Fraction(0)] * length

    of_transition = _agreement(transition, _phi(0, length)) - 1
    # m = 0: both ends of the step hold the input; m > 0: it is 0 at the beginning and 1/m! at the end
    constant = _agreement([a + b for a, b in zip(write, older, strict=False)], _phi(1, length))
    held = min(of_transition, constant)
    smooth = held
    for m in range(1, MAX_ORDER + 1):
        at_end = [w / _factorial(m) for w in write]
        smooth = min(smooth, _agreement(at_end, _phi(m + 1, length)) + m)
    return Order(min(smooth, MAX_ORDER), None if held >= MAX_ORDER else held)


def special_value(method: Method, name: str, generic: Mapping[str, Fraction] = {}) -> tuple[Fraction, int] | None:
    """The value of parameter `name` at which the order is higher than elsewhere, and that order; None when there is none.

    The leading error is affine in a parameter that enters the weights linearly, so two samples give its root exactly.
    """
    samples = [Fraction(1, 3), Fraction(2, 7)]
    usual = order_of(method, {**generic, name: samples[0]}).smooth

    def leading(value: Fraction) -> Fraction:
        write = series(method.write, usual + 2, {**generic, name: value})
        older = series(method.older or Number(Fraction(0)), usual + 2, {**generic, name: value})
        return write[usual] + older[usual] - _phi(1, usual + 2)[usual]

    first, second = leading(samples[0]), leading(samples[1])
    if first == second:
        return None
    root = samples[0] - first * (samples[1] - samples[0]) / (second - first)
    order = order_of(method, {**generic, name: root}).smooth
    return (root, order) if order > usual else None


def _phi(k: int, length: int) -> Series:
    return [Fraction(1, _factorial(j + k)) for j in range(length)]


def _factorial(n: int) -> int:
    return n * _factorial(n - 1) if n > 1 else 1


def _agreement(a: Series, b: Series) -> int:
    """How many leading coefficients agree."""
    for k, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return k
    return len(a)


# --- for people --------------------------------------------------------------------------------------------------


def text(formula: Formula, names: Mapping[str, str] = {}) -> str:
    """The formula in the language's own notation, variables renamed by `names`."""
    return _text(formula, names)[0]


def _text(formula: Formula, names: Mapping[str, str]) -> tuple[str, int]:
    """Text and how tightly it binds: 1 sums, 2 products, 3 atoms."""
    match formula:
        case Number(value):
            return (str(value), 3) if value.denominator == 1 and value >= 0 else (str(value), 1)
        case Variable(name):
            shown = names.get(name, name)
            return shown, 3 if shown.isidentifier() else 2
        case Sum(left, right):
            return f"{_held(left, names, 1)} + {_held(right, names, 1)}", 1
        case Difference(left, right):
            return f"{_held(left, names, 1)} - {_held(right, names, 2)}", 1
        case Product(left, right):
            return f"{_held(left, names, 2)} * {_held(right, names, 3)}", 2
        case Quotient(left, right):
            return f"{_held(left, names, 2)} / {_held(right, names, 3)}", 2
        case Exponential(operand):
            return f"exp({text(operand, names)})", 3
        case Phi(order, operand):
            return f"phi{order}({text(operand, names)})", 3
    raise ValueError(f"not a formula: {formula!r}")


def _held(formula: Formula, names: Mapping[str, str], at_least: int) -> str:
    shown, strength = _text(formula, names)
    return shown if strength >= at_least else f"({shown})"


# --- Runge-Kutta -------------------------------------------------------------------------------------------------


def runge_kutta(a: tuple[tuple[Fraction | int, ...], ...], b: tuple[Fraction | int, ...]) -> tuple[Formula, Formula]:
    """`(transition, write)` of an explicit Butcher tableau with the input held during the step.

    `a` holds the rows below the diagonal. The stages of ds/dt = a s + b are k_i = a (s + dt sum_j a_ij k_j) + b, so both
    formulas are polynomials in z: write = sum b_i w_i with w_i = 1 + z sum_j a_ij w_j, and transition = 1 + z * write.
    """
    stages: list[list[Fraction]] = []
    for row in a:
        stage = [Fraction(1)] + [Fraction(0)] * len(b)
        for weight, earlier in zip(row, stages, strict=True):
            for power, value in enumerate(earlier[:-1]):
                stage[power + 1] += Fraction(weight) * value
        stages.append(stage)
    weighted = list(zip(b, stages, strict=True))
    totals = [sum((Fraction(weight) * stage[power] for weight, stage in weighted), Fraction(0)) for power in range(len(b))]
    while totals[-1] == 0:
        totals.pop()
    write = _polynomial(totals)
    return _polynomial([Fraction(1), *totals]), write


def _polynomial(values: list[Fraction]) -> Formula:
    result: Formula = Number(values[0])
    power: Formula = Z
    for value in values[1:]:
        if value != 0:
            result = result + (power if value == 1 else Number(value) * power)
        power = power * Z
    return result


# --- linear multistep --------------------------------------------------------------------------------------------


def linear_multistep(alpha: tuple[Fraction | int, ...], beta: tuple[Fraction | int, ...]) -> tuple[Formula, Formula, Formula | None]:
    """`(transition, write, older)` of sum alpha_j s_j = dt sum beta_j (a s_j + b_j), where s_j is that of j steps ago, 0 the new one.

    Raises ValueError for coefficients of more than two points: what is older than the previous token is in no recurrence of one state.
    """
    if len(alpha) != 2 or not 1 <= len(beta) <= 2 or alpha[0] == 0:
        points = max(len(alpha), len(beta))
        raise ValueError(
            f"a multistep method over {points} points reads s from {points - 1} steps ago; a token has its own value and the previous "
            "one: give two coefficients each, or carry the older rate as a state of its own"
        )
    newest, before = (Fraction(x) / alpha[0] for x in (beta[0], beta[1] if len(beta) > 1 else 0))
    kept = lift(-Fraction(alpha[1]) / alpha[0])
    transition = kept + before * Z if before else kept
    if not newest:
        return transition, lift(0), lift(before)
    below = 1 - newest * Z
    return transition / below, newest / below, before / below if before else None
