"""What a rank-one term erases, and when: before the state forgets (it reads the old state) or after (the decayed one).

The normal form writes both as `D S - b c k (D^T e)^T S`, D the forgetting part and c its number: a term that holds all of D
measured the decayed state with e. Taking D out again gives e back, without a division.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import algebra
from .expressions import key
from .recurrence import Generator, Transition
from .spec import Expr, MatMul, Rot


@dataclass(frozen=True)
class Erasure:
    """`coefficient * write_key erase_key^T` on the state as it is (`read_first`) or on the decayed state (`forget_first`).

    side: 'key' (acts on the rows of the state, from the left) or 'value' (on its columns, from the right).
    """

    side: str
    order: str
    coefficient: Expr
    write_key: Expr
    erase_key: Expr


def erasure(term: Transition, decay: Transition) -> Erasure:
    """What a rank-one transition erases beside the decay of the same state.

    `term` has exactly one generator, of kind 'rank_one'; `decay` only diagonals and rotations, on the same side. Without any
    decay the orders are one, and the answer is `forget_first`.
    """
    on_left = bool(term.left)
    (generator,) = term.left + term.right
    # (c u e^T) D S, or S D (e u^T)
    write_key, read = (generator.column, generator.row) if on_left else (generator.row, generator.column)
    forgetting = reversed(decay.left) if on_left else decay.right
    undecayed: Expr | None = read
    for part in forgetting:
        undecayed = _without(undecayed, part, transposed=on_left) if undecayed is not None else None
    coefficient = algebra.quotient(term.coefficient, decay.coefficient)
    side = "key" if on_left else "value"
    if undecayed is None or coefficient is None:
        return Erasure(side, "read_first", term.coefficient, write_key, read)
    return Erasure(side, "forget_first", coefficient, write_key, undecayed)


def _without(column: Expr, generator: Generator, transposed: bool) -> Expr | None:
    """`x` with `generator x` (its transpose when `transposed`) equal to `column`; None when the column does not show it."""
    if generator.kind == "diagonal":
        return algebra.quotient(column, generator.column)
    if generator.kind == "rotation" and isinstance(column, MatMul) and isinstance(column.left, Rot):
        angle = algebra.neg(generator.column) if transposed else generator.column
        if key(column.left.operand) == key(angle):
            return column.right
    return None
