"""A micro-step of a derived recurrence as an expression of the states before it."""

from __future__ import annotations

from .. import algebra
from ..delays import previous
from ..recurrence import Generator, MicroStep, Write
from ..source import NOWHERE
from ..spec import Diag, Dim, Expr, Rot, StateRef, Symbol, Type


def step_value(step: MicroStep, state: str, type_: Type, symbols: tuple[Symbol, ...]) -> Expr:
    """What a micro-step leaves in a state, as an expression of the states before it and of the previous token's values."""
    terms = []
    for transition in (t for t in step.transitions if t.target == state):
        value: Expr = StateRef(type_, NOWHERE, transition.source, False)
        value = algebra.add(value, *(_written(w, symbols) for w in step.writes if w.target == transition.source and w.tap == 1))
        for generator in reversed(transition.left):
            value = _mapped(generator, value, is_left=True)
        for generator in transition.right:
            value = _mapped(generator, value, is_left=False)
        terms.append(_summed(transition.index, transition.rank, algebra.mul(transition.coefficient, value)))
    terms += [_written(w, symbols) for w in step.writes if w.target == state and w.tap == 0]
    return algebra.add(*terms) if terms else algebra.const(0, type_)


def _written(write: Write, symbols: tuple[Symbol, ...]) -> Expr:
    key, value, weight = (previous(e, symbols) if write.tap else e for e in (write.key, write.value, write.weight))
    whole = key or value or algebra.UNIT
    if key is not None and value is not None:
        whole = algebra.matmul(key, algebra.transpose(value))
    if weight is not None:
        whole = weighted(weight, key, value)
    return _summed(write.index, write.rank, algebra.mul(write.coefficient, whole))


def weighted(weight: Expr, key: Expr | None, value: Expr | None) -> Expr:
    """`weight * (key value^T)`, entry by entry; a key or a value of None is 1 in every entry."""
    if key is None and value is None:
        return weight
    rows = algebra.const(1, Type(weight.type.rows)) if key is None else key
    cols = algebra.const(1, Type(weight.type.cols)) if value is None else value
    return algebra.mul(weight, algebra.matmul(rows, algebra.transpose(cols)))


def _summed(index: str | None, rank: Dim | None, term: Expr) -> Expr:
    return term if index is None else algebra.sum_over(index, rank, term)


def _mapped(generator: Generator, value: Expr, *, is_left: bool) -> Expr:
    column, row = generator.column, generator.row
    if generator.kind == "elementwise":
        return algebra.mul(column, value)
    if generator.kind == "part":
        return algebra.mul(column, algebra.apply("Re", algebra.matmul(algebra.transpose(row), value)))
    if generator.kind == "rank_one":
        if is_left:
            return algebra.matmul(column, algebra.matmul(algebra.transpose(row), value))
        return algebra.matmul(algebra.matmul(value, column), algebra.transpose(row))
    size = value.type.rows if is_left else value.type.cols
    node = {"diagonal": Diag, "rotation": Rot}.get(generator.kind)
    matrix = column if node is None else node(Type(size, size), NOWHERE, column)
    return algebra.matmul(matrix, value) if is_left else algebra.matmul(value, matrix)
