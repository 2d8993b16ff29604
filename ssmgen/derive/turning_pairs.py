"""Formulas of a discretization on pairs of rows that turn as they fade.

A rate a + w J of a pair, J a quarter turn, acts as the complex number a + i w, and so does every f(z), z = dt (a + w J):

    f(z) = u + v J = r rot(phi),   r = |f|,  phi = atan2(v, u)

With f = n / d, r^2 = 1 + (|n|^2 - |d|^2) / |d|^2. For linear n and d the numerator is expanded exactly: near dt = 0, where r is near 1,
nothing cancels. A factor r below 10^-18 is that: no number of 53 bits shows the difference beside 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import comb

from .. import algebra
from ..discretizations import _method as formulas
from ..discretizations._method import Formula
from ..expressions import half
from ..source import Span
from ..spec import ONE, Apply, Const, Expr, Neg, Type
from .formula_values import Formulas

Parts = tuple[Expr, Expr]
"""u and v of u + v J."""

HALF = Fraction(1, 2)

TINY = Fraction(1, 10**36)
"""The least square of a modulus."""


@dataclass(frozen=True)
class Pairs:
    """Formulas at z = x + y J; x and y are numbers, or columns with an entry a pair. `named` gives a value a name."""

    formulas: Formulas
    x: Expr
    y: Expr
    span: Span
    named: Callable[[str, Expr], Expr]

    def parts(self, formula: Formula) -> Parts:
        """u and v. What is divided by is noted where it may vanish. Raises ValueError for phi."""
        powers = formulas.coefficients(formula)
        if powers is not None and len(powers) > 2:
            u, v = self._polynomial(powers)
            return self.named("part", u), self.named("turn", v)
        match formula:
            case formulas.Number(value):
                return algebra.const(value), algebra.ZERO
            case formulas.Variable("z"):
                return self.x, self.y
            case formulas.Variable(name):
                return self.formulas.parameters[name], algebra.ZERO
            case formulas.Sum(left, right):
                return tuple(algebra.add(*both) for both in zip(self.parts(left), self.parts(right), strict=True))
            case formulas.Difference(left, right):
                return tuple(algebra.sub(*both) for both in zip(self.parts(left), self.parts(right), strict=True))
            case formulas.Product(left, right):
                return times(self.parts(left), self.parts(right))
            case formulas.Quotient(left, formulas.Number(value)):
                return tuple(algebra.div(part, algebra.const(value)) for part in self.parts(left))
            case formulas.Quotient(left, right):
                c, d = self.parts(right)
                below = self.size((c, d))
                self.formulas.divides(below, False, self.span)
                return tuple(algebra.div(part, below) for part in times(self.parts(left), (c, algebra.neg(d))))
        raise ValueError(f"no value on pairs: {formula!r}")

    def _polynomial(self, powers: tuple[Formula, ...]) -> Parts:
        """Of sum c_k (x + y J)^k, term by term."""
        sums: tuple[list[Expr], list[Expr]] = ([], [])
        for k, coefficient in enumerate(powers):
            c = self.formulas.expr(coefficient, algebra.ZERO)
            for j in range(k + 1):
                power = algebra.mul(_power(self.x, k - j), _power(self.y, j))
                sums[j % 2].append(algebra.mul(algebra.const(comb(k, j) * (-1) ** (j // 2)), algebra.mul(c, power)))
        return tuple(algebra.add(*terms) for terms in sums)

    def size(self, parts: Parts) -> Expr:
        """u^2 + v^2."""
        upright = (part.operand if isinstance(part, Neg) else part for part in parts)
        return algebra.add(*(algebra.apply("square", part) for part in upright if not algebra.is_zero(part)))

    def polar(self, formula: Formula) -> Parts:
        """r, as the exponential of its logarithm, and phi."""
        above, below = _sides(formula)
        n, d = self.parts(above), self.parts(below)
        size = self.size(d)
        self.formulas.divides(size, False, self.span)
        u, v = times(n, (d[0], algebra.neg(d[1])))
        return self._modulus(above, below, self.size(n), size), algebra.apply("atan2", v, u)

    def _modulus(self, above: Formula, below: Formula, n: Expr, d: Expr) -> Expr:
        growth = self._growth(above, below, n, d)
        if algebra.is_zero(growth):
            return algebra.UNIT
        square = algebra.div(n, d)
        # of r^2 from 1/2 up the first is the logarithm and the second 0, of a smaller one the second, but for log 2
        near = algebra.apply("log1p", algebra.apply("max", growth, algebra.const(-HALF)))
        rest = algebra.apply("clamp", algebra.mul(algebra.const(2), square), algebra.const(TINY), algebra.UNIT)
        return algebra.apply("exp", algebra.mul(algebra.const(HALF), algebra.add(near, algebra.apply("log", rest))))

    def _growth(self, above: Formula, below: Formula, n: Expr, d: Expr) -> Expr:
        """r^2 - 1 of n and d, the squares of what is above and below."""
        sides = [[self.formulas.expr(c, algebra.ZERO) for c in formulas.coefficients(side)] for side in (above, below)]
        if max(map(len, sides)) > 2:
            return algebra.div(algebra.sub(n, d), d)
        (a, b), (e, f) = ((*side, algebra.ZERO)[:2] for side in sides)
        # |a + b z|^2 - |e + f z|^2
        whole = algebra.sub(algebra.mul(a, a), algebra.mul(e, e))
        slope = algebra.mul(algebra.const(2), algebra.sub(algebra.mul(a, b), algebra.mul(e, f)))
        bend = algebra.sub(algebra.mul(b, b), algebra.mul(f, f))
        length = self.size((self.x, self.y))
        terms = [whole, _times(slope, self.x), _times(bend, length)]
        return algebra.div(algebra.add(*(t for t in terms if not algebra.is_zero(t)), algebra.ZERO), d)


def times(left: Parts, right: Parts) -> Parts:
    """The product of two complex numbers by their parts."""
    return algebra.complex_product(left, right, _times)


def _times(left: Expr, right: Expr) -> Expr:
    return algebra.ZERO if algebra.is_zero(left) or algebra.is_zero(right) else algebra.mul(left, right)


def halved(column: Expr) -> Expr:
    """One value a pair of a column that is made of `pairs(...)` and numbers."""

    def inner(node: Expr) -> Expr | None:
        if isinstance(node, Apply) and node.function == "pairs":
            return node.args[0]
        if isinstance(node, Const) and node.type.is_column and node.type.rows != ONE:
            return algebra.const(node.value, Type(half(node.type.rows)))
        return None

    return algebra.rewrite(column, inner)


def _sides(formula: Formula) -> tuple[Formula, Formula]:
    return (formula.left, formula.right) if isinstance(formula, formulas.Quotient) else (formula, formulas.lift(1))


def _power(value: Expr, exponent: int) -> Expr:
    return algebra.apply("square", value) if exponent == 2 else algebra.power(value, algebra.const(exponent))
