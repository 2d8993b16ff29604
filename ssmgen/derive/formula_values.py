"""Formulas of a discretization as expressions of the specification, and the divisors that may vanish in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from .. import algebra
from ..bounds import Bounds
from ..discretizations import _method as formulas
from ..discretizations._method import Formula
from ..expressions import constant
from ..source import NOWHERE, Span
from ..spec import Div, Expr, Ref, Symbol


@dataclass(frozen=True)
class Singular:
    """A divisor that may vanish: where the method divides, whether the formula has a limit there, what excludes it, what it means."""

    divisor: Expr
    has_limit: bool
    span: Span
    edit: str = ""
    fact: str = "this rate may reach the pole"


@dataclass
class Formulas:
    """Evaluates formulas at z = dt * rate, and gathers what they divide by."""

    step: Expr
    parameters: dict[str, Expr]
    symbols: dict[str, Symbol]
    bounds: Bounds
    singular: list[Singular] = field(default_factory=list)

    def at(self, formula: Formula, rate: Expr, span: Span, step: Expr | None, dt: Expr | None = None) -> Expr:
        """`formula(dt * rate)`, times `step` when given, so that `dt expm1(dt a) / (dt a)` becomes `expm1(dt a) / a`.

        dt: the step size in the rate's shape, where it is not the one of the specification.
        """
        z = algebra.mul(self.step if dt is None else dt, rate)
        span = rate.span if rate.span != NOWHERE else span
        if algebra.is_zero(rate):
            limit = algebra.const(formulas.series(formula, 1, self.numbers())[0]) if not self._has_parameters(formula) else None
            value = limit if limit is not None else self.expr(formula, z)
            return value if step is None else algebra.mul(step, value)
        formula = _textbook(formula) if z.type.field == "complex" else formula
        if isinstance(formula, formulas.Quotient):
            above, below = self.expr(formula.left, z), self.expr(formula.right, z)
            above = above if step is None else algebra.mul(step, above)
            divisor = rate if below == z else below
            self.divides(divisor, self._has_limit(formula), span)
            return algebra.div(above, below)
        value = self.value(formula, z, span)
        return value if step is None else algebra.mul(step, value)

    def value(self, formula: Formula, z: Expr, span: Span) -> Expr:
        for inner in _quotients(formula):
            self.divides(self.expr(inner.right, z), self._has_limit(inner), span)
        return self.expr(formula, z)

    def expr(self, formula: Formula, z: Expr) -> Expr:
        match formula:
            case formulas.Number(value):
                return algebra.const(value)
            case formulas.Variable(name):
                return z if name == "z" else self.parameters[name]
            case formulas.Difference(formulas.Exponential(operand), formulas.Number(value)) if value == 1:
                return algebra.apply("expm1", self.expr(operand, z))
            case formulas.Sum(left, right):
                return algebra.add(self.expr(left, z), self.expr(right, z))
            case formulas.Difference(left, right):
                return algebra.sub(self.expr(left, z), self.expr(right, z))
            case formulas.Product(left, right):
                return algebra.mul(self.expr(left, z), self.expr(right, z))
            case formulas.Quotient(left, right):
                return algebra.div(self.expr(left, z), self.expr(right, z))
            case formulas.Exponential(operand):
                return algebra.apply("exp", self.expr(operand, z))
            case formulas.Phi(order, operand):
                return algebra.apply(f"phi{order}", self.expr(operand, z))
        raise ValueError(f"not a formula: {formula!r}")

    def numbers(self) -> dict[str, Fraction]:
        """Parameter values for series: their numbers, or a value at which nothing special happens."""
        return {name: constant(value) if constant(value) is not None else Fraction(1, 3) for name, value in self.parameters.items()}

    def _has_parameters(self, formula: Formula) -> bool:
        return any(isinstance(f, formulas.Variable) and f.name != "z" for f in _parts(formula))

    def _has_limit(self, formula: Formula) -> bool:
        try:
            formulas.series(formula, 1, self.numbers())
        except ZeroDivisionError:
            return False
        return formulas.series(formula.right, 1, self.numbers())[0] == 0

    # --- divided differences ---

    def difference(self, formula: Formula, start: Expr, change: Expr, span: Span) -> Expr:
        """`(f(start + change) - f(start)) / change`, without dividing by `change`."""
        end = algebra.add(start, change)
        match formula:
            case formulas.Number():
                return algebra.ZERO
            case formulas.Variable(name):
                return algebra.UNIT if name == "z" else algebra.ZERO
            case formulas.Sum(left, right):
                return algebra.add(self.difference(left, start, change, span), self.difference(right, start, change, span))
            case formulas.Difference(left, right):
                return algebra.sub(self.difference(left, start, change, span), self.difference(right, start, change, span))
            case formulas.Product(left, right):
                first = algebra.mul(self.difference(left, start, change, span), self.value(right, end, span))
                return algebra.add(first, algebra.mul(self.value(left, start, span), self.difference(right, start, change, span)))
            case formulas.Exponential(operand):
                slope = self.difference(operand, start, change, span)
                inside = algebra.mul(slope, change)
                return algebra.mul(
                    algebra.apply("exp", self.value(operand, start, span)), algebra.mul(algebra.apply("phi1", inside), slope)
                )
            case formulas.Phi(order):
                if algebra.is_zero(start):
                    return algebra.apply(f"phi{order + 1}", change)
                if order > 1:
                    raise ValueError(f"no divided difference of {formula!r}")
                # of z phi1(z) = exp(z) - 1
                self.divides(start, True, span)
                whole = algebra.mul(algebra.apply("exp", start), algebra.apply("phi1", change))
                return algebra.div(algebra.sub(whole, algebra.apply("phi1", end)), start)
            case formulas.Quotient(left, right):
                below, above = self.value(right, start, span), self.value(right, end, span)
                first = algebra.mul(self.difference(left, start, change, span), below)
                second = algebra.mul(self.value(left, start, span), self.difference(right, start, change, span))
                self.divides(above, False, span)
                return algebra.div(algebra.sub(first, second), algebra.mul(below, above))
        raise ValueError(f"not a formula: {formula!r}")

    # --- divisors ---

    def divides(self, divisor: Expr, has_limit: bool, span: Span, edit: str = "", fact: str = Singular.fact) -> None:
        """Note a division, unless the divisor is provably not 0; `edit`: what would exclude that it is, where signs alone do not."""
        if not self._is_nonzero(divisor):
            found = Singular(divisor, has_limit, span, edit, fact)
            if found not in self.singular:
                self.singular.append(found)

    def may_vanish(self, divisor: Expr, span: Span, edit: str, fact: str) -> None:
        """Note a division by what is no number, and of which nothing is proved."""
        found = Singular(divisor, False, span, edit, fact)
        if found not in self.singular:
            self.singular.append(found)

    def is_positive(self, expr: Expr) -> bool:
        """Whether every entry is provably > 0."""
        return expr.type.field == "real" and self.bounds.of(expr).is_positive

    def is_right(self, expr: Expr) -> bool:
        """Whether the real part of every entry is provably > 0; that of 1 / x is where that of x is."""
        if expr.type.field == "real":
            return self.is_positive(expr)
        if isinstance(expr, Div) and algebra.is_one(expr.left):
            expr = expr.right
        real, _ = algebra.split_imaginary(self._opened(expr))
        return real.type.field == "real" and self.bounds.of(real).is_positive

    def is_left(self, expr: Expr) -> bool:
        """Whether the real part of every entry is provably <= 0."""
        if expr.type.field == "real":
            return self.is_nonpositive(expr)
        real, _ = algebra.split_imaginary(self._opened(expr))
        return real.type.field == "real" and self.bounds.of(real).is_nonpositive

    def is_nonpositive(self, expr: Expr) -> bool:
        """Whether every entry is provably <= 0."""
        return expr.type.field == "real" and self.bounds.of(expr).is_nonpositive

    def _is_nonzero(self, expr: Expr) -> bool:
        if expr.type.field == "complex":
            real, imaginary = algebra.split_imaginary(self._opened(expr))
            parts = [part for part in (real, imaginary) if part.type.field == "real"]
            return len(parts) == 2 and any(not self.bounds.of(part).contains(0.0) for part in parts)
        return not self.bounds.of(expr).contains(0.0)

    def real_part(self, expr: Expr) -> Expr | None:
        """The real part of a value, complex names opened; None where that has no expression of its own."""
        real = expr if expr.type.field == "real" else algebra.split_imaginary(self._opened(expr))[0]
        return real if real.type.field == "real" else None

    def _opened(self, expr: Expr) -> Expr:
        """Complex names replaced by their definitions, where `i` is written."""

        def opened(node: Expr) -> Expr | None:
            if isinstance(node, Ref) and node.type.field == "complex":
                definition = self.symbols[node.name].definition if node.name in self.symbols else None
                return None if definition is None else self._opened(definition)
            return None

        return algebra.rewrite(expr, opened)


def _textbook(formula: Formula) -> Formula:
    """A quotient in the place of the functions that only real numbers have."""
    return (formulas.exp(formulas.Z) - 1) / formulas.Z if formula == formulas.phi(1) else formula


def _parts(formula: Formula):
    yield formula
    for value in vars(formula).values():
        if isinstance(value, Formula):
            yield from _parts(value)


def _quotients(formula: Formula):
    return (part for part in _parts(formula) if isinstance(part, formulas.Quotient))


def depends_on_z(formula: Formula) -> bool:
    return any(part == formulas.Z for part in _parts(formula))
