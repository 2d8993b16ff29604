"""What an expression can reach: interval analysis over the specification's expressions, entry by entry.

Plain interval arithmetic forgets that two uses of a name are one value. Three remedies, all sound, cover what gates do:
a sum of products is put in polynomial form (so `x * x` is a square and `p + (1 - p)` is 1); a polynomial that is
monotone in each of its bounded factors takes its ends at corners (so `l + (1 - l) * s` stays inside (0, 1)); a quotient
is compared with 1 (`a / (a + b)`). `head < heads` and `layer < layers` are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import product

from . import intervals, spec
from .expressions import OF_ENTRIES
from .functions import FUNCTIONS
from .intervals import UNIT_BALL, WHOLE, Interval, closed

MAX_TERMS = 32
MAX_DEGREE = 8
MAX_CORNER_FACTORS = 5

NONPOSITIVE = Interval(-intervals.INFINITY, 0.0, high_open=False)
NATURAL = Interval(0.0, intervals.INFINITY, low_open=False)
COUNT = Interval(1.0, intervals.INFINITY, low_open=False)

INDICES = {
    "head": NATURAL,
    "heads": COUNT,
    "channel": NATURAL,
    "channels": COUNT,
    "layer": NATURAL,
    "layers": COUNT,
    "position": NATURAL,
    "n": NATURAL,
}
"""What the built-in indices can be."""

_BELOW = {"heads": "head", "channels": "channel", "layers": "layer"}

Monomial = tuple[tuple[int, int], ...]  # (atom, power), sorted by atom
Polynomial = dict[Monomial, Fraction]


def bounds_of(recurrence: spec.Recurrence, nonpositive: tuple[tuple[spec.Expr, ...], ...] = ()) -> Bounds:
    """The analysis with every symbol of a resolved recurrence known, and sums of terms that are known not to exceed 0."""
    unit = {s.name for s in recurrence.symbols if "unit" in s.flags}
    return Bounds({s.name: s.interval for s in recurrence.symbols}, unit, nonpositive)


class Bounds:
    """Intervals of expressions, given intervals of names. `unit`: names of columns of length at most 1. `nonpositive`: terms
    whose sum is at most 0."""

    def __init__(
        self,
        known: Mapping[str, Interval],
        unit: set[str] | frozenset[str] = frozenset(),
        nonpositive: tuple[tuple[spec.Expr, ...], ...] = (),
    ):
        self.known = known
        self.unit = unit
        self.nonpositive = nonpositive
        self._found: dict[spec.Expr, Interval] = {}

    def of(self, expr: spec.Expr) -> Interval:
        """What every entry of `expr` lies in."""
        if expr.type.field == "complex":
            return WHOLE
        if expr not in self._found:
            found = self._natural(expr)
            if isinstance(expr, (spec.Add, spec.Mul, spec.Neg, spec.Pow)):
                refined = _PolynomialForm(self).bound(expr)
                if refined is not None:
                    found = found.meet(refined)
            self._found[expr] = found
        return self._found[expr]

    def is_unit(self, expr: spec.Expr) -> bool:
        """Whether `expr` is a column (or row) of length at most 1."""
        match expr:
            case spec.Ref(name=name) | spec.Delayed(name=name):
                return name in self.unit
            case spec.Apply(function="unit"):
                return True
            case spec.Apply(function="rope", args=(inner,)):
                return self.is_unit(inner)
            case spec.Neg(operand=inner) | spec.Transpose(operand=inner) | spec.Element(base=inner):
                return self.is_unit(inner)
            case spec.MatMul(left=spec.Rot(), right=inner):
                return self.is_unit(inner)
            case spec.Mul(left=left, right=right):
                return any(
                    self.is_unit(a) and not b.type.is_row and self.of(b).is_within(UNIT_BALL) for a, b in ((left, right), (right, left))
                )
        return False

    def monomials(self, expr: spec.Expr) -> list[tuple[Fraction, list[tuple[spec.Expr, int]]]] | None:
        """`expr` as a sum of coefficients times powers of parts that are no sums or products; None where that is too large."""
        form = _PolynomialForm(self)
        try:
            found = form._expand(expr)
        except _TooLarge:
            return None
        return [(coefficient, [(form.atoms[atom], power) for atom, power in monomial]) for monomial, coefficient in found.items()]

    # --- by node -------------------------------------------------------------------------------------------------

    def _natural(self, expr: spec.Expr) -> Interval:
        match expr:
            case spec.Const(value=value):
                return intervals.point(value)
            case spec.SizeOf():
                return COUNT
            case spec.Ref(name=name):
                found = self.known.get(name, INDICES.get(name, WHOLE))
                return found.meet(UNIT_BALL) if name in self.unit else found
            case spec.Delayed(name=name):
                # before the first token there is no value: 0
                return self._natural(spec.Ref(expr.type, expr.span, name)).hull(closed(0.0, 0.0))
            case spec.Element(base=base):
                return self.of(base)
            case spec.Apply(function=name, args=args):
                if any(a.type.field == "complex" for a in args):
                    return intervals.NONNEGATIVE if name == "abs" else WHOLE
                if name == "rope" and self.is_unit(args[0]):
                    return UNIT_BALL
                if name in OF_ENTRIES:
                    return WHOLE
                return FUNCTIONS[name].transfer(*[self.of(a) for a in args])
            case spec.Add(terms=terms):
                total = self.of(terms[0])
                for term in terms[1:]:
                    total = intervals.add(total, self.of(term))
                for known in self.nonpositive:
                    if all(term in terms for term in known):
                        rest = intervals.closed(0.0, 0.0)
                        for term in terms:
                            rest = rest if term in known else intervals.add(rest, self.of(term))
                        total = total.meet(intervals.add(rest, NONPOSITIVE))
                return total
            case spec.Neg(operand=operand):
                return intervals.negate(self.of(operand))
            case spec.Mul(left=left, right=right):
                if left == right:
                    return intervals.square(self.of(left))
                return intervals.multiply(self.of(left), self.of(right))
            case spec.Div(left=left, right=right):
                return self._quotient(left, right)
            case spec.Pow(base=base, exponent=exponent):
                return intervals.power(self.of(base), self.of(exponent))
            case spec.Transpose(operand=operand):
                return self.of(operand)
            case spec.Diag(operand=operand):
                return self.of(operand).hull(closed(0.0, 0.0))
            case spec.Identity():
                return closed(0.0, 1.0)
            case spec.Rot():
                return UNIT_BALL
            case spec.MatMul():
                return self._matrix_product(expr)
            case spec.SumOver(body=body):
                return intervals.sum_of(self.of(body))
        return WHOLE  # states, rates of turning

    def _quotient(self, left: spec.Expr, right: spec.Expr) -> Interval:
        below = self.of(right)
        found = intervals.divide(self.of(left), below)
        if not isinstance(right, spec.Const) and below.is_positive:
            # a / b <= 1 when b - a >= 0, and >= -1 when b + a >= 0
            rest = self.of(spec.Add(right.type, right.span, (right, spec.Neg(left.type, left.span, left))))
            if rest.is_nonnegative:
                found = found.meet(Interval(-intervals.INFINITY, 1.0, True, rest.is_positive))
            rest = self.of(spec.Add(right.type, right.span, (right, left)))
            if rest.is_nonnegative:
                found = found.meet(Interval(-1.0, intervals.INFINITY, rest.is_positive, True))
        return found

    def _matrix_product(self, expr: spec.MatMul) -> Interval:
        left, right = expr.left, expr.right
        if isinstance(left, spec.Diag):
            return intervals.multiply(self.of(left.operand), self.of(right))
        if isinstance(right, spec.Diag):
            return intervals.multiply(self.of(left), self.of(right.operand))
        if isinstance(left, spec.Identity):
            return self.of(right)
        if isinstance(right, spec.Identity):
            return self.of(left)
        product_interval = intervals.multiply(self.of(left), self.of(right))
        if left.type.cols == spec.ONE:
            return product_interval
        if isinstance(left, spec.Transpose) and left.operand == right and right.type.is_column:
            product_interval = intervals.square(self.of(right))
        found = intervals.sum_of(product_interval)
        if self.is_unit(left) and self.is_unit(right) and expr.type.is_scalar:
            found = found.meet(UNIT_BALL)
        return found


# --- polynomials -------------------------------------------------------------------------------------------------


class _TooLarge(Exception):
    pass


class _PolynomialForm:
    """An expression as a polynomial in its parts that are no sums or products (`atoms`)."""

    def __init__(self, bounds: Bounds):
        self.bounds = bounds
        self.atoms: list[object] = []
        self.ranges: list[Interval] = []

    def bound(self, expr: spec.Expr) -> Interval | None:
        """An interval of `expr`, or None when the polynomial is too large."""
        try:
            polynomial = self._expand(expr)
        except _TooLarge:
            return None
        return self._of(polynomial)

    def _of(self, polynomial: Polynomial) -> Interval:
        found = self._by_terms(polynomial)
        at_corners = self._at_corners(polynomial)
        return found if at_corners is None else found.meet(at_corners)

    def _atom(self, key: object, found: Interval) -> int:
        if key not in self.atoms:
            self.atoms.append(key)
            self.ranges.append(found)
        return self.atoms.index(key)

    def _expand(self, expr: spec.Expr) -> Polynomial:
        match expr:
            case spec.Const(value=value):
                return {(): value} if value else {}
            case spec.Ref(name=name) if name in _BELOW and name not in self.bounds.known:
                # heads = head + 1 + (something >= 0)
                lower = self._atom(_BELOW[name], INDICES[_BELOW[name]])
                slack = self._atom(f"{name} - {_BELOW[name]} - 1", NATURAL)
                return {(): Fraction(1), ((lower, 1),): Fraction(1), ((slack, 1),): Fraction(1)}
            case spec.Ref(name=name) if name in INDICES and name not in self.bounds.known:
                return {((self._atom(name, INDICES[name]), 1),): Fraction(1)}
            case spec.Add(terms=terms):
                total: Polynomial = {}
                for term in terms:
                    total = _sum(total, self._expand(term))
                return total
            case spec.Neg(operand=operand):
                return {m: -c for m, c in self._expand(operand).items()}
            case spec.Mul(left=left, right=right):
                return _product(self._expand(left), self._expand(right))
            case spec.Div(left=left, right=spec.Const(value=value)) if value:
                return {m: c / value for m, c in self._expand(left).items()}
            case spec.Pow(base=base, exponent=spec.Const(value=value)) if value.denominator == 1 and 1 <= value <= 4:
                inner = self._expand(base)
                total = inner
                for _ in range(int(value) - 1):
                    total = _product(total, inner)
                return total
        # a power that is no small whole number is an atom: `of` would come back here
        found = self.bounds._natural(expr) if isinstance(expr, spec.Pow) else self.bounds.of(expr)
        return {((self._atom(expr, found), 1),): Fraction(1)}

    def _by_terms(self, polynomial: Polynomial) -> Interval:
        total = closed(0.0, 0.0)
        for monomial, coefficient in polynomial.items():
            term = intervals.point(coefficient)
            for atom, power in monomial:
                term = intervals.multiply(term, intervals.power(self.ranges[atom], closed(float(power), float(power))))
            total = intervals.add(total, term)
        return total

    def _at_corners(self, polynomial: Polynomial) -> Interval | None:
        """The hull of the values at the corners of the box, when the polynomial is monotone along every edge."""
        used = sorted({atom for monomial in polynomial for atom, _ in monomial})
        if not 1 < len(polynomial) or not 0 < len(used) <= MAX_CORNER_FACTORS or not all(self.ranges[a].is_bounded for a in used):
            return None
        for atom in used:
            if max(power for monomial in polynomial for a, power in monomial if a == atom) > 1:
                slope = self._of(_derivative(polynomial, atom))
                if not (slope.is_nonnegative or slope.is_nonpositive):
                    return None
        values = {}
        for corner in product((0, 1), repeat=len(used)):
            at = {a: Fraction(self.ranges[a].high if end else self.ranges[a].low) for a, end in zip(used, corner, strict=True)}
            values[corner] = _evaluate(polynomial, at)
        opens = [(self.ranges[a].low_open, self.ranges[a].high_open) for a in used]
        least, most = min(values.values()), max(values.values())
        return intervals.hull_of_exact([(least, not _is_attained(values, least, opens)), (most, not _is_attained(values, most, opens))])


def _is_attained(values: dict[tuple[int, ...], Fraction], extreme: Fraction, opens: list[tuple[bool, bool]]) -> bool:
    """Whether a point of the box has the extreme value. Such a point lies inside a face on which the polynomial is constant;
    a coordinate the face fixes at an open end rules it out."""
    for face in product((0, 1, None), repeat=len(opens)):
        if any(end is not None and opens[i][end] for i, end in enumerate(face)):
            continue
        if all(value == extreme for corner, value in values.items() if all(end is None or corner[i] == end for i, end in enumerate(face))):
            return True
    return False


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    total = dict(left)
    for monomial, coefficient in right.items():
        total[monomial] = total.get(monomial, Fraction(0)) + coefficient
        if not total[monomial]:
            del total[monomial]
    if len(total) > MAX_TERMS:
        raise _TooLarge
    return total


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for a, x in left.items():
        for b, y in right.items():
            powers = dict(a)
            for atom, power in b:
                powers[atom] = powers.get(atom, 0) + power
            if sum(powers.values()) > MAX_DEGREE:
                raise _TooLarge
            total = _sum(total, {tuple(sorted(powers.items())): x * y})
    return total


def _derivative(polynomial: Polynomial, atom: int) -> Polynomial:
    total: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        powers = dict(monomial)
        power = powers.pop(atom, 0)
        if power:
            if power > 1:
                powers[atom] = power - 1
            total = _sum(total, {tuple(sorted(powers.items())): coefficient * power})
    return total


def _evaluate(polynomial: Polynomial, at: dict[int, Fraction]) -> Fraction:
    total = Fraction(0)
    for monomial, coefficient in polynomial.items():
        for atom, power in monomial:
            coefficient *= at[atom] ** power
        total += coefficient
    return total
