"""The eigenvalues of what a token does to a state, as numbers to draw: where they are proved to lie, and where they begin.

What is left of a write after t tokens is the t-th power of an eigenvalue.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable
from dataclasses import dataclass

from ..initial_values import InitialValues, NoValue
from ..intervals import Interval
from ..recurrence import MicroStep, Recurrence, Transition
from ..spec import ONE, Expr
from ..stability import half_life, stability

LANES, ENTRIES = 16, 16
"""How many heads (or channels) and entries of a state give eigenvalues at initial parameters."""

_DIGITS = 12


@dataclass(frozen=True)
class Spectrum:
    """Of states whose eigenvalues are the same.

    factor: |a| for every token, None where nothing is proved; signed: a itself, None where it turns, so that |a| is a ring and not a
    stretch of the line. along: the eigenvalue of a correction along its key, of length 1, for every token. eigenvalues and
    initial_along: the same numbers at initial parameters and inputs of 0, each once; empty where they are none.
    """

    states: tuple[str, ...]
    factor: Interval | None
    signed: Interval | None
    along: Interval | None
    eigenvalues: tuple[complex, ...]
    initial_along: tuple[complex, ...]

    @property
    def half_life(self) -> Interval | None:
        """Tokens after which half of a write is left, for every token; None when it can grow or is not known."""
        return None if self.factor is None else half_life(self.factor)


def spectra(recurrence: Recurrence) -> tuple[Spectrum, ...]:
    """One for each set of states with the same eigenvalues, in order of declaration; none where the states are not linear."""
    found: list[Spectrum] = []
    for each in stability(recurrence):
        own = _terms(recurrence, each.state)
        turns = any(g.kind == "rotation" or g.column.type.field == "complex" for _, t in own for g in t.left + t.right)
        turns = turns or any(t.coefficient.type.field == "complex" for _, t in own)
        values = () if each.factor is None else _numbers(recurrence, lambda v, own=own: _of_terms(v, recurrence, own))
        if recurrence.spec.state(each.state).conjugate:
            values = tuple(sorted({a: None for b in values for a in (b, b.conjugate())}, key=_order))
        along = () if each.along is None else _numbers(recurrence, lambda v, expr=each.along: _of_value(v, expr))
        one = Spectrum((each.state,), each.factor, None if turns else each.signed, each.along_bound, values, along)
        if found and _unnamed(found[-1]) == _unnamed(one):
            found[-1] = Spectrum((*found[-1].states, each.state), *_unnamed(one))
        else:
            found.append(one)
    return tuple(found)


def _unnamed(spectrum: Spectrum) -> tuple:
    return tuple(value for name, value in vars(spectrum).items() if name != "states")


def _terms(recurrence: Recurrence, state: str) -> list[tuple[MicroStep, Transition]]:
    """The terms that carry a state to itself without mixing its entries."""
    mixing = ("rank_one", "part", "dense")
    return [(s, t) for s in recurrence.steps for t in s.transitions
            if t.target == t.source == state and not any(g.kind in mixing for g in t.left + t.right)]  # fmt: skip


def _numbers(recurrence: Recurrence, values_of: Callable[[InitialValues], list[complex]]) -> tuple[complex, ...]:
    """What all lanes have at initial parameters, each number once; empty where one is no number."""
    found: dict[complex, None] = {}
    try:
        for lane in range(LANES):
            for value in values_of(InitialValues(recurrence, lane, LANES)):
                found[complex(round(value.real, _DIGITS) + 0.0, round(value.imag, _DIGITS) + 0.0)] = None
    except NoValue:
        return ()
    return tuple(sorted(found, key=_order))


def _order(a: complex) -> tuple[float, float, float]:
    return abs(a), a.real, a.imag


def _of_terms(values: InitialValues, recurrence: Recurrence, terms: list[tuple[MicroStep, Transition]]) -> list[complex]:
    """What a token multiplies the entries by."""
    rows, places = _places(values, terms)
    return [value for row, column in places for value in _at(values, recurrence, terms, rows, row, column)]


def _of_value(values: InitialValues, expr: Expr) -> list[complex]:
    return [complex(values.of(expr, row)) for row in _spread(values.size(expr))]


def _places(values: InitialValues, terms: list[tuple[MicroStep, Transition]]) -> tuple[int, list[tuple[int, int]]]:
    """How many rows factors tell apart (pairs, where those are all), and entries to look at: ENTRIES of rows, or of columns."""
    rows = columns = 1
    for _, term in terms:
        for place, generators in (("left", term.left), ("right", term.right)):
            for g in generators:
                if g.kind == "elementwise":
                    rows, columns = max(rows, values.size(g.column)), max(columns, _columns(values, g.column))
                elif place == "left":
                    rows = max(rows, values.size(g.column))
                else:
                    columns = max(columns, values.size(g.column))
        if term.coefficient.type.rows != ONE:
            rows = max(rows, values.size(term.coefficient))
    return rows, [(row, column) for row in _spread(rows) for column in _spread(columns if rows == 1 else min(columns, 4))]


def _columns(values: InitialValues, expr) -> int:
    return int(expr.type.cols.value(values.sizes))


def _spread(count: int) -> list[int]:
    """The first, the last and others between, ENTRIES at most."""
    if count <= ENTRIES:
        return list(range(count))
    return [round(i * (count - 1) / (ENTRIES - 1)) for i in range(ENTRIES)]


def _at(
    values: InitialValues, recurrence: Recurrence, terms: list[tuple[MicroStep, Transition]], rows: int, row: int, column: int
) -> list[complex]:
    """What a token multiplies one entry by; two numbers where it turns with another."""
    total, turned = 1 + 0j, False
    for step in recurrence.steps:
        own = [term for found, term in terms if found is step]
        part = 0j
        for term in own:
            product = complex(values.of(term.coefficient, row, column))
            for g in term.left:
                if g.kind == "rotation":
                    # of rows that are told apart, two turn by one angle
                    angle = values.of(g.column, row * values.size(g.column) // rows)
                    product, turned = product * cmath.exp(1j * angle), True
                else:
                    product *= values.of(g.column, row, column)
            for g in term.right:
                product *= values.of(g.column, column)
            part += product
        total *= part ** (1 if step.count is None else int(step.count.value(values.sizes)))
    return [total, total.conjugate()] if turned else [total]
