"""Formulas of a discretization at a whole matrix, where no smaller structure has a closed form.

Whatever acts on one side of a state is a matrix there, Z = dt A, and every formula is a function of it:

    exp(Z)  and  phi1(Z)      entire functions, which divide by nothing: A may be singular
    f(0) + s Z (1 - g Z)^-1   of a quotient of linear formulas: f(0) + s / g (R - 1) with one inverse R = (1 - g Z)^-1

R exists where A draws, A + A^H <= 0: the real part of x^H (1 - g dt A) x is at least |x|^2 then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import algebra, intervals
from ..discretizations import _method as formulas
from ..discretizations._method import Formula, Method
from ..expressions import key
from ..intervals import point
from ..source import NOWHERE, Span
from ..spec import Expr, Identity, Skew, State, Type
from .chains import Chain, Factor, Polynomial, chain, product_expr
from .entrywise import has_inverse, weighed
from .formula_values import Formulas, depends_on_z

DRAWING = "build it of parts that do not grow, as in `(A - A^T) S - exp(a) * S`, and let the step be `> 0`"


@dataclass(frozen=True)
class Full:
    """A state's rate as a matrix, times the state or, `is_right`, the state times it. `draws`: A + A^H <= 0 is proved. `named` gives a
    value a name."""

    matrix: Expr
    is_right: bool
    draws: bool
    span: Span
    named: Callable[[str, Expr], Expr]

    def applied(self, values: Formulas, formula: Formula, item: Chain) -> Polynomial:
        """`formula(dt A)` of a chain. A step that may have no solution is noted."""
        weight, core = weighed(formula)
        weight = algebra.UNIT if weight is None else values.expr(weight, algebra.ZERO)
        z = algebra.mul(values.step, self.matrix)
        if core in _ENTIRE:
            return (self._times(self._function(_ENTIRE[core], z), item, weight),)
        start = formulas.series(core, 1, values.numbers())[0]
        slope, pole = formulas.slope_and_pole(core)
        if not (self.draws and pole > 0 and values.is_nonpositive(algebra.neg(values.step))):
            values.may_vanish(z, self.span, DRAWING, "nothing is proved of this matrix: a step may have no solution")
        below = algebra.sub(Identity(self.matrix.type, NOWHERE), algebra.mul(algebra.const(pole), z))
        solved = self._times(self._function("matrix_inverse", below), item, algebra.mul(weight, algebra.const(slope / pole)))
        rest = algebra.mul(weight, algebra.const(start - slope / pole))
        return (solved,) if algebra.is_zero(rest) else (solved, self._times(None, item, rest))

    def _function(self, name: str, matrix: Expr) -> Expr:
        return self.named(name.removeprefix("matrix_"), algebra.apply(name, matrix, type=matrix.type))

    def _times(self, matrix: Expr | None, item: Chain, weight: Expr) -> Chain:
        factors = item.factors
        if matrix is not None:
            own = (Factor("dense", matrix),)
            factors = (*factors, *own) if self.is_right else (*own, *factors)
        return chain(algebra.mul(weight, item.coefficient), factors, item.rows, item.cols, item.index, item.span)


def has_full(method: Method) -> bool:
    """Whether every formula of the method is a function of a matrix that is known here."""
    used = (f for f in (method.transition, method.write, method.older) if f is not None and depends_on_z(f))
    return all(core in _ENTIRE or has_inverse(core) for _, core in map(weighed, used))


def full_of(state: State, linear: Polynomial, span: Span, values: Formulas, named: Callable[[str, Expr], Expr]) -> Full | None:
    """The linear part of one state's dynamics as one matrix on one side; None where it is none, or acts on both sides."""
    sides = {side for item in linear for side, factors in (("left", item.left), ("right", item.right)) if factors}
    if len(sides) != 1 or any(not _is_plain(item, state) for item in linear):
        return None
    is_right = sides == {"right"}
    size = state.type.cols if is_right else state.type.rows
    square = Type(size, size, state.type.field)
    terms = []
    for item in linear:
        factors = product_expr(item.right if is_right else item.left)
        value = algebra.mul(item.coefficient, Identity(square, NOWHERE) if factors is None else factors)
        terms.append(algebra.sum_over(*item.index, value) if item.index else value)
    place = next(item.span for item in linear if any(f.kind not in ("diagonal", "state") for f in item.factors))
    return Full(algebra.add(*terms), is_right, draws(linear, values), place if place != NOWHERE else span, named)


def _is_plain(item: Chain, state: State) -> bool:
    factor = item.factors[item.place]
    is_upright = not factor.transposed and not factor.conjugated and factor.weight is None
    return item.state.name == state.name and is_upright and all(f.kind != "part" for f in item.factors)


def draws(linear: Polynomial, values: Formulas) -> bool:
    """Whether A + A^H <= 0 is proved of the sum of the terms, which act on one side.

    `X - X^H` has no such part; `-(X X^H)` and `-k k^H`, and numbers and diagonals with a real part below 0, have one that is at most 0.
    """
    reach = point(0)
    for item in linear:
        factors = (*item.left, *item.right)
        kinds = [f.kind for f in factors]
        if kinds in ([], ["diagonal"]):
            rate = algebra.mul(item.coefficient, factors[0].expr) if factors else item.coefficient
            real = values.real_part(rate)
            if real is None or item.index:
                return False
            reach = intervals.add(reach, values.bounds.of(real))
        elif kinds == ["dense"] and isinstance(factors[0].expr, Skew) and item.coefficient.type.field == "real":
            continue
        elif kinds == ["dense"] and not item.index and any(_cancels(item, other) for other in linear if other is not item):
            continue
        elif kinds in (["dense", "dense"], ["column", "row"]):
            first, second = (f.expr for f in factors)
            mirror = algebra.apply("conj", first) if kinds[0] == "column" else algebra.transpose(first, conjugate=True)
            if key(second) != key(mirror) or not values.is_nonpositive(item.coefficient):
                return False
        else:
            return False
    return reach.high <= 0


def _cancels(own: Chain, other: Chain) -> bool:
    """Whether another term is minus the conjugate transpose of a matrix."""
    factors = (*other.left, *other.right)
    if [f.kind for f in factors] != ["dense"] or own.coefficient.type.field == "complex" or other.index:
        return False
    (mine,) = (*own.left, *own.right)
    is_mirror = key(algebra.transpose(factors[0].expr, conjugate=True)) == key(mine.expr)
    return is_mirror and algebra.is_zero(algebra.add(own.coefficient, other.coefficient))


_ENTIRE = {formulas.exp(formulas.Z): "matrix_exp", formulas.phi(1): "matrix_phi1"}
"""Formulas without a pole, by the function of a matrix that they are."""
