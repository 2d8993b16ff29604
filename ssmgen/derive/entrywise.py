"""States that feed each other, each entry those at its place: formulas of the small matrix of their rates.

At every place n states are ds/dt = A s + b with A n x n. For f(z) = f(0) + r z / (1 - g z), a quotient of linear formulas, and Z = dt A

    f(Z) = f(0) + r / g (R - 1),    R = (1 - g Z)^-1 = adjugate(1 - g Z) / determinant(1 - g Z)

so that one division makes all of them. The determinant is 0 where the step has no solution, or more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations

from .. import algebra
from ..discretizations import _method as formulas
from ..discretizations._method import Formula, Method
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


def is_closed(method: Method) -> bool:
    """Whether every formula of the method is free of z or a quotient of linear ones with a pole."""
    used = [f for f in (method.transition, method.write, method.older) if f is not None and depends_on_z(f)]
    return all((found := formulas.slope_and_pole(f)) is not None and found[1] != 0 for f in used)


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

    def at(self, formula: Formula) -> Matrix:
        """`formula(dt A)`, entry by entry. What is divided by is noted where it may vanish."""
        count = range(len(self.states))
        start = algebra.const(formulas.series(formula, 1, self.formulas.numbers())[0])
        slope, pole = formulas.slope_and_pole(formula)
        share = algebra.const(slope / pole)
        rest = algebra.sub(start, share)
        inverse = self._inverse(pole)
        return tuple(tuple(algebra.add(algebra.mul(share, inverse[i][j]), rest if i == j else algebra.ZERO) for j in count) for i in count)

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
