"""Two taps written by hand: `S' = A (S + c k[-1] v[-1]^T) + ...` is the previous token's write, entering before A."""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..delays import current
from ..expressions import constant, key, nodes
from ..recurrence import MicroStep, Transition, Write
from ..spec import Delayed, Expr, MatMul, Recurrence, Ref, Rot, State
from .chains import Chain, Factor, Polynomial, chain, collect, substitute
from .terms import transition_factors, write


def entering(items: Polynomial, state: State, spec: Recurrence) -> tuple[Write, ...] | None:
    """The taps of `S' = S + c k[-1] v[-1]^T + ...`: the state itself and delayed writes, nothing else. None for other forms."""
    own = [item for item in items if item.state is not None]
    rest = [item for item in items if item.state is None]
    if len(own) != 1 or not rest or own[0].state.name != state.name or constant(own[0].coefficient) != 1:
        return None
    factor = own[0].factors[0]
    if len(own[0].factors) != 1 or factor.transposed or factor.conjugated or factor.weight is not None:
        return None
    found = []
    for item in rest:
        if any(f.kind not in ("column", "row") or not _is_previous(f.expr, spec) for f in item.factors) or not item.factors:
            return None
        term = write(item, state)
        found.append(replace(term, key=current(term.key), value=current(term.value), tap=1))
    return tuple(found)


def _is_previous(expr: Expr, spec: Recurrence) -> bool:
    """Whether the value is the previous token's: delayed names and static ones only."""
    statics = {s.name for s in spec.symbols if s.static or s.kind == "param"}
    found = list(nodes(expr))
    return any(isinstance(n, Delayed) for n in found) and all(n.name in statics for n in found if isinstance(n, Ref))


def fold_taps(steps: tuple[MicroStep, ...], spec: Recurrence) -> tuple[MicroStep, ...]:
    """Writes of delayed keys and values that pass through the transition, as writes of tap 1.

    A delayed write that does not pass through it stays a write of tap 0, with the delayed names in its factors.
    """
    if not any(isinstance(n, Delayed) for step in steps for w in step.writes for e in (w.key, w.value) if e is not None for n in nodes(e)):
        return steps
    return tuple(_fold(step, spec) if step.index is None and len(steps) == 1 else step for step in steps)


def _fold(step: MicroStep, spec: Recurrence) -> MicroStep:
    writes = list(step.writes)
    for state in spec.states:
        transitions = [t for t in step.transitions if t.target == state.name]
        # what enters a state before the transitions enters those that it feeds as well
        feeds = any(t.source == state.name != t.target for t in step.transitions)
        if not transitions or feeds or any(t.source != state.name for t in transitions):
            continue
        for first in tuple(w for w in writes if w.target == state.name and w.tap == 0 and _is_delayed(w)):
            if first not in writes:
                continue
            before = _before(first, transitions[0], spec)
            if before is None:
                continue
            item = _chain(before, state)
            through = collect(part for t in transitions for part in substitute(_transition_chain(t, state), (item,)))
            matched = _matched(through, [w for w in writes if w.target == state.name and w.tap == 0], state)
            if matched is not None:
                at = writes.index(first)
                writes[at:at] = [replace(before, key=current(before.key), value=current(before.value), tap=1)]
                writes = [w for w in writes if w not in matched]
    return replace(step, writes=tuple(writes))


def _is_delayed(term: Write) -> bool:
    """Whether the key or the value holds a previous token's value."""
    found = [n for e in (term.key, term.value) if e is not None for n in nodes(e)]
    return any(isinstance(n, Delayed) for n in found) and term.index is None and term.weight is None


def _before(term: Write, through: Transition, spec: Recurrence) -> Write | None:
    """The write that `through` turns into `term`; None when there is none."""
    coefficient = algebra.quotient(term.coefficient, through.coefficient)
    if coefficient is None or through.index is not None:
        return None
    column, row = term.key, term.value
    for generator in through.left:
        column = _without(column, generator.kind, generator.column)
    for generator in reversed(through.right):
        row = _without(row, generator.kind, generator.column)
    if any(e is not None and not _is_previous(e, spec) for e in (column, row)) or (term.key is not None and column is None):
        return None
    if term.value is not None and row is None:
        return None
    return replace(term, coefficient=coefficient, key=column, value=row)


def _without(column: Expr | None, kind: str, factor: Expr) -> Expr | None:
    """`x` of `diag(factor) x` or `rot(factor) x`."""
    if column is None:
        return None
    if kind == "diagonal":
        return algebra.quotient(column, factor)
    if kind == "rotation":
        if isinstance(column, MatMul) and isinstance(column.left, Rot) and key(column.left.operand) == key(factor):
            return column.right
    return None


def _chain(term: Write, state: State) -> Chain:
    factors = [Factor("column", term.key)] if term.key is not None else []
    factors += [Factor("row", term.value)] if term.value is not None else []
    return chain(term.coefficient, factors, state.type.rows, state.type.cols, span=term.span)


def _transition_chain(term: Transition, state: State) -> Chain:
    index = (term.index, term.rank) if term.index else None
    return chain(term.coefficient, transition_factors(term, state), state.type.rows, state.type.cols, index, term.span)


def _matched(through: Polynomial, writes: list[Write], state: State) -> list[Write] | None:
    """The writes that are the terms of `through`, all of them; None when one is missing."""
    found = []
    for item in through:
        wanted = write(item, state)
        match = next((w for w in writes if w not in found and _same_write(w, wanted)), None)
        if match is None:
            return None
        found.append(match)
    return found


def _same_write(left: Write, right: Write) -> bool:
    parts = ((left.key, right.key), (left.value, right.value), (left.coefficient, right.coefficient), (left.weight, right.weight))
    return all(_same(one, other) for one, other in parts)


def _same(left: Expr | None, right: Expr | None) -> bool:
    return left is right if left is None or right is None else key(left) == key(right)
