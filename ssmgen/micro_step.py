"""A micro-step of a derived recurrence as an expression of the states before it."""

from __future__ import annotations

from . import algebra
from .recurrence import Generator, MicroStep
from .source import NOWHERE
from .spec import Diag, Expr, Rot, StateRef, Type


def step_value(step: MicroStep, state: str, type_: Type) -> Expr:
    """What a micro-step leaves in a state, as an expression of the states before it."""
    terms = []
    for transition in (t for t in step.transitions if t.target == state):
        value: Expr = StateRef(type_, NOWHERE, transition.source, False)
        for generator in reversed(transition.left):
            value = _mapped(generator, value, is_left=True)
        for generator in transition.right:
            value = _mapped(generator, value, is_left=False)
        terms.append(algebra.mul(transition.coefficient, value))
    for write in (w for w in step.writes if w.target == state):
        value = write.key or write.value or algebra.UNIT
        if write.key is not None and write.value is not None:
            value = algebra.matmul(write.key, algebra.transpose(write.value))
        terms.append(algebra.mul(write.coefficient, value))
    return algebra.add(*terms) if terms else algebra.const(0, type_)


def _mapped(generator: Generator, value: Expr, *, is_left: bool) -> Expr:
    column, row = generator.column, generator.row
    if generator.kind == "elementwise":
        return algebra.mul(column, value)
    if generator.kind == "rank_one":
        if is_left:
            return algebra.matmul(column, algebra.matmul(algebra.transpose(row), value))
        return algebra.matmul(algebra.matmul(value, column), algebra.transpose(row))
    size = value.type.rows if is_left else value.type.cols
    node = {"diagonal": Diag, "rotation": Rot}.get(generator.kind)
    matrix = column if node is None else node(Type(size, size), NOWHERE, column)
    return algebra.matmul(matrix, value) if is_left else algebra.matmul(value, matrix)
