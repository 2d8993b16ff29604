"""States that feed each other, each entry those at its place: formulas of the small matrix of their rates.

At every place n states are ds/dt = A s + b with A n x n. For f(z) = f(0) + r z / (1 - g z), a quotient of linear formulas, and Z = dt A

    f(Z) = f(0) + r / g (R - 1),    R = (1 - g Z)^-1 = adjugate(1 - g Z) / determinant(1 - g Z)

so that one division makes all of them. The determinant is 0 where the step has no solution, or more than one.

Of two states an entire f, as exp, is closed as well. With m half the trace of Z and d = ((Z_11 - Z_22) / 2)^2 + Z_12 Z_21 is
(Z - m)^2 = d, and

    f(Z) = e + o (Z - m),    f(m + s) = e + s o  and  f(m - s) = e - s o  where s^2 = d

e and o are entire functions of m and d: there is nothing to divide by, whether the states fade (d > 0), swing (d < 0) or the roots are
one. Of more states it is the function of a small matrix at every entry, made before the recurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations

from .. import algebra
from ..discretizations import _method as formulas
from ..discretizations._method import Formula, Method
from ..expressions import widest
from ..source import Span
from ..spec import Expr, State
from .chains import Polynomial
from .formula_values import Formulas, depends_on_z
from .structure import NoClosedForm, Structure, spread, structure_of

Matrix = tuple[tuple[Expr, ...], ...]

FADING = (
    "let no state grow by itself, and let two that feed each other do so with opposite signs, as of an oscillator: "
    "`dz/dt = -g * z - a * x` and `dx/dt = z` with g and a `>= 0`"
)

MOST = 5
"""How many states an inverse is written out for: the determinant of six has 720 products."""


def groups(states: Sequence[State], derivatives: dict[str, Polynomial]) -> list[tuple[State, ...]]:
    """The states by who feeds whom, directly or by way of others, in order of declaration; one that none feeds is alone."""
    found = {state.name: {state.name} for state in states}
    for name, items in derivatives.items():
        for other in {item.state.name for item in items if item.state is not None}:
            joined = found[name] | found[other]
            found.update(dict.fromkeys(joined, joined))
    return list(dict.fromkeys(tuple(s for s in states if s.name in found[state.name]) for state in states))


@dataclass(frozen=True)
class System:
    """The rates of a group: `rates[i][j]` multiplies state j in the dynamics of state i, along `side`.

    side: along which axis entries differ, 'left', 'right' or 'whole'; '' for numbers. step: the step size in that shape.
    span: where the first is fed; fed: it, and the state that feeds it.
    """

    states: tuple[State, ...]
    rates: Matrix
    step: Expr
    side: str
    span: Span
    fed: tuple[State, State]
    formulas: Formulas
    named: Callable[[State, str, Expr], Expr]
    inverses: dict[Fraction, Matrix] = field(default_factory=dict)

    def has(self, method: Method) -> bool:
        """Whether every formula of the method that depends on z is closed here."""
        return self.lacks(method) is None

    def lacks(self, method: Method) -> str | None:
        """Why a formula of the method is not closed here; None where all of them are."""
        used = (f for f in (method.transition, method.write, method.older) if f is not None and depends_on_z(f))
        entire = [core for _, core in map(weighed, used) if not has_inverse(core)]
        if all(core in _ENTIRE for core in entire):
            return None if not entire or self.is_real else "a rate is complex"
        return f"`{self.fed[1].name}` enters the dynamics of `{self.fed[0].name}`"

    def uses_exponentials(self, method: Method) -> bool:
        """Whether an entire function of two states is written out for the method."""
        used = (f for f in (method.transition, method.write, method.older) if f is not None)
        return len(self.states) == 2 and any(weighed(f)[1] in _ENTIRE for f in used)

    @property
    def is_real(self) -> bool:
        """Whether no rate is complex."""
        return all(rate.type.field == "real" for row in self.rates for rate in row)

    def at(self, formula: Formula) -> Matrix:
        """`formula(dt A)`, entry by entry. What is divided by is noted where it may vanish."""
        weight, core = weighed(formula)
        if weight is not None:
            factor = self.formulas.expr(weight, algebra.ZERO)
            return tuple(tuple(algebra.mul(factor, entry) for entry in row) for row in self.at(core))
        if core in _ENTIRE:
            return self._of_two(_ENTIRE[core]) if len(self.states) == 2 else self._of_more(_ENTIRE[core])
        count = range(len(self.states))
        start = algebra.const(formulas.series(formula, 1, self.formulas.numbers())[0])
        slope, pole = formulas.slope_and_pole(formula)
        share = algebra.const(slope / pole)
        rest = algebra.sub(start, share)
        inverse = self._inverse(pole)
        return tuple(tuple(algebra.add(algebra.mul(share, inverse[i][j]), rest if i == j else algebra.ZERO) for j in count) for i in count)

    def _of_two(self, name: str) -> Matrix:
        """An entire function of `dt A`, A of two states: `e + o (dt A - m)`."""
        (a, b), (c, d) = (tuple(algebra.mul(self.step, rate) for rate in row) for row in self.rates)
        first, half = self.states[0], algebra.const(Fraction(1, 2))
        middle = self.named(first, "middle", algebra.mul(half, algebra.add(a, d)))
        apart = self.named(first, "apart", algebra.mul(half, algebra.sub(a, d)))
        square = self.named(first, "discriminant", algebra.add(algebra.apply("square", apart), algebra.mul(b, c)))
        even, odd = (self.named(first, f"{name}_{part}", algebra.apply(f"{name}_{part}", middle, square)) for part in ("even", "odd"))
        change = algebra.mul(odd, apart)
        return (algebra.add(even, change), algebra.mul(odd, b)), (algebra.mul(odd, c), algebra.sub(even, change))

    def _of_more(self, name: str) -> Matrix:
        """An entire function of `dt A`, A of more states: at every entry that of a small matrix; 0 where one does not reach the other."""
        count = range(len(self.states))
        entries = tuple(algebra.mul(self.step, rate) for row in self.rates for rate in row)
        type = widest(*(entry.type for entry in entries))
        reaches = [{j for j in count if i == j or not algebra.is_zero(self.rates[i][j])} for i in count]
        for _ in count:
            reaches = [set().union(*(reaches[j] for j in found)) for found in reaches]

        def entry(i: int, j: int) -> Expr:
            value = algebra.apply(f"entries_{name}", algebra.const(i), algebra.const(j), *entries, type=type)
            return self.named(self.states[i], f"{name}_from_{self.states[j].name}", value) if j in reaches[i] else algebra.ZERO

        return tuple(tuple(entry(i, j) for j in count) for i in count)

    def _inverse(self, pole: Fraction) -> Matrix:
        """`(1 - pole dt A)^-1`, its entries named."""
        if pole in self.inverses:
            return self.inverses[pole]
        count, g = range(len(self.states)), algebra.mul(algebra.const(pole), self.step)
        matrix = tuple(tuple(algebra.sub(algebra.const(int(i == j)), algebra.mul(g, self.rates[i][j])) for j in count) for i in count)
        below = determinant(matrix)
        names = " and ".join(f"`{state.name}`" for state in self.states)
        self.formulas.divides(below, False, self.span, f"{FADING}, and the step `> 0`", f"the step of {names} may have no solution")
        below = self.named(self.states[0], "determinant", below)
        found = tuple(
            tuple(
                self.named(self.states[i], f"from_{self.states[j].name}", algebra.div(_cofactor(matrix, j, i), below)) for j in count
            )
            for i in count
        )  # fmt: skip
        self.inverses[pole] = found
        return found


def system_of(
    states: tuple[State, ...], derivatives: dict[str, Polynomial], spans: dict[str, Span], step: Expr, step_side: str,
    values: Formulas, named: Callable[[State, str, Expr], Expr],
) -> System:  # fmt: skip
    """The rates of states that feed each other. Raises NoClosedForm where one of them is not fed entry by entry."""
    first = states[0]
    linear = {s.name: [item for item in derivatives[s.name] if item.state is not None] for s in states}
    fed, feeding = next((s, item) for s in states for item in linear[s.name] if item.state.name != s.name)
    if any(s.type != first.type for s in states):
        raise NoClosedForm(feeding.span, "states of different shapes feed each other")
    if len(states) > MOST:
        raise NoClosedForm(feeding.span, f"{len(states)} states feed each other, and an inverse is written out for at most {MOST}")
    found: list[list[Structure]] = []
    for target in states:
        found.append([])
        for source in states:
            terms = tuple(item for item in linear[target.name] if item.state.name == source.name)
            structure = structure_of(source, terms, spans[target.name], has_inverses=False)
            if structure.turning is not None or structure.rank_one:
                span = next(item.span for item in terms if any(f.kind not in ("diagonal", "state") for f in item.factors))
                raise NoClosedForm(span, f"`{feeding.state.name}` feeds `{fed.name}`, and this is not entry by entry")
            found[-1].append(structure)
    sides = frozenset(side for row in found for structure in row for side in structure.sides) | ({step_side} - {""})
    side = "whole" if len(sides) > 1 else "".join(sides)

    def shaped(value: Expr, along: str) -> Expr:
        return spread(value, along, first.type) if side == "whole" and along in ("left", "right") else value

    rates = tuple(tuple(shaped(s.rate(first.type), "".join(s.sides) if len(s.sides) == 1 else "") for s in row) for row in found)
    pair = fed, next(s for s in states if s.name == feeding.state.name)
    return System(states, rates, shaped(step, step_side), side, feeding.span, pair, values, named)


def growing(system: System) -> tuple[str, Expr] | None:
    """What shows that the states may grow, or do: a coefficient of det(r - A) that may be below 0, and how it is called.

    Of one or two states no root has a real part above 0 exactly where no coefficient is below 0; of more this is necessary, and
    one that is always below 0 is shown. None for complex rates.
    """
    if any(rate.type.field == "complex" for row in system.rates for rate in row):
        return None
    count = len(system.states)
    for size in range(1, count + 1):
        minors = [determinant(tuple(tuple(system.rates[i][j] for j in kept) for i in kept)) for kept in combinations(range(count), size)]
        coefficient = algebra.mul(algebra.const((-1) ** size), algebra.add(*minors))
        reach = system.formulas.bounds.of(coefficient)
        if reach.high < 0 or (count <= 2 and not reach.is_nonnegative):
            return "minus the sum of their own rates" if size == 1 else "a coefficient of det(r - A)", coefficient
    return None


_ENTIRE = {formulas.exp(formulas.Z): "exp", formulas.phi(1): "phi1"}
"""Formulas without a pole, by the function whose even and odd part they are made of."""


def weighed(formula: Formula) -> tuple[Formula | None, Formula]:
    """A factor that is free of z, None where there is none, and what it multiplies."""
    match formula:
        case formulas.Product(weight, core) | formulas.Product(core, weight) if not depends_on_z(weight):
            return weight, core
    return None, formula


def has_inverse(formula: Formula) -> bool:
    """Whether a formula is a quotient of linear ones with a pole."""
    return (found := formulas.slope_and_pole(formula)) is not None and found[1] != 0


def is_decaying(system: System) -> bool:
    """Whether no root of det(r - A) is proved to have a real part above 0; of one or two states the coefficients say so."""
    return len(system.states) <= 2 and system.is_real and growing(system) is None


def determinant(matrix: Matrix) -> Expr:
    """By the first row."""
    if not matrix:
        return algebra.UNIT
    terms = [algebra.mul(entry, _cofactor(matrix, 0, j)) for j, entry in enumerate(matrix[0]) if not algebra.is_zero(entry)]
    return algebra.add(*terms) if terms else algebra.ZERO


def _cofactor(matrix: Matrix, row: int, column: int) -> Expr:
    """The signed minor without a row and a column."""
    rest = tuple(tuple(x for j, x in enumerate(line) if j != column) for i, line in enumerate(matrix) if i != row)
    return algebra.mul(algebra.const((-1) ** (row + column)), determinant(rest))
